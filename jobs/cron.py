"""Cron expressions: five fields or a macro, and `@every` for intervals.

cronsim reads the fields and finds the days, by the rules of Debian's cron; the times of those days are
put on them here, because which of them a zone skips or repeats is our own rule (ENGINE.md, section 11).
An expression is *fixed* if neither its minute nor its hour begins with `*`: what a gap swallows comes at
the end of the gap, and a fold brings it once, in the first pass. All others follow elapsed time: nothing
in a gap, both passes of a fold.
"""

from __future__ import annotations

import copy
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Literal, NamedTuple

from cronsim import CronSim, CronSimError

from jobs.errors import InvalidCron
from jobs.zones import DAY, EARLIEST, EPOCH_ORDINAL, LATEST, SECOND, Zone, to_micros, to_moment

Gap = Literal["fire", "skip"]

MAX_LENGTH = 200
SEARCH_YEARS = 50
SEARCH = SEARCH_YEARS * 366 * DAY
SHORTEST_INTERVAL = timedelta(seconds=1)
LONGEST_INTERVAL = timedelta(days=3653)

MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
_DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]
_RANGE = re.compile(r"([0-9]{1,4}|[A-Z]{3})-([0-9]{1,4}|[A-Z]{3})(?:/([0-9]{1,4}))?")
_TERM = r"(?:\*|(?:[0-9]{1,4}|[A-Z]{3})(?:-(?:[0-9]{1,4}|[A-Z]{3}))?)(?:/[0-9]{1,4})?"


class _Field(NamedTuple):
    name: str
    low: int
    high: int
    words: list[str]
    term: re.Pattern[str]
    hint: str


_FIELDS = (
    _Field("minute", 0, 59, [], re.compile(_TERM), "0 to 59"),
    _Field("hour", 0, 23, [], re.compile(_TERM), "0 to 23"),
    _Field("day of month", 1, 31, [], re.compile(rf"{_TERM}|LW?"), "1 to 31, L or LW"),
    _Field("month", 1, 12, _MONTHS, re.compile(_TERM), "1 to 12 or JAN to DEC"),
    _Field(
        "day of week",
        0,
        6,
        _DAYS,
        re.compile(rf"{_TERM}|[0-7]L|(?:[0-7]|[A-Z]{{3}})#[1-5]"),
        "0 to 7 or SUN to SAT, 5L for the last Friday, 1#2 for the second Monday",
    ),
)
_DURATION = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,9})?(?:ms|s|m|h))+")
_DURATION_PART = re.compile(r"([0-9.]+)(ms|s|m|h)")
_UNITS = {"ms": 1_000, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}


class Chunk(NamedTuple):
    """Instants in ascending order: `base` plus each of `times[low:high]`; there is at least one."""

    base: int
    times: Sequence[int]
    low: int
    high: int

    @property
    def length(self) -> int:
        return self.high - self.low

    @property
    def first(self) -> int:
        return self.base + self.times[self.low]

    @property
    def last(self) -> int:
        return self.base + self.times[self.high - 1]

    def newest(self, count: int) -> list[int]:
        low = max(self.low, self.high - count)
        return [self.base + time for time in self.times[low : self.high]]


class Every:
    """An interval, written as `@every 1h30m`."""

    def __init__(self, expression: str, length: timedelta) -> None:
        self.expression = expression
        self.length = length

    def describe(self) -> str:
        return f"Every {_spell(self.length)}"


