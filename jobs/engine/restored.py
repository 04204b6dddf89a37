"""Restored: a cluster that came back from a backup waits until a person lets its jobs start.

The world has moved on and the rows have not. Jobs that were running when the backup was taken may have
ended since; jobs that had not started may have run. Of the former there is a list, and the person says
what becomes of them; of the latter nobody knows, and they run, again where they ran already.

The mark is a row that every claim looks for; see ``clusters.models.RESTORED``.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Exists, Max, OuterRef

from clusters.deeds import deed, require
from clusters.models import ClusterSetting, Node, forget_policies
from clusters.policy import ClusterPolicy
from clusters.registry import id_of
from jobs.engine.rescue import Gone, rescue_node
from jobs.errors import Conflict
from jobs.hints import ANY_QUEUE, hint_ready
from jobs.models import Job
from jobs.models.job_queryset import JobQuerySet
from jobs.states import UNSTARTED, OnLost, State

logger = logging.getLogger(__name__)

# Beyond these, counting stops.
MAX_COUNTED = 100_000


@dataclass(frozen=True, slots=True)
class Waiting:
    """A cluster that was restored and waits for a person."""

    since: datetime
    by: str
    # The newest heartbeat in the backup: it was taken shortly after, or after the last node had ended.
    last_heartbeat_at: datetime | None
    # How many jobs had not started; those that ran after the backup was taken run again.
    unstarted: int


def waiting(using: str) -> Waiting | None:
    """That the cluster waits, or None."""
    mark = ClusterSetting.objects.using(using).all().restored().first()
    if mark is None:
        return None
    before = Node.objects.using(using).filter(heartbeat_at__lt=mark.updated_at)
    unstarted = Job.objects.using(using).filter(state__in=UNSTARTED).order_by()
    return Waiting(
        mark.updated_at,
        mark.updated_by,
        before.aggregate(at=Max("heartbeat_at"))["at"],
        unstarted[:MAX_COUNTED].count(),
    )


def uncertain(using: str) -> JobQuerySet:
    """Jobs that were running when the backup was taken, but for those of nodes heard of since."""
    heard_of = ClusterSetting.objects.using(using).all().restored().values("updated_at")
    living = (
        Node.objects.using(using).alive().filter(heartbeat_at__gte=heard_of, pk=OuterRef("node_id"))
    )
    return Job.objects.using(using).filter(~Exists(living), state=State.RUNNING)


def confirm(using: str, policy: ClusterPolicy, decision: OnLost | None, *, by: str) -> int:
    """Let jobs start; what was running becomes what ``decision`` says. Returns how many those were.

    None leaves it to the author of each. Done twice, or begun and not ended, it does no harm: work
    starts when nothing uncertain is left.
    """
    require("restored.confirm", using)
    mark = ClusterSetting.objects.using(using).all().restored()
    if not mark.exists():
        raise Conflict("the cluster does not wait for a confirmation")
    nodes = Node.objects.using(using)
    nodes.all().bury()
    jobs = uncertain(using)
    holders: set[Any] = {*jobs.order_by().values_list("node_id", flat=True).distinct()}
    silent = nodes.alive().filter(pk__in=holders).order_by("-lease_until").first()
    if silent is not None:
        raise Conflict(
            f"node {silent} may live: it has a lease until {silent.lease_until:%H:%M:%S}Z and was not"
            " heard of since the restore; confirm again when that is over"
        )
    decided = 0
    for holder in sorted(holders):
        error = "it was running when the backup was taken from which the cluster was restored"
        gone = Gone(holder, error, "Restored", crashed=False, on_lost=decision)
        decided += rescue_node(using, gone, policy)
    if left := jobs.count():
        raise Conflict(f"{left} jobs could not be decided; a node's log or this one's says why")
    with deed("restored.confirm", "cluster", id_of(using), using=using) as trace:
        trace.count, trace.after = decided, {"decision": decision}
        mark.delete()
    forget_policies()
    hint_ready(using, {ANY_QUEUE})
    logger.warning("%s let the jobs of the restored cluster start; %d decided", by, decided)
    return decided
