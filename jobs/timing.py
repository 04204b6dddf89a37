"""When a schedule is due: pure arithmetic over instants in UTC, without a clock and without a database.

The next instant follows from the one before it, never from now, and lies strictly later in UTC. Long
stretches are gone through day by day and not instant by instant, so ten years of a minutely schedule are
counted in milliseconds.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, NamedTuple, Protocol
from uuid import UUID

from jobs import cron
from jobs.cron import Chunk, Gap
from jobs.errors import InvalidSchedule
from jobs.exclusions import NOTHING, Exclusions
from jobs.zones import (
    DAY,
    EARLIEST,
    LATEST,
    SECOND,
    Turn,
    Zone,
    from_wall_time,
    to_micros,
    to_moment,
    tzdata_version,
    zone,
)

__all__ = [
    "Missed",
    "Occurrence",
    "Rule",
    "Stretch",
    "check",
    "clock_change",
    "counts_by_hour",
    "excluded_between",
    "from_wall_time",
    "missed",
    "next_due",
    "spread_offset",
    "tzdata_version",
    "upcoming",
]

SHORTEST_SECONDS = cron.SHORTEST_INTERVAL.total_seconds()
LONGEST_SECONDS = cron.LONGEST_INTERVAL.total_seconds()
# So long after an excluded instant the search for one that is not goes on.
HORIZON_YEARS = 5
HORIZON = HORIZON_YEARS * 366 * DAY
# Further back than this nobody counts.
LOOK_BACK = 20 * 366 * DAY
HOUR = 3600 * SECOND

# Which field says when, by timing.
_FIELD = {"cron": "expression", "interval": "interval_seconds", "once": "run_at"}
_FIRST = to_micros(EARLIEST)
_LAST = to_micros(LATEST)


@dataclass(frozen=True)
class Rule:
    """When a schedule is due. Intervals count from `anchor_at`, and the first is one interval later."""

    timing: Literal["cron", "interval", "once"]
    expression: str | None = None
    interval_seconds: float | None = None
    run_at: datetime | None = None
    timezone: str = "UTC"
    anchor_at: datetime | None = None
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    gap: Gap = "fire"
    exclusions: Exclusions = NOTHING


@dataclass(frozen=True)
class Missed:
    """Instants that were due: how many, and the newest of them, oldest first."""

    count: int = 0
    is_at_least: bool = False
    first: datetime | None = None
    last: datetime | None = None
    newest: tuple[datetime, ...] = ()


@dataclass(frozen=True)
class Stretch:
    """Instants that exclusions took out, and why the first of them."""

    count: int
    is_at_least: bool
    first: datetime
    last: datetime
    reason: str


@dataclass(frozen=True)
class Occurrence:
    """One instant of a preview, and what a clock on the wall shows then."""

    instant: datetime
    local: datetime
    is_on_clock_change: bool
    excluded: str | None = None


def check(rule: Rule, now: datetime, *, must_lie_ahead: bool = True) -> None:
    """Refuse a rule that cannot be kept, naming the field; or that is all in the past."""
    for field in ("anchor_at", "starts_at", "ends_at", "run_at"):
        _check_moment(field, getattr(rule, field))
    where = zone(rule.timezone)
    if rule.gap not in ("fire", "skip"):
        raise InvalidSchedule("must be fire or skip", field="gap")
    if rule.starts_at and rule.ends_at and rule.ends_at <= rule.starts_at:
        raise InvalidSchedule("must be later than starts_at", field="ends_at")
    anchored = replace(rule, anchor_at=rule.anchor_at or now)
    _source(anchored, where)
    if rule.timing == "once" and rule.run_at is not None:
        if must_lie_ahead and rule.run_at <= now:
            raise InvalidSchedule("lies in the past", field="run_at")
        if reason := rule.exclusions.reason(rule.run_at, where):
            raise InvalidSchedule(f"is excluded: {reason}", field="run_at")
    if must_lie_ahead:
        _check_that_it_comes(anchored, now)
    elif rule.timing != "once":
        _check_that_it_comes(replace(anchored, ends_at=None), now)


def _check_moment(field: str, moment: datetime | None) -> None:
    if moment is None:
        return
    if moment.tzinfo is None:
        raise InvalidSchedule("needs an offset from UTC", field=field)
    if not EARLIEST <= moment < LATEST:
        raise InvalidSchedule(f"must lie between {EARLIEST.year} and {LATEST.year}", field=field)


def _check_that_it_comes(rule: Rule, now: datetime) -> None:
    if next_due(rule, now) is not None:
        return
    freely = replace(rule, exclusions=NOTHING)
    if next_due(freely, now) is not None:
        until = "before ends_at" if rule.ends_at else f"within {HORIZON_YEARS} years"
        raise InvalidSchedule(f"leave no run {until}", field="exclusions")
    if rule.ends_at is not None:
        raise InvalidSchedule("leaves no run", field="ends_at")
    raise InvalidSchedule("has no run ahead", field=_FIELD[rule.timing])


def next_due(rule: Rule, after: datetime) -> datetime | None:
    """The next instant strictly after this one that is not excluded; None if there is none."""
    where = zone(rule.timezone)
    source = _source(rule, where)
    low, high = _limits(rule, to_micros(after) + 1, _LAST)
    if isinstance(source, _Cron):
        high = min(high, low + cron.SEARCH)
    found = _first(source, low, high)
    if rule.exclusions and found is not None:
        high = min(high, found + HORIZON)
        while found is not None and rule.exclusions.excludes(found, where):
            closed = next(rule.exclusions.spans(found, high, where), None)
            found = _first(source, closed.end, high) if closed else None
    return None if found is None else to_moment(found)


def missed(rule: Rule, after: datetime, until: datetime, keep: int) -> Missed:
    """What was due in (after, until] and is not excluded, with the newest `keep` of it."""
    where = zone(rule.timezone)
    source = _source(rule, where)
    low, high = _limits(rule, to_micros(after) + 1, to_micros(until) + 1)
    bounded = max(low, high - LOOK_BACK)
    spans = _free(rule.exclusions, bounded, high, where)
    count, first, last, newest = _tally(source, spans, keep)
    is_at_least = False
    if bounded > low:
        earliest = next_due(rule, after)
        if earliest is not None and to_micros(earliest) < bounded:
            first, is_at_least = to_micros(earliest), True
            count, last = max(count, 1), first if last is None else last
    return Missed(
        count,
        is_at_least,
        None if first is None else to_moment(first),
        None if last is None else to_moment(last),
        tuple(to_moment(one) for one in newest),
    )


def excluded_between(rule: Rule, after: datetime, before: datetime) -> Stretch | None:
    """What exclusions took out strictly between two instants; None if nothing."""
    if not rule.exclusions:
        return None
    where = zone(rule.timezone)
    low, high = _limits(rule, to_micros(after) + 1, to_micros(before))
    bounded = max(low, high - LOOK_BACK)
    spans = (
        (span.start, span.end)
        for span in rule.exclusions.spans(bounded, high, where)
        if span.is_excluded
    )
    count, first, last, _ = _tally(_source(rule, where), spans, 0)
    if first is None or last is None:
        return None
    moment = to_moment(first)
    reason = rule.exclusions.reason(moment, where) or ""
    return Stretch(count, bounded > low, moment, to_moment(last), reason)


def counts_by_hour(rule: Rule, begins_at: datetime, since: datetime, hours: int) -> dict[int, int]:
    """How many instants lie in each hour from ``begins_at`` on, and not before ``since``.

    By the number of the hour; hours without an instant are left out, and so is what is excluded.
    """
    where = zone(rule.timezone)
    source = _source(rule, where)
    start = to_micros(begins_at)
    low, high = _limits(rule, max(to_micros(since), start), start + hours * HOUR)
    found: dict[int, int] = {}
    for begin, end in _free(rule.exclusions, low, high, where):
        for chunk in source.chunks(begin, end):
            place = chunk.low
            while place < chunk.high:
                hour = (chunk.base + chunk.times[place] - start) // HOUR
                edge = start + (hour + 1) * HOUR - chunk.base
                after = bisect_left(chunk.times, edge, place, chunk.high)
                found[hour] = found.get(hour, 0) + after - place
                place = after
    return found


def upcoming(
    rule: Rule, after: datetime, count: int, *, include_excluded: bool = False
) -> list[Occurrence]:
    """The next instants, for a preview; those that are excluded only if asked for, with the reason."""
    where = zone(rule.timezone)
    found: list[Occurrence] = []
    searched = replace(rule, exclusions=NOTHING) if include_excluded else rule
    moment = next_due(searched, after)
    while moment is not None and len(found) < count:
        reason = rule.exclusions.reason(moment, where) if include_excluded else None
        local = moment.astimezone(where.info)
        found.append(
            Occurrence(moment, local, _is_on_clock_change(to_micros(moment), where), reason)
        )
        moment = next_due(searched, moment)
    return found


def spread_offset(schedule_id: UUID, window_seconds: float) -> timedelta:
    """By how much a schedule's jobs are put off: always the same of it, and less than the window."""
    if not window_seconds > 0:
        return timedelta(0)
    hashed = int.from_bytes(hashlib.blake2b(schedule_id.bytes, digest_size=8).digest(), "big")
    return timedelta(microseconds=int(window_seconds * SECOND) * hashed >> 64)


