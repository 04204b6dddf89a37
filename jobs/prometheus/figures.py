"""The figures of one cluster at this moment, at a price that does not grow with its jobs.

Running totals are those of the roll-ups; what upkeep has not folded yet is read along, in the same
statement, so that nothing is counted twice and no total ever goes back.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db import connections
from django.db.models import Count

from clusters.models import ALIVE, Node, NodeStatus
from jobs.depths import oldest_ready
from jobs.engine.clock import database_now
from jobs.engine.upkeep import duties
from jobs.models import Queue, Schedule, UpkeepDuty
from jobs.models.rollup import ALL, MINUTE, TOTAL, Event
from jobs.models.total import NO_QUEUE, TotalName
from jobs.prometheus.depths import DEPTHS, depths
from jobs.raw import read_moment
from jobs.states import Reason, State

# So many queues have names of their own: those that were made first. The others go as one.
MAX_QUEUES = 200
OTHER = "other"
MAX_NODES = 500
# The soonest, so those that are late are among them.
MAX_SCHEDULES = 200
# Percentiles are of the last whole minutes, and of the one that has begun.
LATE_MINUTES = timedelta(minutes=5)
# So many tallies are read along. More of them wait only where upkeep stopped long ago.
MAX_TAIL = 500_000
# Of jobs that failed before there were reasons to count, or on a node of an older version.
UNKNOWN = "unknown"

_EVENTS = [event.value for event in Event]
_NO_COUNTS = ", ".join(["0"] * len(_EVENTS))
_TOTALS = f"""
WITH tail AS MATERIALIZED (
  SELECT queue, event, bucket, reason, outcome, count,
         CASE WHEN minute >= %s THEN 'late' ELSE 'tail' END AS what
    FROM tally ORDER BY id LIMIT %s)
SELECT 'ever', queue, CAST(NULL AS text), CAST(NULL AS smallint), 0, CAST(wait_histogram AS text),
       CAST(run_histogram AS text), {", ".join(_EVENTS)}
  FROM rollup WHERE resolution_seconds = {TOTAL} AND type = '{ALL}'
 UNION ALL
SELECT 'late', queue, NULL, NULL, 0, CAST(wait_histogram AS text), CAST(run_histogram AS text),
       {_NO_COUNTS}
  FROM rollup
 WHERE resolution_seconds = {MINUTE} AND starts_at >= %s AND type = '{ALL}' AND queue <> '{ALL}'
 UNION ALL
SELECT name, queue, word, NULL, count, NULL, NULL, {_NO_COUNTS} FROM total
 UNION ALL
SELECT '{TotalName.FAILED.value}', queue, reason, NULL, sum(count), NULL, NULL, {_NO_COUNTS}
  FROM tail WHERE reason IS NOT NULL GROUP BY queue, reason
 UNION ALL
SELECT '{TotalName.ENDED.value}', queue, outcome, NULL, sum(count), NULL, NULL, {_NO_COUNTS}
  FROM tail WHERE outcome IS NOT NULL GROUP BY queue, outcome
 UNION ALL
SELECT what || ' event', queue, event, bucket, sum(count), NULL, NULL, {_NO_COUNTS}
  FROM tail GROUP BY what, queue, event, bucket
"""
_RUNNING = "SELECT queue, count(*), min(started_at) FROM job WHERE state = 'running' GROUP BY queue"


@dataclass(slots=True)
class QueueFigures:
    """One queue, or all that have no name of their own. Histograms are counts by bucket."""

    events: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    # Of all time, and of the last minutes.
    wait: dict[int, int] = field(default_factory=dict)
    run: dict[int, int] = field(default_factory=dict)
    late_wait: dict[int, int] = field(default_factory=dict)
    late_run: dict[int, int] = field(default_factory=dict)
    # Empty where the queue has been deleted.
    depths: Counter[State] = field(default_factory=Counter)
    is_paused: bool | None = None
    oldest_ready_seconds: float = 0.0

    def failed_by_reason(self) -> Mapping[str, int]:
        """With those whose reason was not counted, and none of the commonest where there is none."""
        known = {Reason.ERROR.value: 0, **self.failed}
        unknown = self.events[Event.FAILED] - sum(known.values())
        return {**known, UNKNOWN: unknown} if unknown > 0 else known


@dataclass(slots=True)
class ClusterFigures:
    queues: dict[str, QueueFigures]
    fires: Mapping[str, int]
    nodes: Mapping[str, int]
    live_nodes: Sequence[Node]
    # 0: none runs.
    oldest_running_seconds: float
    # When each is to run next, by name.
    schedules: Mapping[str, datetime]
    duties: Sequence[UpkeepDuty]


def read(using: str) -> ClusterFigures:
    """Read the figures of the cluster with this database."""
    now = database_now(connections[using])
    rows = [*Queue.objects.using(using).order_by("created_at", "name").values_list(*_OF_QUEUES)]
    is_paused: dict[str, bool] = dict(rows)
    totals = _read_totals(using, now)
    labels = _labels(is_paused, {queue for _, queue, *_ in totals})
    queues = _added_up(totals, labels)
    oldest_running = _add_state(using, now, is_paused, labels, queues)
    fires = queues.pop(NO_QUEUE, QueueFigures()).events
    nodes, live_nodes = _nodes(using, now)
    return ClusterFigures(
        queues=queues,
        fires=fires,
        nodes=nodes,
        live_nodes=live_nodes,
        oldest_running_seconds=oldest_running,
        schedules=_schedules(using),
        duties=_duties(using),
    )


_OF_QUEUES = ("name", "is_paused")


def _labels(existing: Iterable[str], counted: Iterable[str]) -> dict[str, str]:
    """What queues are called: those that are there first, in the order in which they were made, so that
    a new one takes nobody's name; then those that are gone and still have totals."""
    names = dict.fromkeys([*existing, *sorted(counted)])
    names.pop(NO_QUEUE, None)
    return {NO_QUEUE: NO_QUEUE, **{name: name for name in [*names][:MAX_QUEUES]}}


