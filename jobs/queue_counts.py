"""How many jobs every queue has in each state, ended ones included, at a price that does not grow.

Counting goes as far as costs little. Where it stopped there are more, and then the roll-ups say about how
many: what was enqueued and has not ended, and what ended within the time for which it is kept. Jobs that
somebody deleted by hand are in those estimates still.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connections
from django.db.models import Sum

from clusters.policy import ClusterPolicy
from jobs import metrics
from jobs.engine.clock import database_now
from jobs.models import Queue, Rollup
from jobs.models.rollup import ALL, DAY, TOTAL
from jobs.states import FINAL, State

# So many ended jobs of each state are looked at, the newest of all queues; so many that wait for
# another attempt.
ENDED_LOOKED_AT = 5000
RETRIES_LOOKED_AT = 10_000

_ENDED = """
SELECT '{0}', queue, count(*) FROM (
  SELECT queue FROM job WHERE state = '{0}' AND finished_at IS NOT NULL
   ORDER BY created_at DESC, id DESC LIMIT %(limit)s) AS look{0} GROUP BY queue"""
_ALL_ENDED = " UNION ALL ".join(_ENDED.format(state.value) for state in FINAL)
_RETRIES = """
SELECT queue, count(*) FROM (
  SELECT queue FROM job WHERE state = 'scheduled' AND attempts > 0
   ORDER BY created_at DESC, id DESC LIMIT %(limit)s) AS look GROUP BY queue"""
_EVENTS = ("enqueued", "succeeded", "failed", "cancelled", "skipped")
_OPEN = (State.READY, State.SCHEDULED, State.BLOCKED, State.RUNNING, State.WAITING)


@dataclass(slots=True)
class QueueCounts:
    """The jobs of one queue. ``retrying`` are those of the scheduled ones that have been tried."""

    by_state: dict[str, int] = field(default_factory=lambda: dict.fromkeys(State.values, 0))
    retrying: int = 0

    def of(self, *states: State) -> int:
        return sum(self.by_state[state] for state in states)


def counts(using: str, policy: ClusterPolicy) -> dict[str, QueueCounts]:
    """The jobs of every queue, in a fixed number of statements."""
    found: dict[str, QueueCounts] = {}
    inexact: set[State] = set()
    for name, depths in metrics.depths(using).items():
        counted = found[name] = QueueCounts()
        for state, depth in depths.items():
            counted.by_state[state] = depth.count
            inexact |= set() if depth.is_exact else {state}
    looked = dict.fromkeys(FINAL, 0)
    for state, name, number in _look(using, _ALL_ENDED, ENDED_LOOKED_AT + 1):
        looked[State(state)] += number
        found.setdefault(name, QueueCounts()).by_state[state] = number
    for name, number in _look(using, _RETRIES, RETRIES_LOOKED_AT + 1):
        counted = found.setdefault(name, QueueCounts())
        counted.retrying = number
        counted.by_state[State.SCHEDULED] = max(counted.by_state[State.SCHEDULED], number)
    inexact |= {state for state, number in looked.items() if number > ENDED_LOOKED_AT}
    if not inexact.isdisjoint(FINAL):
        _estimate_ended(using, policy, found, inexact)
    if not inexact.isdisjoint(_OPEN):
        _estimate_open(using, found, inexact)
    return found


def _look(using: str, statement: str, limit: int) -> list[Any]:
    with connections[using].cursor() as cursor:
        cursor.execute(statement, {"limit": limit})
        return list(cursor.fetchall())


# -- Estimates -------------------------------------------------------------------------------------


def _estimate_ended(
    using: str, policy: ClusterPolicy, found: Mapping[str, QueueCounts], inexact: Collection[State]
) -> None:
    """Where counting stopped: what ended within the time for which it is kept."""
    now = database_now(connections[using])
    kept = {name: each for name, *each in _kept_for(using, policy)}
    longest = max((seconds for each in kept.values() for seconds in each), default=0.0)
    days = Rollup.objects.using(using).filter(
        resolution_seconds=DAY, queue__in=[*found], type=ALL,
        starts_at__gt=now - timedelta(seconds=longest + DAY),
    )  # fmt: skip
    sums: dict[tuple[str, str], float] = {}
    for name, starts_at, *numbers in days.values_list("queue", "starts_at", *_EVENTS[1:]):
        succeeded_for, failed_for = kept.get(name, (0.0, 0.0))
        for state, number in zip(_EVENTS[1:], numbers, strict=True):
            seconds = failed_for if state == State.FAILED else succeeded_for
            share = _share(starts_at, now, seconds)
            sums[name, state] = sums.get((name, state), 0.0) + number * share
    for (name, state), number in sums.items():
        if State(state) in inexact:
            by_state = found[name].by_state
            by_state[state] = max(by_state[state], round(number))


def _kept_for(using: str, policy: ClusterPolicy) -> Iterator[tuple[str, float, float]]:
    rows = Queue.objects.using(using).values_list(
        "name", "retain_succeeded_seconds", "retain_failed_seconds"
    )
    for name, succeeded, failed in rows:
        yield (
            name,
            policy.retain_succeeded_seconds if succeeded is None else succeeded,
            policy.retain_failed_seconds if failed is None else failed,
        )


def _share(starts_at: datetime, now: datetime, seconds: float) -> float:
    """How much of a day, as far as it has passed, is not longer ago than this."""
    passed = min((now - starts_at).total_seconds(), float(DAY))
    kept = (starts_at - now).total_seconds() + seconds + passed
    return min(max(kept / passed, 0.0), 1.0) if passed > 0 else 1.0


def _estimate_open(
    using: str, found: Mapping[str, QueueCounts], inexact: Collection[State]
) -> None:
    """Where counting stopped: what was ever enqueued and has not ended, less what is counted."""
    totals = Rollup.objects.using(using).filter(
        resolution_seconds=TOTAL, queue__in=[*found], type=ALL
    )
    sums = totals.values_list("queue").annotate(*(Sum(event) for event in _EVENTS))
    # The first in this order takes what the others leave.
    state = next(state for state in _OPEN if state in inexact)
    for name, enqueued, *ended in sums:
        counted = found[name]
        left = enqueued - sum(ended) - counted.of(*_OPEN)
        if left > 0:
            counted.by_state[state] += left
