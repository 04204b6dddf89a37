"""Counts and time series, read by every screen and API from the roll-ups.

What upkeep has not folded yet is read along, in the same statement as the roll-ups, so that figures
are of this moment and no tally is counted twice. Times are rounded outwards to what is kept: minutes
for two days, hours for as long as the cluster says, days for ever after.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.db import connections
from django.db.models import OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from clusters.policy import ClusterPolicy
from jobs.engine.clock import database_now
from jobs.histogram import mean, percentile
from jobs.models import Failure, FailureHour
from jobs.models.rollup import ALL, DAY, HOUR, MINUTE, Event
from jobs.raw import read_moment
from jobs.states import State

EVENTS = tuple(event.value for event in Event)
MINUTES_PROMISED = timedelta(hours=48)
LONGEST = timedelta(days=400)
MAX_POINTS = 1500
STEPS = (60, 300, 900, 3600, 86400)
# Of a question by queue or type, the busiest.
MAX_GROUPS = 200
# So many tallies are read along. More of them wait only where upkeep has stopped.
MAX_TAIL = 20_000
# Above these lengths a question is answered by the hour, and by the day.
_BY_HOUR_FROM, _BY_DAY_FROM = timedelta(hours=48), timedelta(days=92)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(slots=True)
class Figures:
    """What happened in some stretch of time."""

    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(EVENTS, 0))
    wait: dict[int, int] = field(default_factory=dict)
    run: dict[int, int] = field(default_factory=dict)

    @property
    def finished(self) -> int:
        counts = self.counts
        return counts["succeeded"] + counts["failed"] + counts["cancelled"] + counts["skipped"]

    @property
    def failure_rate(self) -> float | None:
        """The share of failed ones among jobs that succeeded or failed."""
        judged = self.counts["succeeded"] + self.counts["failed"]
        return self.counts["failed"] / judged if judged else None

    def percentiles(self, *shares: float) -> tuple[list[float | None], list[float | None]]:
        """Of waits and of runs, in seconds."""
        return [percentile(self.wait, q) for q in shares], [percentile(self.run, q) for q in shares]

    def means(self) -> tuple[float | None, float | None]:
        return mean(self.wait), mean(self.run)


@dataclass(frozen=True, slots=True)
class Stats:
    """Figures from ``start`` to before ``end``, in groups, the busiest first."""

    start: datetime
    end: datetime
    # All that happened before this moment is counted.
    as_of: datetime
    groups: list[tuple[str, Figures]]

    @property
    def seconds(self) -> float:
        """How long that was, as far as it has passed."""
        return max((min(self.end, self.as_of) - self.start).total_seconds(), 1.0)


@dataclass(frozen=True, slots=True)
class Timeline:
    start: datetime
    end: datetime
    step_seconds: int
    as_of: datetime
    points: list[tuple[datetime, Figures]]


class TooFine(ValueError):
    """So old figures are kept by longer stretches of time only."""


class TooManyPoints(ValueError):
    """The step is too short for the time asked for."""


def stats(
    using: str,
    policy: ClusterPolicy,
    start: datetime,
    end: datetime,
    *,
    queue: str | None = None,
    type: str | None = None,  # noqa: A002  the word of the models
    group_by: str | None = None,
) -> Stats:
    """What happened from ``start`` to ``end``, in all or by ``queue`` or ``type``."""
    now = database_now(connections[using])
    unit = _unit(policy, start, end, now)
    start, end = _floor(start, unit), _ceiling(end, unit)
    found: dict[str, Figures] = {ALL: Figures()} if group_by is None else {}
    tail = _Tail(now)
    asked = _Question(queue, type, group_by)
    for row in _read(using, asked, list(_stretches(start, end, unit)), start, end, tail):
        row.add_to(found.setdefault(row.group, Figures()))
    groups = sorted(found.items(), key=lambda item: (-_activity(item[1]), item[0]))
    return Stats(start, end, tail.as_of, groups[:MAX_GROUPS])


def timeline(
    using: str,
    policy: ClusterPolicy,
    start: datetime,
    end: datetime,
    *,
    step_seconds: int | None = None,
    queue: str | None = None,
    type: str | None = None,  # noqa: A002  the word of the models
) -> Timeline:
    """Figures step by step, those of steps in which nothing happened too."""
    now = database_now(connections[using])
    step = step_seconds or _fitting_step(policy, start, end, now)
    unit = max(length for length in (MINUTE, HOUR, DAY) if length <= step)
    if unit < _finest(policy, start, now):
        raise TooFine
    start, end = _floor(start, step), _ceiling(end, step)
    number = int((end - start).total_seconds()) // step
    if number > MAX_POINTS:
        raise TooManyPoints
    points = [(start + timedelta(seconds=step * index), Figures()) for index in range(number)]
    tail = _Tail(now)
    for row in _read(using, _Question(queue, type), [(unit, start, end)], start, end, tail):
        row.add_to(points[int((row.starts_at - start).total_seconds()) // step][1])
    return Timeline(start, end, step, tail.as_of, points)


def rows_between(
    using: str,
    pieces: Sequence[tuple[int, datetime, datetime]],
    *,
    queue: str | None = None,
) -> Iterator[_Row]:
    """The roll-ups of so many seconds each between two moments, and what is not folded yet."""
    start, end = pieces[0][1], pieces[-1][2]
    tail = _Tail(database_now(connections[using]))
    return _read(using, _Question(queue, None), pieces, start, end, tail)


# -- Which roll-ups answer -------------------------------------------------------------------------


def _finest(policy: ClusterPolicy, moment: datetime, now: datetime) -> int:
    """The shortest stretch by which a moment's figures are kept."""
    # A minute's grace: a question about the last two days took a moment to get here.
    age = now - moment - timedelta(minutes=1)
    if age <= MINUTES_PROMISED:
        return MINUTE
    return HOUR if age <= timedelta(seconds=policy.retain_rollup_seconds) else DAY


