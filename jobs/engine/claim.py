"""Claim: ready jobs become running, each held by exactly one node under a new fence.

All the locking of the engine is here. The order is priority (lower first), due time, id. Paused queues,
kinds the node does not run, types it does not know and jobs whose time is over are left out by the
statement itself, so a node that is behind the times cannot claim what it must not. Of a cluster that was
restored from a backup and waits for a person, or that is passive or archived, nothing is claimed at all.

Queues with limits are left out too, unless the caller has them to itself: ``jobs.engine.limits``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

from clusters.models import RESTORED
from clusters.policy import ACTIVE
from jobs.engine.clock import sqlite_time
from jobs.histogram import POSTGRES_BUCKET, bucket_of
from jobs.tallies import Tallied, sqlite_tally


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


class Claimed(NamedTuple):
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
    # For this attempt: what is left until the job's deadline, where that is sooner.
    timeout_seconds: float
    payload: str | None
    payload_bytes: bytes | None
    progress_timeout_seconds: float | None = None
    retry_base_seconds: float | None = None
    retry_cap_seconds: float | None = None
    # How often it was asked to come back later; None: never.
    throttles: int | None = None
    # See jobs.engine.backoff; None: full jitter.
    retry_curve: str | None = None
    # Others wait for it, so that its end takes a transaction of its own; more may come to wait later.
    is_awaited: bool = False


@dataclass(frozen=True, slots=True)
class Room:
    """How many more jobs of a queue with limits may start now."""

    queue: str
    room: int


# Neither restored and waiting for a person, nor passive or archived; said by rows of the database, so
# that it holds for every node from the next claim on.
_IS_OPEN = (
    f"NOT EXISTS (SELECT 1 FROM cluster_setting WHERE name = '{RESTORED}'"
    f" OR (name = 'mode' AND value <> '\"{ACTIVE}\"'))"
)


# -- PostgreSQL ------------------------------------------------------------------------------------

# Ready, known to the node, and not too late. An expired job is failed by upkeep, not claimed.
_WANTED = """
state = 'ready' AND queue = {lane}.queue AND kind = {lane}.kind
AND ({lane}.kind <> 'python' OR type = ANY(%(types)s::text[]))
AND (expires_at IS NULL OR expires_at > clock_timestamp())
AND (deadline_at IS NULL OR deadline_at > clock_timestamp())
"""
_UNLIMITED = "q.max_concurrency IS NULL AND q.rate_limit IS NULL"
# One more condition on lanes and one more ranking, where some queues have limits.
_WITH_ROOM = """
LEFT JOIN unnest(%(limited)s::text[], %(rooms)s::int[]) AS r(name, room) ON r.name = q.name
"""

# `lane` is one queue and kind that may be claimed from, `share` how many of the best jobs lie in each,
# `pick` the locked rows. Counting first and locking exactly that many keeps a claim of n from locking
# n rows in every queue. The materialized CTEs keep the planner from running a pick twice, and with it
# from claiming more than was asked for. The update must go by primary key even where statistics are
# stale and claim that no job is ready: ARRAY() hides the number of ids, and `state || ''` hides the
# guard from the partial index, which would be read from end to end.
_CTES = f"""
lane AS MATERIALIZED (
  SELECT q.name AS queue, k.kind, k.pool, k.free, {{room}} AS room
    FROM queue q {{join}} CROSS JOIN unnest(%(kinds)s::text[], %(pools)s::text[], %(free)s::int[])
         AS k(kind, pool, free)
   WHERE NOT q.is_paused AND (%(queues)s::text[] IS NULL OR q.name = ANY(%(queues)s::text[]))
     AND {{allowed}} AND {_IS_OPEN}
), head AS (
  SELECT lane.*, j.priority, j.run_at, j.id
    FROM lane CROSS JOIN LATERAL (
      SELECT priority, run_at, id FROM job WHERE {_WANTED.format(lane="lane")}
       ORDER BY priority, run_at, id LIMIT LEAST(lane.free, lane.room)) j
), share AS MATERIALIZED (
  SELECT queue, kind, count(*) AS n FROM (
    SELECT *, row_number() OVER (PARTITION BY pool ORDER BY priority, run_at, id) AS place
      FROM {{candidates}}
  ) ranked WHERE place <= free GROUP BY queue, kind
), pick AS MATERIALIZED (
  SELECT j.id FROM share CROSS JOIN LATERAL (
    SELECT id FROM job WHERE {_WANTED.format(lane="share")}
     ORDER BY priority, run_at, id LIMIT share.n FOR UPDATE SKIP LOCKED) j
), claimed AS (
  UPDATE job SET state = 'running', fence = fence + 1, attempts = attempts + 1,
         node_id = %(node)s, started_at = clock_timestamp(),
         progress_percent = NULL, progress_note = NULL
   WHERE id = ANY(ARRAY(SELECT id FROM pick)) AND state || '' = 'ready'
  RETURNING id, fence, kind, type, queue, attempts, max_attempts, crashes, on_lost,
            CASE WHEN deadline_at IS NULL THEN timeout_seconds
                 ELSE LEAST(timeout_seconds,
                            GREATEST(extract(epoch FROM deadline_at - clock_timestamp()), 0.001))
            END AS timeout_seconds, payload, payload_bytes, progress_timeout_seconds,
            retry_base_seconds, retry_cap_seconds, throttles, retry_curve, has_dependants, priority,
            run_at, started_at
), started AS (
  INSERT INTO tally (minute, queue, type, event, bucket, count)
  SELECT date_trunc('minute', clock_timestamp()), queue, type, 'started',
         {POSTGRES_BUCKET.format(seconds="extract(epoch FROM started_at - run_at)::float8")} AS bucket,
         count(*)
    FROM claimed GROUP BY queue, type, bucket
)
"""
POSTGRES_COLUMNS = """
claimed.id::text, claimed.fence, claimed.kind, claimed.type, claimed.queue, claimed.attempts,
claimed.max_attempts, claimed.crashes, claimed.on_lost, claimed.timeout_seconds,
claimed.payload::text, claimed.payload_bytes, claimed.progress_timeout_seconds,
claimed.retry_base_seconds, claimed.retry_cap_seconds, claimed.throttles, claimed.retry_curve,
claimed.has_dependants
"""
POSTGRES_ORDER = "claimed.priority, claimed.run_at, claimed.id"


@cache
def postgres_ctes(limited: bool = False) -> str:
    """The parts of a turn's statement that claim; with ``limited`` also from queues with limits."""
    if not limited:
        return _CTES.format(room="k.free", join="", allowed=_UNLIMITED, candidates="head")
    # A queue's room is for all its kinds together, so it is shared out before the free places are.
    return _CTES.format(
        room="COALESCE(r.room, k.free)",
        join=_WITH_ROOM,
        allowed=f"(r.room > 0 OR {_UNLIMITED})",
        candidates="""(
          SELECT *, row_number() OVER (PARTITION BY queue ORDER BY priority, run_at, id) AS nth
            FROM head) roomy WHERE nth <= room""",
    )


