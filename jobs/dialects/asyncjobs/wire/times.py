"""Moments and durations: whole nanoseconds as the original counts them, and never a float between."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import NamedTuple

SECOND_NS = 10**9
LARGEST_NS = 2**63 - 1
MAX_LENGTH = 200
_UNITS = {
    **{"ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000},
    **{"ms": 10**6, "s": SECOND_NS, "m": 60 * SECOND_NS, "h": 3600 * SECOND_NS},
}
_UNIT = "|".join(_UNITS)
_NUMBER = r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+"
_DURATION = re.compile(rf"([+-]?)((?:(?:{_NUMBER})(?:{_UNIT}))+)")
_PART = re.compile(rf"([0-9]*)\.?([0-9]*)({_UNIT})")
_MOMENT = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,50}))?"
    r"(?:Z|([+-])([0-9]{2}):([0-9]{2}))"
)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Moment(NamedTuple):
    """A moment, as it was written and in nanoseconds since 1970; ``at`` has its microseconds."""

    text: str
    ns: int
    at: datetime


def parse_moment(text: str) -> Moment | None:
    """A moment from RFC 3339, None for all else."""
    found = _MOMENT.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = found.groups()
    if hour == "24":
        return None
    offset = timedelta()
    if sign:
        if int(hours) > 23 or int(minutes) > 59:
            return None
        offset = timedelta(hours=int(hours), minutes=int(minutes)) * (1 if sign == "+" else -1)
    try:
        wall = datetime.fromisoformat(f"{year}-{month}-{day}T{hour}:{minute}:{second}")
        whole = wall.replace(tzinfo=timezone(offset))
        ns = int(f"{fraction or '':0<9}"[:9])
        at = whole.astimezone(UTC) + timedelta(microseconds=ns // 1000)
    except (ValueError, OverflowError):
        return None
    return Moment(text, (whole - _EPOCH) // timedelta(seconds=1) * SECOND_NS + ns, at)


def parse_moment_or_day(text: str) -> datetime | None:
    """The same, or the beginning of a day in UTC."""
    if _DAY.fullmatch(text):
        try:
            return datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
        except ValueError:
            return None
    moment = parse_moment(text)
    return None if moment is None else moment.at


def moment_to_wire(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_duration(text: str) -> int | None:
    """Nanoseconds of a duration such as ``1h30m``, None where it is none."""
    if text in ("0", "+0", "-0"):
        return 0
    found = _DURATION.fullmatch(text) if len(text) <= MAX_LENGTH else None
    if found is None:
        return None
    total = 0
    for whole, fraction, unit in _PART.findall(found[2]):
        size = _UNITS[unit]
        total += int(whole or "0") * size
        total += int(fraction or "0") * size // 10 ** len(fraction)
    if total > LARGEST_NS:
        return None
    return -total if found[1] == "-" else total


def seconds_of(ns: int) -> float:
    return float(Decimal(ns) / SECOND_NS)


def seconds_to_ns(seconds: float) -> int:
    """What a number of seconds is as it is written: the digits behind it would be those of its bits."""
    return round(Decimal(repr(float(seconds))) * SECOND_NS)
