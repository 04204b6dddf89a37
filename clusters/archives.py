"""Where a cluster may move what it no longer keeps: to an archived cluster, and in no circle."""

from __future__ import annotations

from django.conf import settings
from django.db import DatabaseError, InterfaceError

from clusters.acting import who_acts
from clusters.models import ClusterSetting
from clusters.policy import ACTIVE, ARCHIVED, effective
from clusters.registry import Cluster

# An archive may have one of its own, and that one too.
MAX_CHAIN = 10
UNKNOWN = "is no cluster that this process knows"


def problem_of_asking(cluster_id: str, target_id: str) -> str | None:
    """The same for whoever acts: nobody may write into a cluster by way of another one's archive."""
    somebody = who_acts()
    if somebody is not None and not somebody.may("settings.change", target_id):
        return UNKNOWN
    return target_problem(cluster_id, target_id)


def target_problem(cluster_id: str, target_id: str) -> str | None:
    """Why a cluster cannot be archived to another one now; None where it can.

    Asks the databases of the other one and of those that it is archived to itself.
    """
    at = target_id
    for _ in range(MAX_CHAIN):
        if at == cluster_id:
            return "would come back to the cluster itself"
        target = settings.CLUSTERS.get(at)
        if target is None:
            return UNKNOWN
        try:
            persisted = ClusterSetting.objects.using(target.alias).all().persisted()
        except (DatabaseError, InterfaceError, OSError):
            return f"cannot be looked at now: the database of {at} does not answer"
        if at == target_id and persisted.get("mode", ACTIVE) != ARCHIVED:
            return "is not archived: set its mode first, so that nobody works with what comes to it"
        if not (at := _next(target, persisted)):
            return None
    return f"goes on through more than {MAX_CHAIN} clusters"


def _next(cluster: Cluster, persisted: dict[str, object]) -> str:
    return effective(persisted, cluster.explicit_settings).archive_to