# -- Where instants come from ----------------------------------------------------------------------


class _Source(Protocol):
    def chunks(self, low: int, high: int) -> Iterator[Chunk]:
        """All instants in [low, high), excluded or not."""


class _Cron(NamedTuple):
    cron: cron.Cron
    zone: Zone
    gap: Gap

    def chunks(self, low: int, high: int) -> Iterator[Chunk]:
        return self.cron.chunks(low, high, self.zone, self.gap)


class _Interval(NamedTuple):
    anchor: int
    step: int

    def chunks(self, low: int, high: int) -> Iterator[Chunk]:
        past = max(-((self.anchor - low) // self.step), 1)
        steps = range(self.anchor + past * self.step, high, self.step)
        if steps:
            yield Chunk(0, steps, 0, len(steps))


class _Once(NamedTuple):
    at: int

    def chunks(self, low: int, high: int) -> Iterator[Chunk]:
        if low <= self.at < high:
            yield Chunk(0, (self.at,), 0, 1)


def _source(rule: Rule, where: Zone) -> _Source:
    if rule.timing == "cron":
        if rule.expression is None:
            raise InvalidSchedule("is needed", field="expression")
        parsed = cron.parse(rule.expression)
        if isinstance(parsed, cron.Cron):
            return _Cron(parsed, where, rule.gap)
        return _Interval(_anchor(rule), cron.to_length(parsed.length))
    if rule.timing == "interval":
        seconds = rule.interval_seconds
        if seconds is None:
            raise InvalidSchedule("is needed", field="interval_seconds")
        is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not is_number or not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS:
            raise InvalidSchedule(
                f"must lie between 1 and {LONGEST_SECONDS:.0f}", field="interval_seconds"
            )
        return _Interval(_anchor(rule), round(seconds * SECOND))
    if rule.timing == "once":
        if rule.run_at is None:
            raise InvalidSchedule("is needed", field="run_at")
        return _Once(to_micros(rule.run_at))
    raise InvalidSchedule("must be cron, interval or once", field="timing")


def _anchor(rule: Rule) -> int:
    if rule.anchor_at is None:
        raise InvalidSchedule("is needed", field="anchor_at")
    return to_micros(rule.anchor_at)


def _limits(rule: Rule, low: int, high: int) -> tuple[int, int]:
    """[low, high) within the time in which the rule holds."""
    if rule.starts_at is not None:
        low = max(low, to_micros(rule.starts_at))
    if rule.ends_at is not None:
        high = min(high, to_micros(rule.ends_at))
    return max(low, _FIRST), min(high, _LAST)


def _first(source: _Source, low: int, high: int) -> int | None:
    chunk = next(source.chunks(low, high), None)
    return chunk.first if chunk else None


def _free(exclusions: Exclusions, low: int, high: int, where: Zone) -> Iterator[tuple[int, int]]:
    if not exclusions:
        yield low, high
        return
    for span in exclusions.spans(low, high, where):
        if not span.is_excluded:
            yield span.start, span.end


def _tally(
    source: _Source, spans: Iterator[tuple[int, int]], keep: int
) -> tuple[int, int | None, int | None, list[int]]:
    """How many instants lie in these spans, the first and last of them, and the newest."""
    count, first, last = 0, None, None
    tail: deque[Chunk] = deque()
    kept = 0
    for start, end in spans:
        for chunk in source.chunks(start, end):
            count += chunk.length
            first = chunk.first if first is None else first
            last = chunk.last
            tail.append(chunk)
            kept += chunk.length
            while tail and kept - tail[0].length >= keep:
                kept -= tail.popleft().length
    newest: list[int] = []
    for chunk in tail:
        newest.extend(chunk.newest(keep))
    return count, first, last, newest[len(newest) - min(keep, len(newest)) :]


def clock_change(instant: datetime, timezone: str) -> tuple[datetime, datetime] | None:
    """From what to what the clocks of a zone are put on the local day of an instant; None: they are not.

    Both are wall times, written as if they were in UTC.
    """
    turn = _turn_of_day(to_micros(instant), zone(timezone))
    if turn is None:
        return None
    return to_moment(turn.at + turn.before), to_moment(turn.at + turn.after)


def _is_on_clock_change(micros: int, where: Zone) -> bool:
    """Whether the local day of this instant holds a change of the clock."""
    return _turn_of_day(micros, where) is not None


def _turn_of_day(micros: int, where: Zone) -> Turn | None:
    wall = micros + where.offset(micros)
    midnight = wall // DAY * DAY
    # Wide enough for the day that Samoa skipped.
    for segment in where.segments(micros - 2 * DAY, micros + 2 * DAY):
        turn = segment.turn
        if turn is not None and segment.start == turn.at:
            shows = {(turn.at + turn.before - 1) // DAY, (turn.at + turn.after) // DAY}
            if midnight // DAY in shows:
                return turn
    return None
