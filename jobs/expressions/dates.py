"""Dates, durations and zones of expressions, with the layouts of Go's `time` package."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any

from jobs.errors import InvalidTimezone
from jobs.expressions.bounds import MAX_INTEGER, MIN_INTEGER, ExpressionError
from jobs.zones import zone

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_PART = re.compile(r"([0-9]{1,19})?(?:\.([0-9]{0,19}))?(ns|us|µs|μs|ms|s|m|h)")
_MAX_WRITTEN = 100


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    """A length of time in nanoseconds, of 64 bits as in Go."""

    nanoseconds: int

    def __post_init__(self) -> None:
        if not MIN_INTEGER <= self.nanoseconds <= MAX_INTEGER:
            raise ExpressionError("the duration is longer than 292 years")

    def __str__(self) -> str:
        """As Go writes it: 1h30m0s, 1.5s, 250ms."""
        length, sign = abs(self.nanoseconds), "-" if self.nanoseconds < 0 else ""
        if length < _UNITS["s"]:
            unit = next(
                unit for unit in ("ms", "µs", "ns") if length >= _UNITS[unit] or unit == "ns"
            )
            return f"{sign}{_decimal(length, _UNITS[unit])}{unit}" if length else "0s"
        minutes, rest = divmod(length, _UNITS["m"])
        hours, minutes = divmod(minutes, 60)
        shown = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
        return f"{sign}{shown}{_decimal(rest, _UNITS['s'])}s"

    def timedelta(self) -> timedelta:
        return timedelta(microseconds=self.nanoseconds // 1_000)


def _decimal(amount: int, unit: int) -> str:
    full, part = divmod(amount, unit)
    digits = str(part).rjust(len(str(unit)) - 1, "0").rstrip("0") if part else ""
    return f"{full}.{digits}" if digits else str(full)


def read_duration(written: str) -> Duration:
    """A duration from Go's way of writing it."""
    sign, rest = (-1, written[1:]) if written[:1] == "-" else (1, written.removeprefix("+"))
    if rest == "0":
        return Duration(0)
    total, position = 0, 0
    while position < len(rest) and len(rest) <= _MAX_WRITTEN:
        part = _PART.match(rest, position)
        if part is None or not (part[1] or part[2]):
            break
        unit, decimals = _UNITS[part[3]], part[2] or ""
        total += int(part[1] or 0) * unit + int(decimals or 0) * unit // 10 ** len(decimals)
        position = part.end()
    if not rest or position < len(rest):
        raise ExpressionError("this is no duration; write one such as 1h30m or 500ms")
    return Duration(sign * total)


@dataclass(frozen=True, slots=True)
class Place:
    """A time zone."""

    name: str
    rules: tzinfo

    def __str__(self) -> str:
        return self.name


def read_place(name: str) -> Place:
    try:
        return Place(name, UTC if name in ("", "UTC") else zone(name).info)
    except InvalidTimezone:
        raise ExpressionError("there is no such time zone") from None


