"""Limits of queues: how many of its jobs may run at once, and start in a stretch of time.

Both count over all nodes, and jobs that a node has claimed and not begun count too. A claim from queues
with limits has their rows to itself, so that two nodes never share out the same room; a node that
finds a row taken leaves that queue out and looks again soon.

A rate of n in p seconds holds in every stretch of p seconds, not on average: each claim's grants are kept
with the queue until they are p seconds old.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jobs.engine.claim import Appetite, Room
from jobs.engine.clock import host_now
from jobs.models import Queue

# Grants of so small a part of the period are kept as one, at its end.
SLOTS = 100

Grants = Sequence[Sequence[float]]  # (seconds since the epoch, how many)

# The order keeps the planner to the index on ready jobs: one entry a queue, and no join with the table.
_WAITING = """
SELECT q.name FROM queue q
 WHERE NOT q.is_paused AND (q.max_concurrency IS NOT NULL OR q.rate_limit IS NOT NULL)
   AND (SELECT true FROM job WHERE state = 'ready' AND queue = q.name
         ORDER BY kind, priority, run_at, id LIMIT 1)
"""
_LOCK = """
SELECT name, max_concurrency, rate_limit, rate_period_seconds, rate_grants::text, {now}
  FROM queue WHERE name IN {names} AND NOT is_paused
   AND (max_concurrency IS NOT NULL OR rate_limit IS NOT NULL)
"""
# By node, because that is how running jobs are indexed; no queue has more rows here than it may.
_RUNNING = """
SELECT count(*) FROM (
  SELECT 1 FROM node n JOIN job j ON j.node_id = n.id AND j.queue = %s AND j.state = 'running'
   LIMIT %s) AS running
"""


@dataclass(frozen=True, slots=True)
class Limit:
    """A queue with limits whose row the transaction holds."""

    queue: str
    max_concurrency: int | None
    rate_limit: int | None
    rate_period_seconds: float
    grants: Grants
    now: float

    @classmethod
    def of(cls, queue: Queue, now: datetime) -> Limit:
        """The same of a row as it was read, which nothing holds: for those who only tell of it."""
        return cls(
            queue.name,
            queue.max_concurrency,
            queue.rate_limit,
            queue.rate_period_seconds,
            queue.rate_grants,
            now.timestamp(),
        )


def has_waiting(cursor: Any, queues: Sequence[str] | None) -> bool:
    """Whether some queue with limits has a ready job; a look without any lock."""
    return any(queues is None or name in queues for (name,) in cursor.execute(_WAITING).fetchall())


def lock(cursor: Any, appetite: Appetite, vendor: str) -> list[Limit]:
    """Take the rows of queues with limits that have ready jobs; those that somebody has are left out."""
    names = [
        name
        for (name,) in cursor.execute(_WAITING).fetchall()
        if appetite.queues is None or name in appetite.queues
    ]
    if not names:
        return []
    if vendor == "postgresql":
        statement = _LOCK.format(
            now="extract(epoch FROM clock_timestamp())::float8", names="(SELECT unnest(%s::text[]))"
        )
        cursor.execute(statement + " FOR NO KEY UPDATE SKIP LOCKED", [names])
        rows = cursor.fetchall()
    else:
        statement = _LOCK.replace("::text", "").format(
            now="%s", names="(SELECT value FROM json_each(%s))"
        )
        rows = cursor.execute(statement, [host_now().timestamp(), json.dumps(names)]).fetchall()
    return [
        Limit(name, concurrency, rate, period, json.loads(grants), now)
        for name, concurrency, rate, period, grants, now in rows
    ]


def rooms(cursor: Any, limits: Sequence[Limit]) -> list[Room]:
    """How much each queue may start. A statement of its own: the lock's snapshot may be too old."""
    found = []
    for limit in limits:
        room = rate_room(limit) if limit.rate_limit is not None else 1 << 30
        if limit.max_concurrency is not None:
            cursor.execute(_RUNNING, [limit.queue, limit.max_concurrency])
            room = min(room, limit.max_concurrency - cursor.fetchone()[0])
        found.append(Room(limit.queue, max(room, 0)))
    return found


def spend(cursor: Any, limits: Sequence[Limit], claimed: Mapping[str, int]) -> None:
    """Keep what was granted, where the rate is limited."""
    for limit in limits:
        if limit.rate_limit is not None and claimed.get(limit.queue):
            grants = json.dumps(granted(limit, claimed[limit.queue]))
            cursor.execute(
                "UPDATE queue SET rate_grants = %s WHERE name = %s", [grants, limit.queue]
            )


def rate_room(limit: Limit) -> int:
    """How many more may start now."""
    assert limit.rate_limit is not None
    return max(int(limit.rate_limit - sum(count for _, count in _recent(limit))), 0)


def granted(limit: Limit, count: int) -> list[list[float]]:
    """The grants after ``count`` more."""
    slot = limit.rate_period_seconds / SLOTS
    at = (limit.now // slot + 1) * slot
    kept = [list(grant) for grant in _recent(limit)]
    if kept and kept[-1][0] == at:
        kept[-1][1] += count
    else:
        kept.append([at, count])
    return kept


def room_again_at(limit: Limit) -> float | None:
    """When a rate that is used up has room again, in seconds since the epoch; None: it has room."""
    if limit.rate_limit is None or rate_room(limit):
        return None
    excess = sum(count for _, count in _recent(limit)) - limit.rate_limit
    for at, count in _recent(limit):
        excess -= count
        if excess < 0:
            return at + limit.rate_period_seconds
    return limit.now


def rate_limited_until(queue: Queue, now: datetime) -> datetime | None:
    """When a queue that has used up its rate may start another job; None: now."""
    again_at = room_again_at(Limit.of(queue, now))
    return None if again_at is None else datetime.fromtimestamp(again_at, UTC)


def _recent(limit: Limit) -> list[Sequence[float]]:
    return [grant for grant in limit.grants if grant[0] > limit.now - limit.rate_period_seconds]
