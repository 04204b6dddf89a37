"""Purge: what waits in a queue is cancelled, batch by batch, by a bulk operation. What runs goes on."""

from __future__ import annotations

from collections.abc import Sequence

from clusters.deeds import deed
from jobs.engine import bulk
from jobs.errors import InvalidQueue, QueueNotFound
from jobs.models import BulkAction, BulkOperation, Queue
from jobs.states import UNSTARTED


def purge(
    queue: str, *, by: str, reason: str, states: Sequence[str] | None = None
) -> BulkOperation:
    """Have the jobs cancelled that wait in a queue now; None are all states before the start."""
    words = _filter(queue, states)
    with deed("queues.purge", "queue", queue, reason=reason) as trace:
        operation = bulk.request(BulkAction.CANCEL, words, reason=reason, by=by)
        trace.filter, trace.after = words, {"bulk_operation": operation.pk}
    return operation


def dry_run(queue: str, *, states: Sequence[str] | None = None) -> bulk.DryRun:
    """Say what a purge would be about."""
    return bulk.dry_run(BulkAction.CANCEL, _filter(queue, states))


def glance(queue: str) -> bulk.DryRun:
    """The same, as fast as a page must be."""
    return bulk.glance(BulkAction.CANCEL, _filter(queue, None))


def _filter(queue: str, states: Sequence[str] | None) -> dict[str, object]:
    if not Queue.objects.all().named(queue).exists():
        raise QueueNotFound(f"there is no queue {queue[:100]!r}")
    chosen = UNSTARTED if states is None else tuple(dict.fromkeys(states))
    if not chosen or not set(chosen) <= set(UNSTARTED):
        raise InvalidQueue(f"states are some of {', '.join(UNSTARTED)}", field="states")
    return {"queue": queue, "state": [str(state) for state in chosen]}