@dataclass(frozen=True, slots=True, order=True)
class Moment:
    """An instant to the microsecond, and the zone that it is shown in."""

    instant: datetime
    rules: tzinfo = field(default=UTC, compare=False)

    @property
    def at(self) -> datetime:
        try:
            return self.instant.astimezone(self.rules)
        except OverflowError:
            raise _outside() from None

    def __str__(self) -> str:
        return self.format("2006-01-02 15:04:05.999999 -0700 MST")

    def rfc3339(self) -> str:
        return self.format("2006-01-02T15:04:05.999999Z07:00")

    def format(self, layout: str) -> str:
        if len(layout) > _MAX_WRITTEN:
            raise ExpressionError(f"a layout has at most {_MAX_WRITTEN} characters")
        return _TOKEN.sub(lambda token: _shown(token[0], self.at), layout)

    def moved(self, by: Duration) -> Moment:
        try:
            return Moment(self.instant + by.timedelta(), self.rules)
        except OverflowError:
            raise _outside() from None

    def since(self, other: Moment) -> Duration:
        return Duration((self.instant - other.instant) // timedelta(microseconds=1) * 1_000)

    def within(self, place: Place) -> Moment:
        return Moment(self.instant, place.rules)


def _outside() -> ExpressionError:
    return ExpressionError("the date lies outside the years 1 to 9999")


def now() -> Moment:
    return Moment(datetime.now(UTC))


_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
_TOKEN = re.compile(
    r"January|Jan|Monday|Mon|MST|2006|Z07:00|Z0700|Z07|-07:00|-0700|-07|002|_2"
    r"|01|02|03|04|05|06|15|PM|pm|[.,]0{1,9}(?![0-9])|[.,]9{1,9}(?![0-9])|[1-5]"
)
_PLAIN_FORMATS: dict[str, Callable[[datetime], str]] = {
    "2006": lambda at: f"{at.year:04d}",
    "06": lambda at: f"{at.year % 100:02d}",
    "January": lambda at: _MONTHS[at.month - 1],
    "Jan": lambda at: _MONTHS[at.month - 1][:3],
    "01": lambda at: f"{at.month:02d}",
    "1": lambda at: str(at.month),
    "Monday": lambda at: _DAYS[at.weekday()],
    "Mon": lambda at: _DAYS[at.weekday()][:3],
    "02": lambda at: f"{at.day:02d}",
    "_2": lambda at: f"{at.day:2d}",
    "2": lambda at: str(at.day),
    "002": lambda at: f"{at.timetuple().tm_yday:03d}",
    "15": lambda at: f"{at.hour:02d}",
    "03": lambda at: f"{(at.hour - 1) % 12 + 1:02d}",
    "3": lambda at: str((at.hour - 1) % 12 + 1),
    "04": lambda at: f"{at.minute:02d}",
    "4": lambda at: str(at.minute),
    "05": lambda at: f"{at.second:02d}",
    "5": lambda at: str(at.second),
    "PM": lambda at: "PM" if at.hour >= 12 else "AM",
    "pm": lambda at: "pm" if at.hour >= 12 else "am",
}


def _shown(part: str, at: datetime) -> str:
    if part in _PLAIN_FORMATS:
        return _PLAIN_FORMATS[part](at)
    if part[0] in ".,":
        digits = f"{at.microsecond * 1_000:09d}"[: len(part) - 1]
        digits = digits.rstrip("0") if part[1] == "9" else digits
        return f"{part[0]}{digits}" if digits else ""
    seconds = int((at.utcoffset() or timedelta()).total_seconds())
    sign, (hours, minutes) = "-" if seconds < 0 else "+", divmod(abs(seconds) // 60, 60)
    if part == "MST":
        named = not isinstance(at.tzinfo, timezone) or at.tzinfo is UTC
        return (at.tzname() or "") if named else _shown("-0700", at)
    if part[0] == "Z" and not seconds:
        return "Z"
    if part.endswith("07"):
        return f"{sign}{hours:02d}"
    return f"{sign}{hours:02d}{':' if ':' in part else ''}{minutes:02d}"


# What is read for a token: a pattern and the field it goes to.
_FRACTION = r"(?:[.,](?P<fraction>[0-9]{1,9}))?"
_READ = {
    "2006": ("year", "[0-9]{4}"),
    "06": ("short_year", "[0-9]{2}"),
    "January": ("month_name", "[A-Za-z]{3,9}"),
    "Jan": ("month_name", "[A-Za-z]{3}"),
    "01": ("month", "[0-9]{2}"),
    "1": ("month", "[0-9]{1,2}"),
    "Monday": ("weekday", "[A-Za-z]{6,9}"),
    "Mon": ("weekday", "[A-Za-z]{3}"),
    "02": ("day", "[0-9]{2}"),
    "2": ("day", "[0-9]{1,2}"),
    "_2": ("day", " ?[0-9]{1,2}"),
    "002": ("year_day", "[0-9]{3}"),
    "15": ("hour", "[0-9]{2}"),
    "03": ("hour", "[0-9]{2}"),
    "3": ("hour", "[0-9]{1,2}"),
    "04": ("minute", "[0-9]{2}"),
    "4": ("minute", "[0-9]{1,2}"),
    "05": ("second", "[0-9]{2}"),
    "5": ("second", "[0-9]{1,2}"),
    "PM": ("half", "[AP]M"),
    "pm": ("half", "[ap]m"),
    "MST": ("abbreviation", "[A-Z]{3,4}"),
}
_KNOWN_LAYOUTS = (
    "2006-01-02",
    "15:04:05",
    "2006-01-02 15:04:05",
    "2006-01-02T15:04:05Z07:00",
    "02 Jan 06 15:04 MST",
    "Monday, 02-Jan-06 15:04:05 MST",
    "Mon, 02 Jan 2006 15:04:05 MST",
)


def read_moment(written: str, layout: str | None, place: Place | None) -> Moment:
    """A date from its text: in this layout, or in one of the usual ones."""
    if len(written) > _MAX_WRITTEN or len(layout or "") > _MAX_WRITTEN:
        raise ExpressionError(f"a date and its layout have at most {_MAX_WRITTEN} characters")
    for known in (layout,) if layout is not None else _KNOWN_LAYOUTS:
        if (found := re.fullmatch(_pattern(known), written)) is not None:
            try:
                at = _moment(found.groupdict(), place.rules if place else UTC)
                return Moment(at.astimezone(UTC), at.tzinfo or UTC)
            except (ValueError, OverflowError):
                break
    raise ExpressionError(
        "this is no date in the layout asked for" if layout else "this is no date"
    )


def _pattern(layout: str) -> str:
    pieces, end, seen = [], 0, set()
    for token in _TOKEN.finditer(layout):
        pieces.append(re.escape(layout[end : token.start()]))
        end = token.end()
        if token[0][0] in ".,":
            part, pattern = "fraction", f"[0-9]{{{len(token[0]) - 1}}}"
            prefix = "[.,]"
        else:
            part, pattern = _READ.get(token[0], ("offset", _offset_pattern(token[0])))
            prefix = ""
        if part in seen:
            raise ExpressionError("the layout names a part of the date twice")
        seen.add(part)
        pieces.append(f"{prefix}(?P<{part}>{pattern})")
        # Go reads a fraction after the seconds whether or not the layout has one.
        if part == "second" and not re.match(r"[.,][09]", layout[end:]):
            pieces.append(_FRACTION)
            seen.add("fraction")
    return "".join(pieces) + re.escape(layout[end:])


def _offset_pattern(token: str) -> str:
    numbers = "[-+][0-9]{2}" + (
        "" if token.endswith("07") else ":[0-9]{2}" if ":" in token else "[0-9]{2}"
    )
    return f"Z|{numbers}" if token[0] == "Z" else numbers


def _moment(found: dict[str, Any], rules: tzinfo) -> datetime:
    year = int(found.get("year") or 1)
    if short := found.get("short_year"):
        year = int(short) + (1900 if int(short) >= 69 else 2000)
    month = int(found.get("month") or 1)
    if name := found.get("month_name"):
        month = [full[:3].lower() for full in _MONTHS].index(name[:3].lower()) + 1
    hour = int(found.get("hour") or 0)
    if half := found.get("half"):
        if not 1 <= hour <= 12:
            raise ValueError(hour)
        hour = hour % 12 + (12 if half.upper() == "PM" else 0)
    if (abbreviation := found.get("abbreviation")) and abbreviation not in ("UTC", "GMT"):
        raise ValueError(abbreviation)
    micros = int((found.get("fraction") or "0")[:6].ljust(6, "0"))
    zone_rules = _offset(found["offset"]) if found.get("offset") else UTC if abbreviation else rules
    at = datetime(
        year,
        month,
        int(found.get("day") or 1),
        hour,
        int(found.get("minute") or 0),
        int(found.get("second") or 0),
        micros,
        tzinfo=zone_rules,
    )
    return at + timedelta(days=int(found["year_day"]) - 1) if found.get("year_day") else at


def _offset(written: str) -> tzinfo:
    if written == "Z":
        return UTC
    hours, minutes = int(written[1:3]), int(written[3:].removeprefix(":") or 0)
    length = timedelta(hours=hours, minutes=minutes)
    return timezone(-length if written[0] == "-" else length) if length else UTC


def _year_day(moment: Moment) -> int:
    return moment.at.timetuple().tm_yday


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UTC = Place("UTC", UTC)
# What may be asked of a date and of a duration, by name: the kinds of the arguments and the answer.
MOMENT_METHODS: dict[str, tuple[tuple[type, ...], Any]] = {
    "Year": ((), lambda moment: moment.at.year),
    "Month": ((), lambda moment: moment.at.month),
    "Day": ((), lambda moment: moment.at.day),
    "Hour": ((), lambda moment: moment.at.hour),
    "Minute": ((), lambda moment: moment.at.minute),
    "Second": ((), lambda moment: moment.at.second),
    "Nanosecond": ((), lambda moment: moment.at.microsecond * 1_000),
    "Weekday": ((), lambda moment: moment.at.isoweekday() % 7),
    "YearDay": ((), _year_day),
    "Unix": ((), lambda moment: (moment.instant - _EPOCH) // timedelta(seconds=1)),
    "UnixMilli": ((), lambda moment: (moment.instant - _EPOCH) // timedelta(milliseconds=1)),
    "Format": ((str,), Moment.format),
    "String": ((), Moment.__str__),
    "UTC": ((), lambda moment: moment.within(_UTC)),
    "In": ((Place,), Moment.within),
    "Add": ((Duration,), Moment.moved),
    "Sub": ((Moment,), Moment.since),
    "Before": ((Moment,), lambda moment, other: moment < other),
    "After": ((Moment,), lambda moment, other: moment > other),
    "Equal": ((Moment,), lambda moment, other: moment == other),
}
DURATION_METHODS: dict[str, tuple[tuple[type, ...], Any]] = {
    "Hours": ((), lambda duration: duration.nanoseconds / _UNITS["h"]),
    "Minutes": ((), lambda duration: duration.nanoseconds / _UNITS["m"]),
    "Seconds": ((), lambda duration: duration.nanoseconds / _UNITS["s"]),
    "Milliseconds": ((), lambda duration: int(duration.nanoseconds / _UNITS["ms"])),
    "Microseconds": ((), lambda duration: int(duration.nanoseconds / _UNITS["us"])),
    "Nanoseconds": ((), lambda duration: duration.nanoseconds),
    "String": ((), Duration.__str__),
}
PLACE_METHODS: dict[str, tuple[tuple[type, ...], Any]] = {"String": ((), Place.__str__)}
METHODS = {Moment: MOMENT_METHODS, Duration: DURATION_METHODS, Place: PLACE_METHODS}