# -- Totals ----------------------------------------------------------------------------------------


def _read_totals(using: str, now: datetime) -> Sequence[tuple[Any, ...]]:
    connection = connections[using]
    since = now.replace(second=0, microsecond=0) - LATE_MINUTES
    late = connection.ops.adapt_datetimefield_value(since)
    with connection.cursor() as cursor:
        cursor.execute(_TOTALS, [late, MAX_TAIL, late])
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _added_up(
    rows: Iterable[tuple[Any, ...]], labels: Mapping[str, str]
) -> dict[str, QueueFigures]:
    """The totals by label; those of the cluster are under no name."""
    found: dict[str, QueueFigures] = {}
    for what, queue, word, bucket, number, wait, run, *events in rows:
        label = labels.get(queue, OTHER)
        figures = found.get(label) or found.setdefault(label, QueueFigures())
        if what == "ever":
            figures.events.update(dict(zip(_EVENTS, events, strict=True)))
            _merge(figures.wait, wait)
            _merge(figures.run, run)
        elif what == "late":
            _merge(figures.late_wait, wait)
            _merge(figures.late_run, run)
        elif what == TotalName.FAILED:
            figures.failed[word] += int(number)
        elif what == TotalName.ENDED:
            figures.ended[word] += int(number)
        else:
            # A fire of the cluster, or some tallies.
            figures.events[word] += int(number)
            if bucket is not None:
                is_wait = word == Event.STARTED
                histograms = [figures.wait if is_wait else figures.run]
                if what == "late event":
                    histograms.append(figures.late_wait if is_wait else figures.late_run)
                for one in histograms:
                    one[bucket] = one.get(bucket, 0) + int(number)
    return found


def _merge(histogram: dict[int, int], stored: str) -> None:
    """Add a histogram as the roll-ups keep it; most are the first of their queue."""
    if stored == "{}":
        return
    found: dict[str, int] = json.loads(stored)
    if not histogram:
        histogram.update({int(bucket): count for bucket, count in found.items()})
        return
    for text, count in found.items():
        bucket = int(text)
        histogram[bucket] = histogram.get(bucket, 0) + count


# -- The moment ------------------------------------------------------------------------------------


def _add_state(
    using: str,
    now: datetime,
    is_paused: Mapping[str, bool],
    labels: Mapping[str, str],
    queues: dict[str, QueueFigures],
) -> float:
    """What is in each queue; returns how long the job that has run longest has been at it."""
    waiting = depths(using)
    running, oldest_running = _running(using)
    oldest = oldest_ready(using)
    for name, paused in is_paused.items():
        label = labels.get(name, OTHER)
        figures = queues.setdefault(label, QueueFigures())
        figures.depths.update(waiting.get(name, dict.fromkeys(DEPTHS, 0)))
        figures.depths[State.RUNNING] += running.get(name, 0)
        if label == OTHER:
            # Paused where all of them are; and as old as the oldest of those that are not.
            figures.is_paused = paused and figures.is_paused is not False
        else:
            figures.is_paused = paused
        if name in oldest and not (label == OTHER and paused):
            age = (now - oldest[name]).total_seconds()
            figures.oldest_ready_seconds = max(figures.oldest_ready_seconds, age)
    if oldest_running is None:
        return 0.0
    return max((now - oldest_running).total_seconds(), 0.0)


def _running(using: str) -> tuple[dict[str, int], datetime | None]:
    """How many jobs of each queue run, and since when the longest; nodes run no more than they can."""
    with connections[using].cursor() as cursor:
        cursor.execute(_RUNNING)
        rows: list[tuple[str, int, Any]] = cursor.fetchall()
    oldest = min((read_moment(since) for _, _, since in rows), default=None)
    return {queue: count for queue, count, _ in rows}, oldest


def _nodes(using: str, now: datetime) -> tuple[Mapping[str, int], Sequence[Node]]:
    """How many nodes there are of each status, and those that live. Whose lease is over is dead, even
    where nobody is left to say so."""
    nodes = Node.objects.using(using)
    ended = nodes.exclude(status__in=ALIVE).order_by().values_list("status")
    counts: Counter[str] = Counter(dict.fromkeys(NodeStatus.values, 0))
    counts.update(dict(ended.annotate(Count("pk"))))
    live: dict[str, Node] = {}
    for node in (
        nodes.all().alive().defer("types", "kinds", "queues").order_by("heartbeat_at", "pk")
    ):
        if node.lease_until < now:
            counts[NodeStatus.DEAD] += 1
            continue
        counts[node.status] += 1
        # Of two with one name, as in containers that were started anew, the one heard of last.
        live[str(node)] = node
    return counts, [*live.values()][-MAX_NODES:]


def _schedules(using: str) -> Mapping[str, datetime]:
    due = Schedule.objects.using(using).filter(next_run_at__isnull=False)
    soonest = due.order_by("next_run_at", "id").values_list("name", "next_run_at")[:MAX_SCHEDULES]
    return {name: at for name, at in soonest if at is not None}


def _duties(using: str) -> Sequence[UpkeepDuty]:
    """Those that nodes share; of others that an older version had, a row may be left."""
    shared = [duty.name for duty in duties() if not duty.is_everywhere]
    return [*UpkeepDuty.objects.using(using).filter(name__in=shared).order_by("name")]
