"""How many jobs every queue has in each state, ended ones included, at a price that does not grow.

Counting goes as far as costs little. Where it stopped there are more, and then the roll-ups say about how
many: what was enqueued and has not ended, and what ended within the time for which it is kept. Jobs that
somebody deleted by hand are in those estimates still.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db import connections

from clusters.policy import ClusterPolicy
from jobs.engine.clock import database_now
from jobs.metrics import MAX_TAIL
from jobs.models import Queue
from jobs.models.rollup import DAY
from jobs.raw import fetch
from jobs.states import FINAL, State

# So many index entries may be read of all queues together, of ready jobs and of those of each other state
# before the start; but so many of each queue at least, and at most.
READY_LOOKED_AT, UNREADY_LOOKED_AT = 20_000, 10_000
LEAST_OF_A_QUEUE, MOST_OF_A_QUEUE = 50, 10_000
# So many ended jobs of each state are looked at, the newest of all queues; so many that wait for
# another attempt, or run.
ENDED_LOOKED_AT = 2000
OTHERS_LOOKED_AT = 10_000

# The order keeps the planner from collecting whole queues first. That the states are written out shows
# SQLite that the index of those will do.
_BEFORE_THE_START = """
SELECT 'ready', name, (SELECT count(*) FROM (
   SELECT 1 AS one FROM job WHERE queue = q.name AND state = 'ready'
    ORDER BY kind, priority, run_at, id LIMIT %(ready)s) AS look)
  FROM queue AS q
UNION ALL
SELECT s.column1, name, (SELECT count(*) FROM (
   SELECT 1 AS one FROM job WHERE queue = q.name AND state = s.column1
      AND state IN ('blocked', 'scheduled', 'waiting') LIMIT %(unready)s) AS look)
  FROM queue AS q CROSS JOIN (VALUES ('scheduled'), ('blocked'), ('waiting')) AS s"""
_ENDED = """
SELECT '{0}', queue, count(*) FROM (
  SELECT queue FROM job WHERE state = '{0}' AND finished_at IS NOT NULL
   ORDER BY created_at DESC, id DESC LIMIT %(limit)s) AS look{0} GROUP BY queue"""
_ALL_ENDED = " UNION ALL ".join(_ENDED.format(state.value) for state in FINAL)
_OTHERS = """
SELECT 'retrying', queue, count(*) FROM (
  SELECT queue FROM job
   WHERE attempts > 0 AND state IN ('scheduled', 'ready') AND state = 'scheduled'
   ORDER BY created_at DESC, id DESC LIMIT %(limit)s) AS retrying GROUP BY queue
