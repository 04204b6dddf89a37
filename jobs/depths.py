"""How many jobs each queue has, and since when the oldest of them waits; no question counts them all."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connections

from jobs.raw import read_moment
from jobs.states import State

# How far a look into each queue goes, and how many keys may be read in all by a second, longer look
# into those that are deeper. A full count of a million ready jobs takes a second.
_FIRST_LOOK, _LOOK_BUDGET = 100, 40_000
# Of jobs that are scheduled, blocked or waiting no index tells the queue, so their rows are read.
_ROWS_LOOKED_AT = 10_000
_HOPS = 5000
# By the index of the claim; the order keeps the planner from collecting whole queues first.
_READY = """
SELECT name, (SELECT count(*) FROM (
   SELECT 1 AS one FROM job WHERE queue = q.name AND state = 'ready'
    ORDER BY kind, priority, run_at, id LIMIT %s) AS look) AS n
  FROM queue AS q"""
_OTHERS = {
    State.BLOCKED: "state = 'blocked' AND finished_at IS NULL AND NOT state = 'running'"
    " ORDER BY created_at DESC, id DESC",
    State.SCHEDULED: "state = 'scheduled' ORDER BY run_at",
    State.RUNNING: "state = 'running'",
    State.WAITING: "state = 'waiting' AND finished_at IS NULL AND NOT state = 'running'"
    " ORDER BY created_at DESC, id DESC",
}
# From one queue, kind and priority to the next, of each the first by its due time. The next one is of
# the same queue and kind, or else of the same queue, or else of another: three places of the index.
# SQLite would go through a whole queue to compare all three at once.
_NEXT = """
(SELECT id FROM job AS {name} WHERE {name}.state = 'ready' AND {where}
  ORDER BY {name}.queue, {name}.kind, {name}.priority, {name}.run_at, {name}.id LIMIT 1)"""
_SAME_QUEUE, _SAME_KIND = "{name}.queue = hop.queue", "{name}.kind = hop.kind"
_NEXT_OF_ALL = ", ".join(
    _NEXT.format(name=name, where=where.format(name=name))
    for name, where in (
        ("p", f"{_SAME_QUEUE} AND {_SAME_KIND} AND {{name}}.priority > hop.priority"),
        ("k", f"{_SAME_QUEUE} AND {{name}}.kind > hop.kind"),
        ("q", "{name}.queue > hop.queue"),
    )
)
_OLDEST = f"""
WITH RECURSIVE hop AS (
  SELECT * FROM (
    SELECT queue, kind, priority, run_at FROM job WHERE state = 'ready'
     ORDER BY queue, kind, priority, run_at, id LIMIT 1) AS first
  UNION ALL
  SELECT job.queue, job.kind, job.priority, job.run_at
    FROM hop JOIN job ON job.id = COALESCE({_NEXT_OF_ALL})
)
SELECT queue, min(run_at) FROM (SELECT queue, run_at FROM hop LIMIT %s) AS hops GROUP BY queue
"""


@dataclass(frozen=True, slots=True)
class Depth:
    """How many jobs; where counting stopped there are more."""

    count: int
    is_exact: bool


def depths(
    using: str, states: Collection[State] = (State.READY, *_OTHERS)
) -> dict[str, dict[State, Depth]]:
    """How many ready jobs, and jobs of these other states, every queue has, counted no further than
    costs little."""
    wanted = [state for state in _OTHERS if state in states]
    counts = _looked_at(using, wanted)
    found = {
        name: {State.READY: depth}
        for name, depth in _deeper(using, counts.pop(State.READY)).items()
    }
    for state, by_queue in counts.items():
        is_exact = sum(by_queue.values()) <= _ROWS_LOOKED_AT
        for name in by_queue.keys() - found.keys():
            # A job may be older than the loss of its queue's row.
            found[name] = {State.READY: Depth(0, True)}
        for name, by_state in found.items():
            by_state[state] = Depth(by_queue.get(name, 0), is_exact)
    return found


def _looked_at(using: str, others: Sequence[State]) -> dict[State, dict[str, int]]:
    """Ready jobs and those of these states by queue, in one statement."""
    counts: dict[State, dict[str, int]] = {state: {} for state in (State.READY, *others)}
    looks = [
        f"SELECT 'ready', name, n FROM ({_READY}) AS ready",
        *(
            f"SELECT '{state.value}', queue, count(*) FROM (SELECT queue FROM job WHERE"
            f" {_OTHERS[state]} LIMIT %s) AS {state.value} GROUP BY queue"
            for state in others
        ),
    ]
    with connections[using].cursor() as cursor:
        limits = [_FIRST_LOOK + 1, *[_ROWS_LOOKED_AT + 1] * len(others)]
        cursor.execute(" UNION ALL ".join(looks), limits)
        for state, queue, count in cursor.fetchall():
            counts[State(state)][queue] = count
    return counts


def _deeper(using: str, counts: dict[str, int]) -> dict[str, Depth]:
    """How many are ready, with a longer look into queues that are deeper than the first one went."""
    deep = [name for name, count in counts.items() if count > _FIRST_LOOK]
    limit = _FIRST_LOOK
    if deep:
        limit = max(_FIRST_LOOK, _LOOK_BUDGET // len(deep))
        places = ", ".join(["%s"] * len(deep))
        with connections[using].cursor() as cursor:
            cursor.execute(f"{_READY} WHERE name IN ({places})", [limit + 1, *deep])
            counts = {**counts, **dict(cursor.fetchall())}
    return {name: Depth(min(count, limit), count <= limit) for name, count in counts.items()}


def oldest_ready(using: str) -> dict[str, datetime]:
    """Since when the longest waiting ready job of each queue has been due."""
    with connections[using].cursor() as cursor:
        cursor.execute(_OLDEST, [_HOPS])
        return {queue: read_moment(run_at) for queue, run_at in cursor.fetchall()}
