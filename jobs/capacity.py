"""Is there room: how fast queues fill and empty, what no node can take, what runs longest, what is late.

Rates come from the roll-ups. What is looked at in the table of jobs is looked at along an index, and no
farther than costs little.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from django.db import connections

from clusters.models import Node
from clusters.policy import ClusterPolicy
from jobs import metrics, registry
from jobs.engine.limits import Limit, rate_room
from jobs.fleet import serves
from jobs.metrics import Figures
from jobs.models import Job, Schedule
from jobs.raw import fetch
from jobs.states import State

# Rates are of so long: short enough to be of now, long enough for queues that get a job a minute.
FLOW_PERIOD = timedelta(minutes=10)
# A schedule is late that should have run so long ago; that of the alert ScheduleLate.
LATE_AFTER = timedelta(seconds=120)
LATE_LOOKED_AT = 1000
# So many jobs at the head of each queue are looked at: what no node knows stays there.
_HEAD = 20
_HEAD_OF = """(SELECT type FROM job WHERE queue = q.name AND state = 'ready' AND kind = %s
               ORDER BY kind, priority, run_at, id LIMIT %s) AS head"""
_TYPES = {
    "postgresql": "SELECT name, (SELECT json_agg(DISTINCT type)::text FROM @) FROM queue AS q",
    "sqlite": "SELECT name, (SELECT json_group_array(DISTINCT type) FROM @) FROM queue AS q",
}


@dataclass(frozen=True, slots=True)
class Flow:
    """What came into a queue and what left it of late, a second."""

    enqueued: float = 0.0
    taken: float = 0.0
    finished: float = 0.0

    def seconds_to_empty(self, ready: int) -> float | None:
        """Until nothing is ready, if all goes on like this; None: that will not come."""
        if not ready:
            return 0.0
        shrinks_by = self.taken - self.enqueued
        return ready / shrinks_by if shrinks_by > 0 else None


class Late(NamedTuple):
    """Schedules that should have run; counting stops at ``LATE_LOOKED_AT``."""

    number: int
    name: str | None = None
    due_at: datetime | None = None


def flows(using: str, policy: ClusterPolicy, now: datetime) -> dict[str, Flow]:
    """The rates of the queues in which something happened of late."""
    found = metrics.stats(using, policy, now - FLOW_PERIOD, now, group_by="queue", now=now)
    return {queue: flow_of(figures, found.seconds) for queue, figures in found.groups}


def flow_of(figures: Figures, seconds: float) -> Flow:
    counts = figures.counts
    return Flow(
        enqueued=(counts["enqueued"] + counts["retried"] + counts["released"]) / seconds,
        taken=counts["started"] / seconds,
        finished=figures.finished / seconds,
    )


def unknown_types(using: str, nodes: Sequence[Node]) -> dict[str, list[str]]:
    """Of each queue the types at its head that none of these nodes, of those that serve it, knows."""
    connection = connections[using]
    statement = _TYPES[connection.vendor].replace("@", _HEAD_OF)
    rows = fetch(connection, statement, [registry.KIND, _HEAD])
    found = {}
    for queue, listed in rows:
        serving = [node for node in nodes if serves(node, queue) and registry.KIND in node.kinds]
        known = {name for node in serving for name in node.types}
        # Where nobody serves the queue, that is the thing to tell.
        if serving and (unknown := sorted(set(json.loads(listed or "[]")) - known)):
            found[queue] = unknown
    return found


def oldest_running(using: str, number: int = 1) -> list[Job]:
    """The jobs that have run longest; nodes run no more than they have room for."""
    jobs = Job.objects.using(using).filter(state=State.RUNNING)
    return [
        *jobs.only("id", "type", "queue", "node_id", "started_at").order_by("started_at")[:number]
    ]


def late_schedules(using: str, now: datetime) -> Late:
    """Those whose next run is over and was not made; one that rests has none."""
    late = Schedule.objects.using(using).filter(next_run_at__lt=now - LATE_AFTER)
    due = late.order_by("next_run_at", "id").values_list("name", "next_run_at")[:LATE_LOOKED_AT]
    rows: list[Any] = [*due]
    return Late(len(rows), *rows[0]) if rows else Late(0)


class OfType(NamedTuple):
    """The figures of one type of jobs over some time."""

    name: str
    figures: Figures

    @property
    def failed(self) -> int:
        return self.figures.counts["failed"]

    @property
    def p95(self) -> float | None:
        return self.figures.percentiles(0.95)[1][0]


def most_failing(types: Iterable[tuple[str, Figures]], number: int) -> list[OfType]:
    """Types with the most failed jobs."""
    failing = [one for one in (OfType(*pair) for pair in types) if one.failed]
    return sorted(failing, key=lambda one: (-one.failed, one.name))[:number]


def slowest(types: Iterable[tuple[str, Figures]], number: int) -> list[OfType]:
    """Types whose runs took longest, by the time that 95 of 100 kept to."""
    ran = [(one.p95, one) for one in (OfType(*pair) for pair in types)]
    timed = [(p95, one) for p95, one in ran if p95 is not None]
    return [one for _, one in sorted(timed, key=lambda pair: (-pair[0], pair[1].name))[:number]]


def share_of_limits(
    queue: Any, by_state: Mapping[State, int], now: datetime
) -> list[tuple[str, int, int]]:
    """The limits of a queue: what each is about, how much of it is used, and how much there is."""
    found = []
    if queue.max_concurrency is not None:
        found.append(("running", by_state.get(State.RUNNING, 0), queue.max_concurrency))
    if queue.rate_limit is not None:
        found.append(
            ("started", queue.rate_limit - rate_room(Limit.of(queue, now)), queue.rate_limit)
        )
    if queue.max_entries is not None:
        waiting = (State.READY, State.SCHEDULED, State.BLOCKED)
        found.append(("waiting", sum(by_state.get(s, 0) for s in waiting), queue.max_entries))
    return found
