"""The active cluster of the running request, command or loop.

The binding is a context variable: threads and executors start without one and must bind their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from django.conf import settings

from clusters.errors import ClusterNotBound, UnknownCluster
from clusters.registry import Cluster

_bound: ContextVar[str | None] = ContextVar("yardmaster_cluster", default=None)


def get_cluster(cluster_id: str) -> Cluster:
    try:
        return settings.CLUSTERS[cluster_id]
    except KeyError:
        raise UnknownCluster(cluster_id) from None


def bound_cluster_id() -> str | None:
    """The id of the bound cluster, or None."""
    return _bound.get()


def current_cluster() -> Cluster:
    cluster_id = _bound.get()
    if cluster_id is None:
        raise ClusterNotBound("no cluster is bound; use clusters.binding.cluster_bound(cluster_id)")
    return get_cluster(cluster_id)


@contextmanager
def cluster_bound(cluster_id: str) -> Iterator[Cluster]:
    """Bind a cluster for the length of the block; the former binding comes back in any case."""
    cluster = get_cluster(cluster_id)
    token = _bound.set(cluster_id)
    try:
        yield cluster
    finally:
        _bound.reset(token)
