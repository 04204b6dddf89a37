"""What is going on in a queue at the moment, at a price that does not grow with its backlog."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from django.db import connections
from django.db.models.functions import Now

from clusters.models import Node, NodeStatus
from jobs.engine.clock import database_now
from jobs.engine.limits import Limit, rate_room
from jobs.models import Queue
from jobs.models.queue import count_open
from jobs.states import State

# Counting stops here, for each state.
COUNT_LIMIT = 10_000

# From one pair of kind and priority to the next, each time to its oldest job: an index entry for each
# pair is read, however many jobs are ready.
_OLDEST_READY = """
WITH RECURSIVE lane(kind, priority, run_at) AS (
  SELECT * FROM (
    SELECT kind, priority, run_at FROM job WHERE state = 'ready' AND queue = %(queue)s
     ORDER BY kind, priority, run_at, id LIMIT 1) AS head
  UNION ALL
  SELECT job.kind, job.priority, job.run_at FROM lane JOIN job ON job.id = (
    SELECT later.id FROM job later
     WHERE later.state = 'ready' AND later.queue = %(queue)s
       AND (later.kind, later.priority) > (lane.kind, lane.priority)
     ORDER BY later.kind, later.priority, later.run_at, later.id LIMIT 1)
)
SELECT min(run_at) FROM lane
"""


@dataclass(frozen=True, slots=True)
class Load:
    """The jobs of a queue that have not ended, and who is there for them."""

    jobs: dict[str, int]
    # False where counting stopped.
    is_exact: bool
    # Since the job that waits longest was due; None: none waits.
    oldest_ready_seconds: float | None
    # Live nodes that take from this queue.
    nodes: int
    # Starts that the rate limit allows now; None: there is no such limit.
    rate_room: int | None


def load_of(queue: Queue) -> Load:
    """The load of a queue now: a few statements, whatever its size."""
    using = str(queue._state.db)
    counts = count_open(using, queue.name, COUNT_LIMIT + 1)
    oldest = _oldest_ready_at(using, queue.name) if counts[State.READY] else None
    now = database_now(connections[using])
    return Load(
        jobs={state: min(count, COUNT_LIMIT) for state, count in counts.items()},
        is_exact=max(counts.values()) <= COUNT_LIMIT,
        oldest_ready_seconds=None if oldest is None else max((now - oldest).total_seconds(), 0.0),
        nodes=_nodes_serving(using, queue.name),
        rate_room=_rate_room(queue, now),
    )


def _oldest_ready_at(using: str, queue: str) -> datetime | None:
    with connections[using].cursor() as cursor:
        cursor.execute(_OLDEST_READY, {"queue": queue})
        value: Any = cursor.fetchone()[0]
    # SQLite keeps times as texts, in UTC.
    return datetime.fromisoformat(value).replace(tzinfo=UTC) if isinstance(value, str) else value


def _nodes_serving(using: str, queue: str) -> int:
    live = Node.objects.using(using).filter(status=NodeStatus.LIVE, lease_until__gt=Now())
    served = live.values_list("queues", flat=True)
    return sum(queues is None or queue in queues for queues in served)


def _rate_room(queue: Queue, now: datetime) -> int | None:
    if queue.rate_limit is None:
        return None
    return rate_room(Limit.of(queue, now))
