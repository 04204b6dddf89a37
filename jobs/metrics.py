"""Counts and time series, read by every screen and API from the roll-ups.

What upkeep has not folded yet is read along, in the same statement as the roll-ups, so that figures
are of this moment and no tally is counted twice. Times are rounded outwards to what is kept: minutes
for two days, hours for as long as the cluster says, days for ever after.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.db import connections

from clusters.policy import ClusterPolicy
from jobs.engine.clock import database_now
from jobs.histogram import LARGEST, SMALLEST, mean, percentile
from jobs.models.rollup import ALL, DAY, HOUR, MINUTE, Event
from jobs.raw import read_moment

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
    wait: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    run: dict[int, int] = field(default_factory=lambda: defaultdict(int))

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

    def add(self, other: Figures) -> None:
        """Add what happened in another stretch of time."""
        for event, count in other.counts.items():
            self.counts[event] += count
        for mine, others in ((self.wait, other.wait), (self.run, other.run)):
            for bucket, count in others.items():
                mine[bucket] += count

    def means(self) -> tuple[float | None, float | None]:
        return mean(self.wait), mean(self.run)


def together(stretches: Iterable[Figures]) -> Figures:
    """The figures of several stretches of time as those of one."""
    whole = Figures()
    for figures in stretches:
        whole.add(figures)
    return whole


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
    now: datetime | None = None,
) -> Stats:
    """What happened from ``start`` to ``end``, in all or by ``queue`` or ``type``.

    ``now`` is the database's time, where it has been asked for it already.
    """
    now = now or database_now(connections[using])
    unit = _unit(policy, start, end, now)
    start, end = floor(start, unit), _ceiling(end, unit)
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
    now: datetime | None = None,
) -> Timeline:
    """Figures step by step, those of steps in which nothing happened too."""
    now = now or database_now(connections[using])
    step = step_seconds or _fitting_step(policy, start, end, now)
    unit = max(length for length in (MINUTE, HOUR, DAY) if length <= step)
    if unit < _finest(policy, start, now):
        raise TooFine
    start, end = floor(start, step), _ceiling(end, step)
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
        low, high = _ceiling(start, length), floor(end, length)
        if low < high:
            yield length, low, high
            yield from _stretches(start, low, unit) if start < low else ()
            yield from _stretches(high, end, unit) if high < end else ()
            return


def floor(moment: datetime, length: int) -> datetime:
    seconds = (moment - _EPOCH) // timedelta(seconds=length)
    return _EPOCH + timedelta(seconds=seconds * length)


def _ceiling(moment: datetime, length: int) -> datetime:
    before = floor(moment, length)
    return before if before == moment else before + timedelta(seconds=length)


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
            histogram[self.bucket] += self.number


# A day of minutes has some forty thousand of them; this and the next is where a chart's time goes.
_BUCKETS = {str(bucket): bucket for bucket in range(SMALLEST, LARGEST + 1)}
_decode = json.JSONDecoder().raw_decode


def _add(histogram: dict[int, int], stored: str | None) -> None:
    for bucket, count in _decode(stored or "{}")[0].items():
        histogram[_BUCKETS[bucket]] += count


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
