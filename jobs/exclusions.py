"""When a schedule must not start: dates, weekdays, times of day, named calendars, public holidays.

All of it is judged by the clock on the wall of the schedule's zone, after any change of it. One match is
enough. A window over midnight belongs to the clock alone: 22:00-06:00 is every late evening and every
early morning, whatever the day.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import cached_property, lru_cache
from typing import Any, NamedTuple, TypeVar

from jobs.errors import InvalidSchedule
from jobs.zones import DAY, SECOND, Zone, to_date, to_micros

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MOST_DATES = 2000
MOST_RANGES = 20
MOST_NAMES = 20

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"[0-9]{2}:[0-9]{2}(:[0-9]{2})?")
_COUNTRY = re.compile(r"([A-Z]{2})(?:-([A-Z0-9]{1,4}))?")
_NUMBERS = {
    **{name.lower(): number for number, name in enumerate(WEEKDAYS)},
    **{name[:3].lower(): number for number, name in enumerate(WEEKDAYS)},
}
T = TypeVar("T")


class Span(NamedTuple):
    """A stretch of time all of which is excluded, or none of it."""

    start: int
    end: int
    is_excluded: bool


@dataclass(frozen=True)
class TimeRange:
    """From one time of day, up to but not including another, which may be that of the next day."""

    start: time
    end: time

    def __str__(self) -> str:
        return f"{_clock(self.start)}-{_clock(self.end)}"

    @property
    def parts(self) -> list[tuple[int, int]]:
        """The same within one day, in microseconds since midnight."""
        start, end = _since_midnight(self.start), _since_midnight(self.end)
        if start < end:
            return [(start, end)]
        return [(0, end), (start, DAY)] if end else [(start, DAY)]


@dataclass(frozen=True)
class Calendar:
    """A set of dates with a name."""

    name: str
    dates: frozenset[date]


@dataclass(frozen=True)
class Exclusions:
    """Rules of one schedule; false if there are none. `days_of_week` counts from Monday, 0."""

    dates: frozenset[date] = frozenset()
    days_of_week: frozenset[int] = frozenset()
    time_ranges: tuple[TimeRange, ...] = ()
    calendars: tuple[Calendar, ...] = ()
    countries: tuple[str, ...] = ()

    @classmethod
    def parse(
        cls,
        document: object,
        calendars: Mapping[str, Iterable[date]] | None = None,
        *,
        field: str = "exclusions",
    ) -> Exclusions:
        """Read a document; `calendars` are those that it may name."""
        return _Reader(field, calendars or {}).read(document)

    def __bool__(self) -> bool:
        return bool(
            self.dates or self.days_of_week or self.time_ranges or self.calendars or self.countries
        )

    def to_json(self) -> dict[str, Any]:
        """What `parse` reads; calendars by their names."""
        document = {
            "dates": [day.isoformat() for day in sorted(self.dates)],
            "days_of_week": [WEEKDAYS[number] for number in sorted(self.days_of_week)],
            "time_ranges": [
                {"start": _clock(one.start), "end": _clock(one.end)} for one in self.time_ranges
            ],
            "calendars": [calendar.name for calendar in self.calendars],
            "countries": list(self.countries),
        }
        return {key: value for key, value in document.items() if value}

    def reason(self, instant: datetime, zone: Zone) -> str | None:
        """Which rule excludes this instant; None if none does."""
        micros = to_micros(instant)
        wall = micros + zone.offset(micros)
        day = to_date(wall)
        if day in self.dates:
            return f"date {day.isoformat()}"
        if day.weekday() in self.days_of_week:
            return WEEKDAYS[day.weekday()]
        for one in self.time_ranges:
            if any(start <= wall % DAY < end for start, end in one.parts):
                return f"time {one}"
        for calendar in self.calendars:
            if day in calendar.dates:
                return f"calendar {calendar.name}"
        for country in self.countries:
            if name := holidays_of(country, day.year).get(day):
                return f"holiday {name} ({country})"
        return None

    def excludes(self, micros: int, zone: Zone) -> bool:
        wall = micros + zone.offset(micros)
        if self._is_closed(to_date(wall)):
            return True
        return any(start <= wall % DAY < end for start, end in self._closed_times)

    def spans(self, low: int, high: int, zone: Zone) -> Iterator[Span]:
        """All of [low, high), by turns free and excluded."""
        last: Span | None = None
        for span in self._pieces(low, high, zone):
            if last is None:
                last = span
            elif last.is_excluded == span.is_excluded:
                last = Span(last.start, span.end, last.is_excluded)
            else:
                yield last
                last = span
        if last is not None:
            yield last

    def _pieces(self, low: int, high: int, zone: Zone) -> Iterator[Span]:
        for start, end, offset, _ in zone.segments(low, high):
            wall, wall_end = start + offset, end + offset
            while wall < wall_end:
                midnight = wall // DAY * DAY
                day_end = min(midnight + DAY, wall_end)
                if self._is_closed(to_date(wall)):
                    yield Span(wall - offset, day_end - offset, True)
                    wall = day_end
                    continue
                for closed_from, closed_until in self._closed_times:
                    begin = max(midnight + closed_from, wall)
                    until = min(midnight + closed_until, day_end)
                    if begin < until:
                        if wall < begin:
                            yield Span(wall - offset, begin - offset, False)
                        yield Span(begin - offset, until - offset, True)
                        wall = until
                if wall < day_end:
                    yield Span(wall - offset, day_end - offset, False)
                wall = day_end

    def _is_closed(self, day: date) -> bool:
        """Whether all of the day is excluded, whatever the time."""
        return (
            day.weekday() in self.days_of_week
            or day in self.dates
            or any(day in calendar.dates for calendar in self.calendars)
            or any(day in holidays_of(country, day.year) for country in self.countries)
        )

    @cached_property
    def _closed_times(self) -> tuple[tuple[int, int], ...]:
        """The windows in ascending order, none touching another."""
        merged: list[tuple[int, int]] = []
        for start, end in sorted(part for one in self.time_ranges for part in one.parts):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(merged[-1][1], end))
            else:
                merged.append((start, end))
        return tuple(merged)


NOTHING = Exclusions()


@lru_cache(maxsize=1024)
def holidays_of(country: str, year: int) -> dict[date, str]:
    """Public holidays of a country or one of its parts, such as DE or DE-BY, with their names."""
    try:
        import holidays
    except ImportError:
        raise InvalidSchedule(
            "public holidays need the Python package holidays, which is not installed here"
        ) from None
    code, _, part = country.partition("-")
    try:
        found = holidays.country_holidays(code, subdiv=part or None, years=year, language="en_US")
    except NotImplementedError:
        raise InvalidSchedule(f"no public holidays are known of {country}") from None
    return dict(found.items())


class _Reader:
    """Reads one document, and says where it is wrong."""

    def __init__(self, field: str, calendars: Mapping[str, Iterable[date]]) -> None:
        self.field = field
        self.known = calendars

    def read(self, document: object) -> Exclusions:
        if document is None:
            return NOTHING
        if not isinstance(document, Mapping):
            raise InvalidSchedule("must be an object", field=self.field)
        readers: dict[str, tuple[Callable[[object, str], Any], int]] = {
            "dates": (self._date, MOST_DATES),
            "days_of_week": (self._weekday, len(_NUMBERS)),
            "time_ranges": (self._time_range, MOST_RANGES),
            "calendars": (self._calendar, MOST_NAMES),
            "countries": (self._country, MOST_NAMES),
        }
        for key in document:
            if key not in readers:
                known = ", ".join(readers)
                raise InvalidSchedule(
                    f"there is no such rule; known: {known}", field=f"{self.field}.{str(key)[:60]}"
                )
        values = {
            key: self._list(document.get(key), f"{self.field}.{key}", read, most)
            for key, (read, most) in readers.items()
        }
        return Exclusions(
            dates=frozenset(values["dates"]),
            days_of_week=frozenset(values["days_of_week"]),
            time_ranges=tuple(dict.fromkeys(values["time_ranges"])),
            calendars=tuple(dict.fromkeys(values["calendars"])),
            countries=tuple(dict.fromkeys(values["countries"])),
        )

    def _list(
        self, value: object, field: str, read: Callable[[object, str], T], most: int
    ) -> list[T]:
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            raise InvalidSchedule("must be a list", field=field)
        if len(value) > most:
            raise InvalidSchedule(f"at most {most} are possible", field=field)
        return [read(one, f"{field}[{number}]") for number, one in enumerate(value)]

    def _date(self, value: object, field: str) -> date:
        if isinstance(value, str) and _DATE.fullmatch(value):
            try:
                return date.fromisoformat(value)
            except ValueError:
                pass
        raise InvalidSchedule("must be a date such as 2026-12-25", field=field)

    def _weekday(self, value: object, field: str) -> int:
        number = _NUMBERS.get(value.lower()) if isinstance(value, str) else None
        if number is None:
            raise InvalidSchedule("must be a day such as Saturday or Sat", field=field)
        return number

    def _time_range(self, value: object, field: str) -> TimeRange:
        if not isinstance(value, Mapping) or set(value) != {"start", "end"}:
            raise InvalidSchedule("must be an object with start and end", field=field)
        found = TimeRange(
            self._time(value["start"], f"{field}.start"), self._time(value["end"], f"{field}.end")
        )
        if found.start == found.end:
            raise InvalidSchedule("must not be the same as start", field=f"{field}.end")
        return found

    def _time(self, value: object, field: str) -> time:
        if isinstance(value, str) and _TIME.fullmatch(value):
            try:
                return time.fromisoformat(value)
            except ValueError:
                pass
        raise InvalidSchedule("must be a time such as 22:00, from 00:00 to 23:59:59", field=field)

    def _calendar(self, value: object, field: str) -> Calendar:
        if not isinstance(value, str) or value not in self.known:
            raise InvalidSchedule("there is no such calendar", field=field)
        return Calendar(value, frozenset(self.known[value]))

    def _country(self, value: object, field: str) -> str:
        if not isinstance(value, str) or not _COUNTRY.fullmatch(value):
            raise InvalidSchedule("must be a country such as DE, or a part: DE-BY", field=field)
        try:
            holidays_of(value, 2000)
        except InvalidSchedule as error:
            error.field = field
            raise
        return value


def _since_midnight(one: time) -> int:
    return (one.hour * 3600 + one.minute * 60 + one.second) * SECOND


def _clock(one: time) -> str:
    return one.isoformat("seconds" if one.second else "minutes")