def _unit(policy: ClusterPolicy, start: datetime, end: datetime, now: datetime) -> int:
    length = end - start
    wanted = DAY if length > _BY_DAY_FROM else HOUR if length > _BY_HOUR_FROM else MINUTE
    return max(wanted, _finest(policy, start, now))


def _fitting_step(policy: ClusterPolicy, start: datetime, end: datetime, now: datetime) -> int:
    """The shortest step that makes 500 points at most, as many as a chart can show."""
    finest, seconds = _finest(policy, start, now), (end - start).total_seconds()
    return next((step for step in STEPS if step >= finest and seconds / step <= 500), STEPS[-1])


def _stretches(
    start: datetime, end: datetime, unit: int
) -> Iterator[tuple[int, datetime, datetime]]:
    """Cover the time with days, then hours at their edges, then minutes at the edges of those."""
    for length in (DAY, HOUR, MINUTE):
        if length < unit:
            break
        low, high = _ceiling(start, length), _floor(end, length)
        if low < high:
            yield length, low, high
            yield from _stretches(start, low, unit) if start < low else ()
            yield from _stretches(high, end, unit) if high < end else ()
            return


def _floor(moment: datetime, length: int) -> datetime:
    seconds = (moment - _EPOCH) // timedelta(seconds=length)
    return _EPOCH + timedelta(seconds=seconds * length)


def _ceiling(moment: datetime, length: int) -> datetime:
    floor = _floor(moment, length)
    return floor if floor == moment else floor + timedelta(seconds=length)


# -- Reading ---------------------------------------------------------------------------------------


class _Question(NamedTuple):
    queue: str | None
    type: str | None
    group_by: str | None = None

    @property
    def group(self) -> str:
        """The SQL of what rows are grouped by."""
        return self.group_by or "''"

    def of_rollups(self) -> tuple[str, list[str]]:
        """Conditions that choose the one row, or the one row per group, of each stretch."""
        conditions, values = [], []
        for column, value in (("queue", self.queue), ("type", self.type)):
            if self.group_by == column and value is None:
                conditions.append(f"{column} <> ''")
            else:
                conditions.append(f"{column} = %s")
                values.append(ALL if value is None else value)
        return " AND ".join(conditions), values

    def of_tallies(self) -> tuple[str, list[str]]:
        given = [(c, v) for c, v in (("queue", self.queue), ("type", self.type)) if v is not None]
        return "".join(f" AND {column} = %s" for column, _ in given), [v for _, v in given]