def postgres_parameters(appetite: Appetite, rooms: Sequence[Room] = ()) -> dict[str, Any]:
    kinds = appetite.kinds
    return {
        "node": appetite.node,
        "kinds": kinds,
        "pools": [appetite.pools[kind] for kind in kinds],
        "free": [appetite.free[appetite.pools[kind]] for kind in kinds],
        "types": list(appetite.types),
        "queues": None if appetite.queues is None else list(appetite.queues),
        "limited": [room.queue for room in rooms],
        "rooms": [room.room for room in rooms],
    }


# -- SQLite ----------------------------------------------------------------------------------------


def sqlite_has_ready(cursor: Any) -> bool:
    """A look without the write lock, so that idle nodes do not stand in the writers' way."""
    return bool(
        cursor.execute(
            "SELECT 1 FROM job INDEXED BY job_ready WHERE state = 'ready'"
            f" AND queue IN (SELECT name FROM queue WHERE NOT is_paused) AND {_IS_OPEN} LIMIT 1"
        ).fetchone()
    )


def sqlite_claim(cursor: Any, appetite: Appetite, rooms: Sequence[Room] = ()) -> list[Claimed]:
    """Claim inside the caller's BEGIN IMMEDIATE, which keeps every other writer out."""
    now = sqlite_time()
    picked = _sqlite_pick(cursor, appetite, {room.queue: room.room for room in rooms}, now)
    if not picked:
        return []
    rows = cursor.execute(
        """UPDATE job SET state = 'running', fence = fence + 1, attempts = attempts + 1,
                  node_id = %s, started_at = %s, progress_percent = NULL, progress_note = NULL
            WHERE id IN (SELECT value FROM json_each(%s)) AND state = 'ready'
        RETURNING id, fence, kind, type, queue, attempts, max_attempts, crashes, on_lost,
                  CASE WHEN deadline_at IS NULL THEN timeout_seconds ELSE
                    min(timeout_seconds,
                        max((julianday(deadline_at) - julianday(started_at)) * 86400, 0.001)) END,
                  payload, payload_bytes, progress_timeout_seconds, retry_base_seconds,
                  retry_cap_seconds, throttles, retry_curve, has_dependants,
                  max((julianday(started_at) - julianday(run_at)) * 86400, 0)""",
        [appetite.node.replace("-", ""), now, json.dumps(picked)],
    ).fetchall()
    place = {job_id: index for index, job_id in enumerate(picked)}
    rows.sort(key=lambda row: place[row[0]])
    waits: Counter[Tallied] = Counter(
        (row[4], row[3], "started", bucket_of(row[-1]), None, None) for row in rows
    )
    sqlite_tally(cursor, waits)
    return [Claimed(_dashed(row[0]), *row[1:-1]) for row in rows]


