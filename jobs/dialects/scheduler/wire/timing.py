"""When a job runs and when it must not: schedules, exclusions, dependencies, previews."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from jobs.dialects.scheduler.wire.reading import Reader, read_guid
from jobs.dialects.scheduler.wire.words import (
    CONDITIONS,
    DAYS,
    SCHEDULE_TYPE_NUMBERS,
    SCHEDULE_TYPES,
    TYPE_OF_TIMING,
    WORD_OF_NEEDS,
    number_to_wire,
    time_to_wire,
)
from jobs.models import Schedule, Timing
from jobs.timing import Occurrence

MAX_INTERVAL_SECONDS = 10 * 366 * 86_400
MAX_EXPRESSION = 200
MAX_PREREQUISITES = 100
_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9])?\Z")
_COMPANION = {
    Timing.CRON: ("scheduleExpression", "expression"),
    Timing.INTERVAL: ("intervalSeconds", "interval_seconds"),
    Timing.ONCE: ("runAt", "run_at"),
}


def timing_from_wire(reader: Reader, stored: Schedule | None = None) -> dict[str, Any]:
    """The timing with its own companion; those of the other types are checked and left out."""
    word = reader.choice("scheduleType", tuple(SCHEDULE_TYPES), SCHEDULE_TYPE_NUMBERS)
    given = {
        "expression": reader.text("scheduleExpression", most=MAX_EXPRESSION),
        "interval_seconds": reader.integer("intervalSeconds", 1, MAX_INTERVAL_SECONDS),
        "run_at": reader.moment("runAt"),
    }
    if stored is None:
        reader.need("scheduleType")
    if "scheduleType" in reader:
        timing = SCHEDULE_TYPES.get(word or "")
    else:
        timing = Timing(stored.timing) if stored is not None else None
    if timing is None:
        return {}
    name, column = _COMPANION[timing]
    values: dict[str, Any] = {} if word is None else {"timing": timing.value}
    is_stored = stored is not None and stored.timing == timing
    if name in reader:
        if given[column] is not None:
            values[column] = given[column]
    elif not is_stored:
        reader.refuse(name, f"This field is required where scheduleType is {word}.", "required")
    return values


def timing_to_wire(values: Any) -> dict[str, Any]:
    """Of a schedule, or of what waits for its time."""
    if isinstance(values, Schedule):
        values = {
            "timing": values.timing,
            "expression": values.expression,
            "interval_seconds": values.interval_seconds,
            "run_at": values.run_at,
        }
    run_at = values.get("run_at")
    if isinstance(run_at, str):
        run_at = datetime.fromisoformat(run_at)
    return {
        "scheduleType": TYPE_OF_TIMING[values["timing"]],
        "scheduleExpression": values.get("expression"),
        "intervalSeconds": number_to_wire(values.get("interval_seconds")),
        "runAt": time_to_wire(run_at),
    }


def pending_to_wire(schedule: Schedule) -> dict[str, Any] | None:
    if schedule.pending is None:
        return None
    return {
        **timing_to_wire(schedule.pending),
        "effectiveFrom": time_to_wire(schedule.effective_from),
    }


def occurrence_to_wire(one: Occurrence) -> dict[str, Any]:
    return {
        "runAt": time_to_wire(one.instant),
        "localTime": one.local.replace(tzinfo=None).isoformat(),
        "isOnClockChange": one.is_on_clock_change,
        "isExcluded": one.excluded is not None,
        "excludedBy": one.excluded,
    }


# -- Exclusions ------------------------------------------------------------------------------------


def exclusions_from_wire(reader: Reader) -> dict[str, Any]:
    """The document of ``jobs.exclusions``, which checks dates and days; times are checked here."""
    document: dict[str, Any] = {}
    for name, ours in (
        ("excludedDates", "dates"),
        ("excludedDaysOfWeek", "days_of_week"),
        ("calendars", "calendars"),
        ("countries", "countries"),
    ):
        value = reader.raw(name)
        if value is not None and not isinstance(value, list):
            reader.refuse(name, "Must be a list.")
        elif value:
            document[ours] = value
    if days := document.get("days_of_week"):
        document["days_of_week"] = [_day(item) for item in days]
    ranges = reader.items("timeRanges", _time_range, 50) or []
    last = reader.raw("timeRange")
    if last is not None:
        one = _time_range(last, reader.field("timeRange"))
        # What comes out as the last of the list may go in beside it again.
        ranges = [other for other in ranges if other != one] + [one]
    if ranges:
        document["time_ranges"] = ranges
    return document


def _day(item: Any) -> Any:
    if isinstance(item, int) and not isinstance(item, bool) and 0 <= item <= 6:
        return DAYS[item]
    return DAYS[int(item)] if isinstance(item, str) and item in "0123456" and item else item


def _time_range(item: Any, field: str) -> dict[str, str]:
    reader = Reader(item, field)
    reader.need("start", "end")
    found: dict[str, str] = {}
    for name in ("start", "end"):
        value = reader.text(name)
        if value is None:
            continue
        if not _TIME_OF_DAY.match(value):
            reader.refuse(name, "Must be a time of day such as 22:00 or 22:00:30.")
        found[name] = value.removesuffix(":00") if len(value) == 8 else value
    if not reader.errors and found["start"] == found["end"]:
        reader.refuse("end", "Must not be the same as start.")
    reader.done()
    return found


def exclusions_to_wire(schedule: Schedule) -> dict[str, Any] | None:
    document = schedule.exclusions
    if not document:
        return None
    ranges = document.get("time_ranges", [])
    return {
        "excludedDates": document.get("dates", []),
        "excludedDaysOfWeek": document.get("days_of_week", []),
        "timeRange": ranges[-1] if ranges else None,
        "timeRanges": ranges,
        "calendars": document.get("calendars", []),
        "countries": document.get("countries", []),
    }


# -- Dependencies ----------------------------------------------------------------------------------


def dependencies_from_wire(reader: Reader) -> tuple[list[UUID], str]:
    """The jobs that come before, and how many of them must have succeeded."""
    reader.need("dependsOnJobIds", "condition")
    ids = reader.items("dependsOnJobIds", read_guid, MAX_PREREQUISITES)
    if ids == [] and not reader.errors:
        reader.refuse("dependsOnJobIds", "Must name at least one job.")
    condition = reader.choice("condition", tuple(CONDITIONS))
    return ids or [], str(CONDITIONS[condition].value) if condition else ""


def dependencies_to_wire(
    schedule: Schedule, ids: Sequence[UUID], names: Mapping[UUID, str] | None = None
) -> dict[str, Any] | None:
    if not ids:
        return None
    shown: dict[str, Any] = {
        "dependsOnJobIds": [str(pk) for pk in ids],
        "condition": WORD_OF_NEEDS[schedule.needs],
    }
    if names is not None:
        shown["dependsOnJobNames"] = [names[pk] for pk in ids if pk in names]
    return shown


def warnings_of(prerequisites: Iterable[Schedule]) -> list[str]:
    """What keeps jobs from succeeding that another one waits for."""
    warnings = []
    for one in prerequisites:
        why = "deleted" if one.deleted_at else "paused" if one.is_paused else "disabled"
        if one.deleted_at or one.is_paused or not one.is_enabled:
            warnings.append(f"{one.name} is {why}")
    return warnings