@dataclass(slots=True)
class _Tail:
    as_of: datetime


@dataclass(slots=True)
class _Row:
    """A roll-up, or some tallies of one event and bucket."""

    starts_at: datetime
    group: str
    event: str | None
    bucket: int | None
    number: int
    wait: str | None
    run: str | None
    counts: Sequence[int]

    def add_to(self, figures: Figures) -> None:
        if self.event is None:
            for event, count in zip(EVENTS, self.counts, strict=True):
                figures.counts[event] += count
            _add(figures.wait, self.wait)
            _add(figures.run, self.run)
            return
        figures.counts[self.event] += self.number
        if self.bucket is not None:
            histogram = figures.wait if self.event == Event.STARTED else figures.run
            histogram[self.bucket] = histogram.get(self.bucket, 0) + self.number


def _add(histogram: dict[int, int], stored: str | None) -> None:
    for bucket, count in json.loads(stored or "{}").items():
        histogram[int(bucket)] = histogram.get(int(bucket), 0) + count


def _read(
    using: str,
    asked: _Question,
    stretches: Sequence[tuple[int, datetime, datetime]],
    start: datetime,
    end: datetime,
    tail: _Tail,
) -> Iterator[_Row]:
    connection = connections[using]
    adapt = connection.ops.adapt_datetimefield_value
    counts = ", ".join(EVENTS)
    where, values = asked.of_rollups()
    branches: list[str] = []
    parameters: list[Any] = [MAX_TAIL]
    for length, low, high in stretches:
        branches.append(
            f"SELECT starts_at, {asked.group} AS grp, CAST(NULL AS text) AS event,"
            " CAST(NULL AS smallint) AS bucket, 0 AS n,"
            f" CAST(wait_histogram AS text) AS wait, CAST(run_histogram AS text) AS run, {counts}"
            f" FROM rollup WHERE resolution_seconds = %s AND {where}"
            " AND starts_at >= %s AND starts_at < %s"
        )
        parameters += [length, *values, adapt(low), adapt(high)]
    nothing = ", ".join(["0"] * len(EVENTS))
    where, values = asked.of_tallies()
    branches.append(
        f"SELECT minute, {asked.group}, event, bucket, sum(count), NULL, NULL, {nothing}"
        f" FROM tail WHERE minute >= %s AND minute < %s{where}"
        " GROUP BY 1, 2, 3, 4"
    )
    parameters += [adapt(start), adapt(end), *values]
    branches.append(f"SELECT max(minute), '', '', NULL, count(*), NULL, NULL, {nothing} FROM tail")
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH tail AS MATERIALIZED (SELECT minute, queue, type, event, bucket, count"
            f" FROM tally ORDER BY id LIMIT %s) {' UNION ALL '.join(branches)}",
            parameters,
        )
        rows = cursor.fetchall()
    for starts_at, group, event, bucket, number, wait, run, *others in rows:
        if event == "":
            if number >= MAX_TAIL:
                tail.as_of = min(tail.as_of, read_moment(starts_at))
            continue
        yield _Row(read_moment(starts_at), group, event, bucket, int(number), wait, run, others)


def _activity(figures: Figures) -> int:
    return sum(figures.counts.values())


# -- Failures --------------------------------------------------------------------------------------


class RecentFailures(NamedTuple):
    in_24_hours: int
    in_7_days: int


def recent_failures(using: str, fingerprints: Iterable[str]) -> dict[str, RecentFailures]:
    """How often each of these groups was seen of late, by whole hours."""
    this_hour = _floor(database_now(connections[using]), HOUR)
    wanted = list(fingerprints)
    a_day = Q(starts_at__gt=this_hour - timedelta(hours=24))
    hours = FailureHour.objects.using(using).filter(
        fingerprint__in=wanted, starts_at__gt=this_hour - timedelta(days=7)
    )
    counted = hours.values_list("fingerprint").annotate(
        in_24_hours=Coalesce(Sum("count", filter=a_day), 0), in_7_days=Sum("count")
    )
    found = {row[0]: RecentFailures(*row[1:]) for row in counted}
    return {fingerprint: found.get(fingerprint, RecentFailures(0, 0)) for fingerprint in wanted}


