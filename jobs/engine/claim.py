"""Claim: ready jobs become running, each held by exactly one node under a new fence.

All the locking of the engine is here. The order is priority (lower first), due time, id. Paused queues,
kinds the node does not run and types it does not know are left out by the statement itself, so a node
that is behind the times cannot claim what it must not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.engine.clock import sqlite_time


@dataclass(frozen=True, slots=True)
class Appetite:
    """What a node can take now: free places by pool, and what it knows how to run."""

    node: str
    free: Mapping[str, int]
    pools: Mapping[str, str]  # kind -> pool
    types: Sequence[str]
    queues: Sequence[str] | None  # None: every queue

    @property
    def is_empty(self) -> bool:
        return not any(self.free.values())

    @property
    def kinds(self) -> list[str]:
        return [kind for kind, pool in self.pools.items() if self.free.get(pool, 0) > 0]


@dataclass(frozen=True, slots=True)
class Claimed:
    """A job in the hands of this node. ``payload`` is JSON text, passed on without being read."""

    id: str
    fence: int
    kind: str
    type: str
    queue: str
    attempts: int
    max_attempts: int
    crashes: int
    on_lost: str
    timeout_seconds: float
    payload: str | None
    payload_bytes: bytes | None


# `lane` is one queue and kind that may be claimed from, `share` how many of the best jobs lie in each,
# `pick` the locked rows. Counting first and locking exactly that many keeps a claim of n from locking
# n rows in every queue. The materialized CTEs keep the planner from running a pick twice, and with it
# from claiming more than was asked for. The update must go by primary key even where statistics are
# stale and claim that no job is ready: ARRAY() hides the number of ids, and `state || ''` hides the
# guard from the partial index, which would be read from end to end.
POSTGRES_CTES = """
lane AS MATERIALIZED (
  SELECT q.name AS queue, k.kind, k.pool, k.free
    FROM queue q CROSS JOIN unnest(%(kinds)s::text[], %(pools)s::text[], %(free)s::int[])
         AS k(kind, pool, free)
   WHERE NOT q.is_paused AND (%(queues)s::text[] IS NULL OR q.name = ANY(%(queues)s::text[]))
), head AS (
  SELECT lane.*, j.priority, j.run_at, j.id
    FROM lane CROSS JOIN LATERAL (
      SELECT priority, run_at, id FROM job
       WHERE state = 'ready' AND queue = lane.queue AND kind = lane.kind
         AND (lane.kind <> 'python' OR type = ANY(%(types)s::text[]))
       ORDER BY priority, run_at, id LIMIT lane.free) j
), share AS MATERIALIZED (
  SELECT queue, kind, count(*) AS n FROM (
    SELECT *, row_number() OVER (PARTITION BY pool ORDER BY priority, run_at, id) AS place FROM head
  ) ranked WHERE place <= free GROUP BY queue, kind
), pick AS MATERIALIZED (
  SELECT j.id FROM share CROSS JOIN LATERAL (
    SELECT id FROM job
     WHERE state = 'ready' AND queue = share.queue AND kind = share.kind
       AND (share.kind <> 'python' OR type = ANY(%(types)s::text[]))
     ORDER BY priority, run_at, id LIMIT share.n FOR UPDATE SKIP LOCKED) j
), claimed AS (
  UPDATE job SET state = 'running', fence = fence + 1, attempts = attempts + 1,
         node_id = %(node)s, started_at = clock_timestamp(),
         progress_percent = NULL, progress_note = NULL
   WHERE id = ANY(ARRAY(SELECT id FROM pick)) AND state || '' = 'ready'
  RETURNING id, fence, kind, type, queue, attempts, max_attempts, crashes, on_lost,
            timeout_seconds, payload, payload_bytes, priority, run_at
)
"""
POSTGRES_COLUMNS = """
claimed.id::text, claimed.fence, claimed.kind, claimed.type, claimed.queue, claimed.attempts,
claimed.max_attempts, claimed.crashes, claimed.on_lost, claimed.timeout_seconds,
claimed.payload::text, claimed.payload_bytes
"""
POSTGRES_ORDER = "claimed.priority, claimed.run_at, claimed.id"


def postgres_parameters(appetite: Appetite) -> dict[str, Any]:
    kinds = appetite.kinds
    return {
        "node": appetite.node,
        "kinds": kinds,
        "pools": [appetite.pools[kind] for kind in kinds],
        "free": [appetite.free[appetite.pools[kind]] for kind in kinds],
        "types": list(appetite.types),
        "queues": None if appetite.queues is None else list(appetite.queues),
    }


def sqlite_has_ready(cursor: Any) -> bool:
    """A look without the write lock, so that idle nodes do not stand in the writers' way."""
    return bool(
        cursor.execute(
            "SELECT 1 FROM job INDEXED BY job_ready WHERE state = 'ready'"
            " AND queue IN (SELECT name FROM queue WHERE NOT is_paused) LIMIT 1"
        ).fetchone()
    )


def sqlite_claim(cursor: Any, appetite: Appetite) -> list[Claimed]:
    """Claim inside the caller's BEGIN IMMEDIATE, which keeps every other writer out."""
    ids = [row[0] for row in _sqlite_pick(cursor, appetite)]
    if not ids:
        return []
    rows = cursor.execute(
        """UPDATE job SET state = 'running', fence = fence + 1, attempts = attempts + 1,
                  node_id = %s, started_at = %s, progress_percent = NULL, progress_note = NULL
            WHERE id IN (SELECT value FROM json_each(%s)) AND state = 'ready'
        RETURNING id, fence, kind, type, queue, attempts, max_attempts, crashes, on_lost,
                  timeout_seconds, payload, payload_bytes""",
        [appetite.node.replace("-", ""), sqlite_time(), json.dumps(ids)],
    ).fetchall()
    place = {job_id: index for index, job_id in enumerate(ids)}
    rows.sort(key=lambda row: place[row[0]])
    return [Claimed(_dashed(row[0]), *row[1:]) for row in rows]


def _dashed(job_id: str) -> str:
    """An id as everybody but SQLite writes it."""
    return f"{job_id[:8]}-{job_id[8:12]}-{job_id[12:16]}-{job_id[16:20]}-{job_id[20:]}"


def _sqlite_pick(cursor: Any, appetite: Appetite) -> list[tuple[str, str]]:
    queues = [
        name
        for (name,) in cursor.execute("SELECT name FROM queue WHERE NOT is_paused").fetchall()
        if appetite.queues is None or name in appetite.queues
    ]
    types = json.dumps(list(appetite.types))
    picked: list[tuple[str, str]] = []
    for pool, free in appetite.free.items():
        if free <= 0:
            continue
        head: list[tuple[int, str, str]] = []
        for queue in queues:
            for kind in (k for k in appetite.kinds if appetite.pools[k] == pool):
                known = "AND type IN (SELECT value FROM json_each(%s))" if kind == "python" else ""
                head += cursor.execute(
                    "SELECT priority, run_at, id FROM job INDEXED BY job_ready"
                    f" WHERE state = 'ready' AND queue = %s AND kind = %s {known}"
                    " ORDER BY priority, run_at, id LIMIT %s",
                    [queue, kind, *([types] if kind == "python" else []), free],
                ).fetchall()
        head.sort()
        picked += [(job_id, pool) for _, _, job_id in head[:free]]
    return picked
