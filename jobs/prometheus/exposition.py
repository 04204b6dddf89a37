"""The text that Prometheus reads: one cluster after the other, and no dead one delays it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from django.db import DatabaseError, InterfaceError, connections, transaction
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE

from clusters.health import watch
from clusters.registry import alias_of
from jobs.engine.trouble import is_outage
from jobs.prometheus.families import families
from jobs.prometheus.figures import ClusterFigures, read
from jobs.prometheus.text import written

logger = logging.getLogger(__name__)

__all__ = ["CONTENT_TYPE", "expose"]

# For all clusters together to say whether they live; one that was dead a moment ago is not waited for.
WAIT_SECONDS = 1.0
# For each statement.
STATEMENT_MILLISECONDS = 2000


def expose(cluster_ids: Sequence[str]) -> bytes:
    """The metrics of these clusters, in the text format of ``CONTENT_TYPE``."""
    up = _up(cluster_ids)
    return written(families({one: _figures(one) if one in up else None for one in cluster_ids}))


def _up(cluster_ids: Sequence[str]) -> set[str]:
    aliases = {one: alias_of(one) for one in cluster_ids}
    asked = {one: alias for one, alias in aliases.items() if not watch.is_down(alias)}
    answers = watch.ask([*asked.values()], WAIT_SECONDS)
    late = watch.overdue([*asked.values()])
    return {one for one, alias in asked.items() if answers[alias] and alias not in late}


def _figures(cluster_id: str) -> ClusterFigures | None:
    alias = alias_of(cluster_id)
    try:
        with _short_statements(alias):
            return read(alias)
    except (DatabaseError, InterfaceError) as error:
        logger.warning("no metrics of cluster %s: %s", cluster_id, type(error).__name__)
        if is_outage(error):
            watch.report_down(alias)
        return None


@contextmanager
def _short_statements(alias: str) -> Iterator[None]:
    """One cluster that is slow must not keep the others from being told of."""
    connection = connections[alias]
    if connection.vendor != "postgresql":
        yield
        return
    with transaction.atomic(using=alias):
        with connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL statement_timeout = {STATEMENT_MILLISECONDS}")
        yield
