"""Pick the database of each model: one router per cluster's database, one for the control database.

A cluster model is answered by the router of the bound cluster only. When none is bound the question
reaches the control router, which refuses: a cluster's rows never come from a default.
"""

from __future__ import annotations

from typing import Any

from clusters.errors import ClusterNotBound
from clusters.registry import alias_of

CLUSTER_APPS = frozenset({"clusters", "jobs"})
CONTROL = "default"


class ClusterRouter:
    def __init__(self, cluster_id: str) -> None:
        self.cluster_id = cluster_id
        self.alias = alias_of(cluster_id)

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        from clusters.binding import bound_cluster_id

        if model._meta.app_label not in CLUSTER_APPS:
            return None
        # A row that is already loaded stays with the database it came from.
        instance = hints.get("instance")
        if instance is not None and instance._state.db:
            return self.alias if instance._state.db == self.alias else None
        return self.alias if bound_cluster_id() == self.cluster_id else None

    db_for_write = db_for_read

    def allow_relation(self, one: Any, other: Any, **hints: Any) -> bool | None:
        if one._state.db == self.alias or other._state.db == self.alias:
            return bool(one._state.db == other._state.db)
        return None

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return app_label in CLUSTER_APPS if db == self.alias else None


class ControlRouter:
    """The last router: everything that belongs to no cluster."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        if model._meta.app_label in CLUSTER_APPS:
            raise ClusterNotBound(f"{model.__name__} belongs to a cluster, and none is bound")
        return CONTROL

    db_for_write = db_for_read

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db == CONTROL and app_label not in CLUSTER_APPS
