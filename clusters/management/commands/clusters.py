"""Look at the configured clusters: can they be reached, and what is set where."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connections

from clusters.binding import cluster_bound
from clusters.management.base import (
    CommandFailed,
    NotFound,
    OperatorCommand,
    check_database_is_there,
    database_failure,
)
from clusters.models import RESTORED, ClusterSetting, Node
from clusters.policy import DEFAULTS, FIELDS, effective
from clusters.registry import Cluster

EXPLICIT, PERSISTED, DEFAULT = "configuration", "database", "default"


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at a cluster's database found; ``problem`` is None where it answered."""

    cluster: Cluster
    database: str
    live_nodes: int | None = None
    persisted: Mapping[str, Any] | None = None
    problem: str | None = None

    @property
    def awaits_confirmation(self) -> bool | None:
        return None if self.persisted is None else RESTORED in self.persisted

    def document(self) -> dict[str, Any]:
        return {
            "id": self.cluster.id,
            "title": self.cluster.title or self.cluster.id,
            # Whoever can type this has the databases' passwords.
            "role": "admin",
            "database": self.database,
            "is_reachable": self.problem is None,
            "awaits_confirmation": self.awaits_confirmation,
            "problem": self.problem,
            "live_nodes": self.live_nodes,
        }


class Command(OperatorCommand):
    help = "Look at the configured clusters: can they be reached, and what is set where."
    acts_on_cluster = False

    def add_verbs(self) -> None:
        self.verb("list", self.list_clusters, "all clusters, and whether their databases answer")
        parser = self.verb("show", self.show_cluster, "one cluster, its settings and their origin")
        parser.add_argument("id")

    def list_clusters(self, asked: Namespace) -> None:
        # At once, so that one that is down costs its connect timeout and no more.
        with ThreadPoolExecutor(max_workers=8) as threads:
            looks = [*threads.map(_look_and_close, settings.CLUSTERS.values())]
        self.show(
            {"items": [look.document() for look in looks], "next": None, "previous": None},
            lambda: self.print_table(
                ("id", "title", "database", "reachable", "waits for you", "live nodes", "problem"),
                (
                    (
                        look.cluster.id,
                        look.cluster.title or look.cluster.id,
                        look.database,
                        look.problem is None,
                        look.awaits_confirmation,
                        look.live_nodes,
                        look.problem,
                    )
                    for look in looks
                ),
            ),
        )

    def show_cluster(self, asked: Namespace) -> None:
        cluster = settings.CLUSTERS.get(asked.id)
        if cluster is None:
            raise NotFound(
                f"there is no cluster {asked.id!r}; known: {', '.join(settings.CLUSTERS)}"
            )
        look = _look(cluster)
        values = _settings(look)
        document = {**look.document(), "settings": values}
        if self.is_json:
            self.print_json(document)
        else:
            self.print_record({k: v for k, v in look.document().items() if k != "role"})
            self.stdout.write("")
            self.print_table(
                ("setting", "value", "from", "meaning"),
                (
                    (name, entry["value"], entry["source"], FIELDS[name].metadata["about"])
                    for name, entry in values.items()
                ),
            )
        if look.problem is not None:
            self.say("What the database holds is not known; these are this process's own values.")


def _look_and_close(cluster: Cluster) -> Look:
    try:
        return _look(cluster)
    finally:
        connections[cluster.alias].close()


def _look(cluster: Cluster) -> Look:
    vendor = connections[cluster.alias].vendor
    found: dict[str, Any] = {}
    try:
        check_database_is_there(cluster.alias)
        with cluster_bound(cluster.id):
            found["live_nodes"] = Node.objects.all().alive().count()
            found["persisted"] = dict(ClusterSetting.objects.values_list("name", "value"))
    except (CommandFailed, DatabaseError, InterfaceError) as error:
        failure = error if isinstance(error, CommandFailed) else database_failure(error)
        found = {"problem": str(failure)}
    return Look(cluster, vendor, **found)


def _settings(look: Look) -> dict[str, dict[str, Any]]:
    explicit, persisted = look.cluster.explicit_settings, look.persisted or {}
    policy = effective(persisted, explicit)
    return {
        name: {
            "value": getattr(policy, name),
            "source": EXPLICIT if name in explicit else PERSISTED if name in persisted else DEFAULT,
            "default": getattr(DEFAULTS, name),
        }
        for name in FIELDS
    }