UNION ALL
SELECT 'running', queue, count(*) FROM (
  SELECT queue FROM job WHERE state = 'running' LIMIT %(limit)s) AS running GROUP BY queue"""
_EVENTS = ("succeeded", "failed", "cancelled", "skipped")
_NOTHING: dict[str, int] = {state.value: 0 for state in State}
_OPEN = (State.READY, State.SCHEDULED, State.BLOCKED, State.RUNNING, State.WAITING)


@dataclass(slots=True)
class QueueCounts:
    """The jobs of one queue. ``retrying`` are those of the scheduled ones that have been tried."""

    by_state: dict[str, int] = field(default_factory=_NOTHING.copy)
    retrying: int = 0

    def of(self, *states: State) -> int:
        return sum(self.by_state[state] for state in states)


def counts(using: str, policy: ClusterPolicy, queues: Sequence[Queue]) -> dict[str, QueueCounts]:
    """The jobs of these queues, which are all there are, in a fixed number of statements."""
    found = {queue.name: QueueCounts() for queue in queues}
    # In which states of which queues counting stopped.
    more: set[tuple[str, str]] = set()
    _count_before_the_start(using, found, more)
    for state, name, number in _look(using, _OTHERS, limit=OTHERS_LOOKED_AT):
        counted = found.get(name)
        if counted is None:
            continue  # a job that is older than the loss of its queue's row
        if state == "retrying":
            counted.retrying = number
            counted.by_state[State.SCHEDULED] = max(counted.by_state[State.SCHEDULED], number)
        else:
            counted.by_state[state] = number
    _count_ended(using, found, more)
    if more:
        # What has not been folded into the roll-ups yet.
        tail = {(name, event): number for name, event, number in _look(using, _TAIL)}
        _estimate_ended(using, policy, queues, found, more, tail)
        _estimate_open(using, found, more, tail)
    return found


def _count_before_the_start(
    using: str, found: Mapping[str, QueueCounts], more: set[tuple[str, str]]
) -> None:
    ready, unready = (_of_each(most, len(found)) for most in (READY_LOOKED_AT, UNREADY_LOOKED_AT))
    for state, name, number in _look(
        using, _BEFORE_THE_START, ready=ready + 1, unready=unready + 1
    ):
        limit = ready if state == State.READY else unready
        if name in found:
            found[name].by_state[state] = min(number, limit)
        if number > limit:
            more.add((name, state))


def _of_each(most: int, queues: int) -> int:
    return min(max(most // max(queues, 1), LEAST_OF_A_QUEUE), MOST_OF_A_QUEUE)


def _count_ended(using: str, found: Mapping[str, QueueCounts], more: set[tuple[str, str]]) -> None:
    looked = dict.fromkeys(map(str, FINAL), 0)
    for state, name, number in _look(using, _ALL_ENDED, limit=ENDED_LOOKED_AT + 1):
        looked[state] += number
        if name in found:
            found[name].by_state[state] = number
    stopped = [state for state, number in looked.items() if number > ENDED_LOOKED_AT]
    more |= {(name, state) for name in found for state in stopped}


def _look(using: str, statement: str, **limits: Any) -> list[Any]:
    return fetch(connections[using], statement, limits)


# -- Estimates -------------------------------------------------------------------------------------

# Of each day the share that is not longer ago than ended jobs are kept.
_AGES = {
    "postgresql": "extract(epoch FROM %(now)s::timestamptz - r.starts_at)::float8",
    "sqlite": "(julianday(%(now)s) - julianday(r.starts_at)) * 86400.0",
}
_LEAST = {"postgresql": ("least", "greatest"), "sqlite": ("min", "max")}
_ENDED_OF_LATE = """
WITH day AS (
  SELECT q.name, {age} AS age, r.succeeded, r.failed, r.cancelled, r.skipped,
         coalesce(q.retain_succeeded_seconds, %(succeeded)s) AS succeeded_for,
         coalesce(q.retain_failed_seconds, %(failed)s) AS failed_for
    FROM queue q JOIN rollup r ON r.queue = q.name
   WHERE r.resolution_seconds = 86400 AND r.type = '' AND r.starts_at > %(since)s
)
SELECT name, {sums} FROM day WHERE age > 0 GROUP BY name
"""
_SHARED = (
    "sum({state} * {least}(1.0, {greatest}(0.0, 1.0 + ({kept} - age) / {least}(age, 86400.0))))"
)
_TAIL = f"""
SELECT queue, event, sum(count) FROM (
  SELECT queue, event, count FROM tally ORDER BY id LIMIT {MAX_TAIL}) AS tail GROUP BY queue, event"""
_TOTALS = f"""
SELECT queue, enqueued - {" - ".join(_EVENTS)} FROM rollup
 WHERE resolution_seconds = 0 AND type = ''"""


def _estimate_ended(
    using: str,
    policy: ClusterPolicy,
    queues: Sequence[Queue],
    found: Mapping[str, QueueCounts],
    more: Collection[tuple[str, str]],
    tail: Mapping[tuple[str, str], int],
) -> None:
    """Where counting stopped: what ended within the time for which it is kept."""
    connection = connections[using]
    least, greatest = _LEAST[connection.vendor]
    sums = ", ".join(
        _SHARED.format(
            state=state,
            least=least,
            greatest=greatest,
            kept="failed_for" if state == "failed" else "succeeded_for",
        )
        for state in _EVENTS
    )
    now = database_now(connection)
    kept = [policy.retain_succeeded_seconds, policy.retain_failed_seconds]
    kept += [queue.retain_succeeded_seconds or 0.0 for queue in queues]
    kept += [queue.retain_failed_seconds or 0.0 for queue in queues]
    adapt = connection.ops.adapt_datetimefield_value
    rows = _look(
        using,
        _ENDED_OF_LATE.format(age=_AGES[connection.vendor], sums=sums),
        now=adapt(now),
        since=adapt(now - timedelta(seconds=max(kept) + DAY)),
        succeeded=policy.retain_succeeded_seconds,
        failed=policy.retain_failed_seconds,
    )
    ended = {
        (name, state): float(number)
        for name, *numbers in rows
        for state, number in zip(_EVENTS, numbers, strict=True)
    }
    for name, state in more:
        if state in FINAL:
            number = ended.get((name, state), 0.0) + float(tail.get((name, state), 0))
            by_state = found[name].by_state
            by_state[state] = max(by_state[state], round(number))


def _estimate_open(
    using: str,
    found: Mapping[str, QueueCounts],
    more: Collection[tuple[str, str]],
    tail: Mapping[tuple[str, str], int],
) -> None:
    """Where counting stopped: what was ever enqueued and has not ended, less what is counted."""
    totals = dict(_look(using, _TOTALS))
    for name in {name for name, state in more if state in _OPEN}:
        # The first in this order takes what the others leave.
        state = next(state for state in _OPEN if (name, state) in more)
        left = totals.get(name, 0) + tail.get((name, "enqueued"), 0)
        left -= sum(tail.get((name, event), 0) for event in _EVENTS)
        counted = found[name]
        counted.by_state[state] += max(int(left) - counted.of(*_OPEN), 0)