def _dashed(job_id: str) -> str:
    """An id as everybody but SQLite writes it."""
    return f"{job_id[:8]}-{job_id[8:12]}-{job_id[12:16]}-{job_id[16:20]}-{job_id[20:]}"


def _sqlite_pick(cursor: Any, appetite: Appetite, rooms: Mapping[str, int], now: str) -> list[str]:
    """The ids to claim, in order. A queue with limits takes part where ``rooms`` names it."""
    lanes = [
        (name, rooms.get(name, 0) if is_limited else None)
        for name, is_limited in cursor.execute(
            "SELECT name, max_concurrency IS NOT NULL OR rate_limit IS NOT NULL"
            f" FROM queue WHERE NOT is_paused AND {_IS_OPEN}"
        ).fetchall()
        if appetite.queues is None or name in appetite.queues
    ]
    types = json.dumps(list(appetite.types))
    left = dict(rooms)
    picked: list[str] = []
    for pool, free in appetite.free.items():
        if free <= 0:
            continue
        head: list[tuple[int, str, str, str]] = []
        for queue, room in lanes:
            if room == 0:
                continue
            for kind in (k for k in appetite.kinds if appetite.pools[k] == pool):
                known = "AND type IN (SELECT value FROM json_each(%s))" if kind == "python" else ""
                head += cursor.execute(
                    "SELECT priority, run_at, id, queue FROM job INDEXED BY job_ready"
                    f" WHERE state = 'ready' AND queue = %s AND kind = %s {known}"
                    " AND (expires_at IS NULL OR expires_at > %s)"
                    " AND (deadline_at IS NULL OR deadline_at > %s)"
                    " ORDER BY priority, run_at, id LIMIT %s",
                    [
                        queue,
                        kind,
                        *([types] if kind == "python" else []),
                        now,
                        now,
                        free if room is None else min(free, room),
                    ],
                ).fetchall()
        head.sort()
        for _, _, job_id, queue in head:
            if free and left.get(queue, 1):
                picked.append(job_id)
                free -= 1
                if queue in left:
                    left[queue] -= 1
    return picked
