"""What a cron expression means, minute by minute: no cleverness, and nothing of jobs/ in it.

Every UTC minute of a week is looked at with the clock of the zone beside it, so which minutes of the
wall were skipped, and which were shown twice, is seen and not computed.
"""

from __future__ import annotations

import calendar
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from importlib import resources
from pathlib import Path
from zoneinfo import ZoneInfo

ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Africa/Casablanca",
    "Africa/Cairo",
    "Antarctica/Troll",
    "Pacific/Apia",
)
YEARS = (2006, 2035)
EXPRESSIONS = [
    line
    for line in (Path(__file__).parent.parent / "corpora" / "cron_expressions.txt")
    .read_text()
    .splitlines()
    if not line.startswith("#")
]
MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
DAY_NAMES = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
MONTH_NAMES = (
    *("JAN", "FEB", "MAR", "APR", "MAY", "JUN"),
    *("JUL", "AUG", "SEP", "OCT", "NOV", "DEC"),
)


# -- The clock on the wall -------------------------------------------------------------------------


@cache
def zone_of(name: str) -> ZoneInfo:
    path = resources.files("tzdata") / "zoneinfo"
    for part in name.split("/"):
        path = path / part
    with path.open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


@dataclass
class Week:
    """The minutes of some days in UTC, each with what a clock on the wall shows then."""

    zone: str
    start: datetime
    end: datetime
    # By day of the wall: (minute in UTC, minute of the day, whether it is shown for the first time)
    minutes: dict[date, list[tuple[datetime, int, bool]]] = field(default_factory=dict)
    # (minute in UTC after the gap, day, minute of the day that no clock showed)
    skipped: list[tuple[datetime, date, int]] = field(default_factory=list)


@cache
def changing_weeks(zone: str) -> list[datetime]:
    """The Mondays of all weeks in which the clock of the zone changes."""
    info = zone_of(zone)
    monday = datetime(YEARS[0], 1, 1, tzinfo=UTC)
    monday -= timedelta(days=monday.weekday())
    found = []
    while monday.year <= YEARS[1]:
        offsets = {
            (monday + timedelta(hours=hour)).astimezone(info).utcoffset()
            for hour in range(-1, 7 * 24, 24)
        }
        if len(offsets) > 1:
            found.append(monday)
        monday += timedelta(days=7)
    return found


def walk(zone: str, monday: datetime) -> Week:
    info = zone_of(zone)
    minute = timedelta(minutes=1)
    week = Week(zone, monday - timedelta(hours=2), monday + timedelta(days=7, hours=2))
    now = week.start
    # Begin a day early, to know what was already shown.
    now -= timedelta(days=1)
    furthest = now.astimezone(info).replace(tzinfo=None) - minute
    while now < week.end:
        shown = now.astimezone(info).replace(tzinfo=None)
        is_first = shown > furthest
        if now >= week.start:
            missing = furthest + minute
            while missing < shown:
                week.skipped.append((now, missing.date(), missing.hour * 60 + missing.minute))
                missing += minute
            of_day = week.minutes.setdefault(shown.date(), [])
            of_day.append((now, shown.hour * 60 + shown.minute, is_first))
        furthest = max(furthest, shown)
        now += minute
    return week


# -- The expression --------------------------------------------------------------------------------


class Matcher:
    def __init__(self, expression: str) -> None:
        fields = MACROS.get(expression, expression).upper().split()
        minute, hour, self.day, month, self.weekday = fields
        self.is_wildcard = minute[0] == "*" or hour[0] == "*"
        minutes, hours = numbers(minute, 0, 59), numbers(hour, 0, 23)
        self.times = {60 * h + m for h in hours for m in minutes}
        self.months = numbers(month, 1, 12, MONTH_NAMES)

    def fires(self, week: Week, gap: str = "fire") -> list[datetime]:
        """Every instant of the week, in order."""
        found = set()
        for day, minutes in week.minutes.items():
            if self.is_on(day):
                found |= {
                    now
                    for now, time, is_first in minutes
                    if time in self.times and (is_first or self.is_wildcard)
                }
        if gap == "fire" and not self.is_wildcard:
            found |= {
                after for after, day, time in week.skipped if time in self.times and self.is_on(day)
            }
        return sorted(found)

    def is_on(self, day: date) -> bool:
        if day.month not in self.months:
            return False
        by_day, by_weekday = self._by_day(day), self._by_weekday(day)
        if self.day[0] in "*?" or self.weekday[0] in "*?":
            return by_day and by_weekday
        return by_day or by_weekday

    def _by_day(self, day: date) -> bool:
        last = calendar.monthrange(day.year, day.month)[1]
        for term in self.day.split(","):
            if term == "L":
                if day.day == last:
                    return True
            elif term == "LW":
                weekdays = [
                    n for n in range(1, last + 1) if date(day.year, day.month, n).weekday() < 5
                ]
                if day.day == weekdays[-1]:
                    return True
            elif day.day in numbers(term, 1, 31):
                return True
        return False

    def _by_weekday(self, day: date) -> bool:
        number = day.isoweekday() % 7
        for term in self.weekday.split(","):
            if term.endswith("L"):
                is_last = (day + timedelta(days=7)).month != day.month
                if is_last and int(term[:-1]) % 7 == number:
                    return True
            elif "#" in term:
                name, nth = term.split("#")
                if number in weekdays_in(name) and (day.day - 1) // 7 + 1 == int(nth):
                    return True
            elif number in weekdays_in(term):
                return True
        return False


@cache
def numbers(text: str, low: int, high: int, names: tuple[str, ...] = ()) -> frozenset[int]:
    found: set[int] = set()
    for term in text.split(","):
        span, _, step = term.partition("/")
        if span in "*?":
            start, end = low, high
        elif "-" in span:
            start, end = (value(word, low, names) for word in span.split("-"))
        else:
            start = value(span, low, names)
            end = high if step else start
        if end < start:
            around = [*range(start, high + 1), *range(low, end + 1)]
        else:
            around = list(range(start, end + 1))
        found |= set(around[:: int(step or 1)])
    return frozenset(found)


def value(word: str, low: int, names: tuple[str, ...]) -> int:
    return names.index(word) + low if word in names else int(word)


def weekdays_in(term: str) -> frozenset[int]:
    """Sunday is 0, or 7 where a range ends with it."""
    if term == "7":
        return frozenset({0})
    is_star = term[0] in "*?"
    top = 7 if "-" in term and term.split("/")[0].endswith("7") else 6
    found = numbers(term, 0, 6 if is_star else top, DAY_NAMES)
    return frozenset(number % 7 for number in found)


# -- Comparing -------------------------------------------------------------------------------------


def next_after(fires: list[datetime], moment: datetime) -> datetime | None:
    return next((fire for fire in fires if fire > moment), None)


def each_week() -> Iterator[tuple[str, datetime]]:
    for zone in ZONES:
        for monday in changing_weeks(zone):
            yield zone, monday