class Cron:
    """A cron expression, read; get it from `parse`."""

    def __init__(self, expression: str, fields: Sequence[str]) -> None:
        self.expression = expression
        self.is_fixed = not fields[0].startswith("*") and not fields[1].startswith("*")
        self._whole = CronSim(" ".join(fields), _DAWN)
        self._times = tuple(
            (hour * 60 + minute) * 60 * SECOND
            for hour in sorted(self._whole.hours)
            for minute in sorted(self._whole.minutes)
        )
        self._days = CronSim(" ".join(("0 0", *fields[2:])), _DAWN)
        # The last search for a day: no day from the first to the second matches but the second.
        self._searched = (1, 0)

    def describe(self) -> str:
        sentence: str = self._whole.explain()
        return sentence if self._whole.day_and else f"{sentence} (either day is enough)"

    def next_after(self, moment: datetime, zone: Zone, gap: Gap = "fire") -> datetime | None:
        """The next instant in UTC, always strictly later; None if there is none for 50 years."""
        low = max(to_micros(moment) + 1, _FIRST)
        chunk = next(self.chunks(low, low + SEARCH, zone, gap), None)
        return to_moment(chunk.first) if chunk else None

    def chunks(self, low: int, high: int, zone: Zone, gap: Gap = "fire") -> Iterator[Chunk]:
        """All instants in [low, high)."""
        for start, end, offset, turn in zone.segments(low, min(high, _LAST)):
            wall_low, wall_high = start + offset, end + offset
            if turn is not None and self.is_fixed:
                # How far the wall clock had come before it was changed.
                reached = turn.at + turn.before
                if turn.after < turn.before:
                    wall_low = max(wall_low, reached)
                elif (
                    gap == "fire"
                    and start == turn.at
                    and not self._comes_at(wall_low)
                    and any(self._wall_chunks(reached, wall_low, 0))
                ):
                    yield Chunk(0, (start,), 0, 1)
            yield from self._wall_chunks(wall_low, wall_high, offset)

    def _wall_chunks(self, low: int, high: int, offset: int) -> Iterator[Chunk]:
        """What matches from one wall time to another, as instants under this offset."""
        times = self._times
        day = self._day_from(low // DAY)
        while day is not None and (base := day * DAY) < high:
            first = bisect_left(times, low - base) if base < low else 0
            last = len(times) if base + DAY <= high else bisect_left(times, high - base)
            if first < last:
                yield Chunk(base - offset, times, first, last)
            day = self._day_from(day + 1)

    def _comes_at(self, wall: int) -> bool:
        return any(self._wall_chunks(wall, wall + 1, 0))

    def _day_from(self, day: int) -> int | None:
        """The first matching day from this one on, counted from 1970."""
        asked, found = self._searched
        if asked <= day <= found:
            return found
        that = date.fromordinal(day + EPOCH_ORDINAL)
        if that.month in self._days.months and self._days.match_day(that):
            return day
        search = copy.copy(self._days)
        search.dt = datetime.combine(that, time(23, 59, 59))
        later = next(search, None)
        if later is None:
            return None
        found = later.toordinal() - EPOCH_ORDINAL
        self._searched = (day, found)
        return found


# Where a search begins that asks whether there is any match at all; days recur within 28 years.
_DAWN = datetime(2000, 1, 1)
_FIRST = to_micros(EARLIEST)
_LAST = to_micros(LATEST)


def parse(expression: str, *, field: str = "expression") -> Cron | Every:
    """Read an expression; what is wrong with it is an `InvalidCron` that names the field."""
    try:
        if not isinstance(expression, str):
            raise InvalidCron("a cron expression is a text such as 0 7 * * 1-5")
        if len(expression) > MAX_LENGTH:
            raise InvalidCron(f"a cron expression has at most {MAX_LENGTH} characters")
        return _parse(expression)
    except InvalidCron as error:
        error.field = field
        raise


def describe(expression: str) -> str:
    """Say an expression in one English sentence."""
    return parse(expression).describe()


@lru_cache(maxsize=4096)
def _parse(expression: str) -> Cron | Every:
    text = expression.replace("\t", " ").strip()
    if not text.isascii() or not text.isprintable():
        raise InvalidCron("a cron expression holds printable ASCII characters only")
    if text.lower().startswith("@every"):
        return Every(text, _duration(text[len("@every") :].strip()))
    if text.startswith("@"):
        if text.lower() not in MACROS:
            raise InvalidCron(f"there is no {text[:30]}; known: {', '.join(MACROS)}, @every 1h30m")
        return Cron(text, MACROS[text.lower()].split())
    fields = text.upper().split()
    if len(fields) == 6:
        raise InvalidCron("six fields: seconds are not supported; write minute to day of week")
    if len(fields) != 5:
        raise InvalidCron(f"a cron expression has five fields; this has {len(fields)}")
    plain = [_plain(field, value) for field, value in zip(_FIELDS, fields, strict=True)]
    try:
        cron = Cron(text, plain)
    except CronSimError as error:
        raise InvalidCron(_blame(plain, fields)) from error
    if cron._day_from(_DAWN.toordinal() - EPOCH_ORDINAL) is None:
        raise InvalidCron(_NEVER)
    return cron


_NEVER = f"there is no such day in {SEARCH_YEARS} years"


def _plain(field: _Field, value: str) -> str:
    """The field as cronsim reads it: no question mark, no range that runs backwards."""
    if value == "?" and field.name.startswith("day"):
        return "*"
    terms = value.split(",")
    if not all(field.term.fullmatch(term) for term in terms):
        raise _bad(field, value)
    return ",".join(_forwards(field, term) for term in terms)


def _forwards(field: _Field, term: str) -> str:
    match = _RANGE.fullmatch(term)
    if match is None:
        return term
    start, end = (_number(field, word) for word in match.group(1, 2))
    if start is None or end is None or start <= end:
        return term
    step = int(match[3] or 1)
    if step == 0:
        raise _bad(field, term)
    # Sunday is 0 and 7.
    start = start % 7 if field.words is _DAYS else start
    parts = [range(start, field.high + 1), range(field.low, end + 1)]
    if start <= end:
        parts = [range(start, end + 1)]
    if step == 1:
        return ",".join(
            f"{part[0]}-{part[-1]}" if len(part) > 1 else str(part[0]) for part in parts
        )
    return ",".join(str(number) for number in [n for part in parts for n in part][::step])


def _number(field: _Field, word: str) -> int | None:
    """What a name or number stands for; None if it is none of this field's."""
    if word in field.words:
        return field.words.index(word) + field.low
    largest = 7 if field.words is _DAYS else field.high
    return (
        int(word)
        if word.isascii() and word.isdigit() and field.low <= int(word) <= largest
        else None
    )


def _blame(plain: Sequence[str], given: Sequence[str]) -> str:
    """Which field cronsim does not like; if none by itself, the day does not come."""
    for number, field in enumerate(_FIELDS):
        alone = ["*"] * 5
        alone[number] = plain[number]
        try:
            CronSim(" ".join(alone), _DAWN)
        except CronSimError:
            return str(_bad(field, given[number]))
    return _NEVER


def _bad(field: _Field, value: str) -> InvalidCron:
    return InvalidCron(f"{value[:40]!r} is no {field.name}; write {field.hint}")


def _duration(text: str) -> timedelta:
    if not _DURATION.fullmatch(text):
        raise InvalidCron("after @every comes a length such as 1h30m, 90s or 1.5h")
    parts = _DURATION_PART.findall(text)
    length = int(sum(Decimal(number) * _UNITS[unit] for number, unit in parts))
    if not to_length(SHORTEST_INTERVAL) <= length <= to_length(LONGEST_INTERVAL):
        raise InvalidCron("an interval lasts at least a second and at most ten years")
    return timedelta(microseconds=length)


def to_length(delta: timedelta) -> int:
    return delta // timedelta(microseconds=1)


def _spell(length: timedelta) -> str:
    left = to_length(length)
    words = []
    for unit, size in (("day", DAY), ("hour", 3600 * SECOND), ("minute", 60 * SECOND)):
        count, left = divmod(left, size)
        if count:
            words.append(f"{count} {unit}{'s' * (count != 1)}")
    if left:
        words.append(f"{left / SECOND:g} second{'s' * (left != SECOND)}")
    return " ".join(words)