def recent_of(hours: Sequence[tuple[datetime, int]]) -> RecentFailures:
    """The same of hours that have been read, the last of them being this one."""
    counts = [count for _, count in hours]
    return RecentFailures(sum(counts[-24:]), sum(counts[-168:]))


def with_recent(groups: QuerySet[Failure]) -> QuerySet[Failure]:
    """Groups with ``in_24_hours`` and ``in_7_days``, read in one with how often they were seen ever."""
    this_hour = _floor(database_now(connections[groups.db]), HOUR)

    def seen(length: timedelta) -> Coalesce:
        hours = FailureHour.objects.using(groups.db).filter(
            fingerprint=OuterRef("fingerprint"), starts_at__gt=this_hour - length
        )
        counted = hours.order_by().values("fingerprint").annotate(n=Sum("count")).values("n")
        return Coalesce(Subquery(counted), 0)

    return groups.annotate(in_24_hours=seen(timedelta(hours=24)), in_7_days=seen(timedelta(days=7)))


def failure_hours(using: str, fingerprint: str, number: int) -> list[tuple[datetime, int]]:
    """How often a group was seen in each of the last hours, oldest first, those without included."""
    this_hour = _floor(database_now(connections[using]), HOUR)
    first = this_hour - timedelta(hours=number - 1)
    hours = FailureHour.objects.using(using).filter(fingerprint=fingerprint, starts_at__gte=first)
    counted = dict(hours.values_list("starts_at", "count"))
    moments = (first + timedelta(hours=index) for index in range(number))
    return [(moment, counted.get(moment, 0)) for moment in moments]


# -- Depth -----------------------------------------------------------------------------------------

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
    found = {name: {State.READY: depth} for name, depth in _ready_depths(using).items()}
    for state, condition in _OTHERS.items():
        if state not in states:
            continue
        counts, is_exact = _looked_at(using, condition)
        for name in counts.keys() - found.keys():
            # A job may be older than the loss of its queue's row.
            found[name] = {State.READY: Depth(0, True)}
        for name, by_state in found.items():
            by_state[state] = Depth(counts.get(name, 0), is_exact)
    return found


def _ready_depths(using: str) -> dict[str, Depth]:
    with connections[using].cursor() as cursor:
        cursor.execute(_READY, [_FIRST_LOOK + 1])
        counts = dict(cursor.fetchall())
        deep = [name for name, count in counts.items() if count > _FIRST_LOOK]
        limit = _FIRST_LOOK
        if deep:
            limit = max(_FIRST_LOOK, _LOOK_BUDGET // len(deep))
            places = ", ".join(["%s"] * len(deep))
            cursor.execute(f"{_READY} WHERE name IN ({places})", [limit + 1, *deep])
            counts.update(cursor.fetchall())
    return {name: Depth(min(count, limit), count <= limit) for name, count in counts.items()}


def _looked_at(using: str, condition: str) -> tuple[dict[str, int], bool]:
    with connections[using].cursor() as cursor:
        cursor.execute(
            f"SELECT queue, count(*) FROM (SELECT queue FROM job WHERE {condition} LIMIT %s) AS look"
            " GROUP BY queue",
            [_ROWS_LOOKED_AT + 1],
        )
        counts = dict(cursor.fetchall())
    return counts, sum(counts.values()) <= _ROWS_LOOKED_AT


def oldest_ready(using: str) -> dict[str, datetime]:
    """Since when the longest waiting ready job of each queue has been due."""
    with connections[using].cursor() as cursor:
        cursor.execute(_OLDEST, [_HOPS])
        return {queue: read_moment(run_at) for queue, run_at in cursor.fetchall()}
