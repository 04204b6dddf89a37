"""Look at the configured clusters: can they be reached, what is set where; and set it."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError, Namespace
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connections

from clusters.binding import cluster_bound
from clusters.errors import UnsoundSettings
from clusters.management.base import (
    CommandFailed,
    NotFound,
    OperatorCommand,
    UsageError,
    check_database_is_there,
    database_failure,
    operator,
)
from clusters.models import RESTORED, ClusterSetting, Node, SettingChange
from clusters.policy import FIELDS, defaults_of, effective, overridden
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
    help = "Look at the configured clusters: can they be reached, what is set where; and set it."
    acts_on_cluster = False

    def add_verbs(self) -> None:
        self.verb("list", self.list_clusters, "all clusters, and whether their databases answer")
        parser = self.verb("show", self.show_cluster, "one cluster, its settings and their origin")
        parser.add_argument("id")
        parser = self.verb("set", self.change_settings, "change settings in a cluster's database")
        parser.add_argument("id")
        parser.add_argument(
            "values",
            nargs="+",
            type=setting,
            metavar="NAME=VALUE",
            help="an empty value: the default",
        )
        parser.add_argument("--reason", default="", help="kept with the change")
        parser = self.verb(
            "changes", self.list_changes, "what was changed in the settings, by whom"
        )
        parser.add_argument("id")
        parser.add_argument("--limit", type=int, default=50)

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
        cluster = _find(asked.id)
        look = _look(cluster)
        values = _settings(look)
        explicit = cluster.explicit_settings
        beaten = overridden(look.persisted, explicit) if look.persisted is not None else []
        document = {**look.document(), "settings": values, "overridden": beaten}
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
        for name in beaten:
            shared = (look.persisted or {}).get(name, "the default")
            self.say(
                f"{name}: the database says {shared}, but the configuration file of this process "
                f"sets {explicit[name]}, which wins here."
            )
        if look.problem is not None:
            self.say("What the database holds is not known; these are this process's own values.")

    def change_settings(self, asked: Namespace) -> None:
        cluster, values = _find(asked.id), dict(asked.values)
        check_database_is_there(cluster.alias)
        with cluster_bound(cluster.id):
            try:
                changed = ClusterSetting.objects.all().change(
                    values, by=operator(), reason=asked.reason
                )
            except UnsoundSettings as error:
                name, problem = next(iter(error.problems.items()))
                raise UsageError(f"{name}: {problem}", field=name) from None
        self.say(_changed_words(len(changed)))
        self.show_cluster(asked)

    def list_changes(self, asked: Namespace) -> None:
        cluster = _find(asked.id)
        check_database_is_there(cluster.alias)
        with cluster_bound(cluster.id):
            found = [*SettingChange.objects.order_by("-id")[: max(asked.limit, 1)]]
        columns = ("at", "name", "before", "after", "by", "reason")
        rows = [tuple(getattr(change, column) for column in columns) for change in found]
        documents = [
            {**dict(zip(columns, row, strict=True)), "at": row[0].isoformat()} for row in rows
        ]
        self.show(
            {"items": documents, "next": None, "previous": None},
            lambda: self.print_table(columns, rows),
        )


def setting(text: str) -> tuple[str, Any]:
    """`lease_seconds=60`, `mode=passive`; `mode=` for what nobody has set."""
    name, separator, value = text.partition("=")
    if not separator or name not in FIELDS:
        raise ArgumentTypeError(f"{text[:60]!r}: write NAME=VALUE; known are {', '.join(FIELDS)}")
    try:
        return name, json.loads(value) if value else None
    except ValueError:
        return name, value


def _find(cluster_id: str) -> Cluster:
    cluster: Cluster | None = settings.CLUSTERS.get(cluster_id)
    if cluster is None:
        raise NotFound(f"there is no cluster {cluster_id!r}; known: {', '.join(settings.CLUSTERS)}")
    return cluster


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
    defaults = defaults_of(policy.mode)
    return {
        name: {
            "value": getattr(policy, name),
            "source": EXPLICIT if name in explicit else PERSISTED if name in persisted else DEFAULT,
            "default": defaults[name],
        }
        for name in FIELDS
    }


def _changed_words(count: int) -> str:
    if not count:
        return "Nothing changed: all were so already."
    settings_changed = "1 setting" if count == 1 else f"{count} settings"
    return f"Changed {settings_changed}; processes follow within five seconds."
