"""Calendars: named dates on which the schedules that name them do not run.

Whoever changes one holds it and then locks its schedules, so that all of them follow the new dates at the
same moment; whoever lets a schedule name one holds it first, too, see ``definition.hold_calendars``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connections, router

from clusters.deeds import deed, differences
from jobs.engine import arm
from jobs.engine.clock import database_now
from jobs.errors import (
    CalendarInUse,
    CalendarNotFound,
    DuplicateCalendar,
    InvalidCalendar,
    InvalidSchedule,
    OutdatedSchedule,
)
from jobs.exclusions import Exclusions
from jobs.models import Calendar, Schedule
from jobs.models.queue import QUEUE_NAME, RESERVED_NAMES
from jobs.models.queue_policies import text_problem
from jobs.models.rewrite import rewrite

# As queues are named: both are parts of addresses.
_NAME = re.compile(QUEUE_NAME.regex)
TARGET = "calendar"
MAX_DESCRIPTION_LENGTH = 500
# Schedules that are named where a calendar is needed.
NAMED = 5
_ARMED = ("next_due_at", "next_run_at", "accounted_until", "tzdata", "error", "version")
_PORTION = 200


def create(name: str, dates: Sequence[str], *, by: str, description: str = "") -> Calendar:
    """Make a calendar; it takes part when a schedule names it."""
    using = router.db_for_write(Calendar)
    if not _NAME.match(name):
        raise InvalidCalendar(f"a name has {QUEUE_NAME.message}", field="name")
    if name in RESERVED_NAMES:
        raise InvalidCalendar("this name is part of an address of the API", field="name")
    calendar = Calendar(name=name, updated_by=by[:200], updated_at=database_now(connections[using]))
    _set(calendar, dates, description)
    try:
        with deed("calendars.create", TARGET, name, using=using) as trace:
            trace.after = _told_of(calendar)
            calendar.save(using=using, force_insert=True)
    except IntegrityError:
        if not Calendar.objects.using(using).filter(name=name).exists():
            raise
        raise DuplicateCalendar(f"there is a calendar named {name!r}", field="name") from None
    return calendar


def change(
    name: str,
    *,
    by: str,
    dates: Sequence[str] | None = None,
    description: str | None = None,
    versions: Collection[int] | None = None,
) -> Calendar:
    """Change a calendar; other dates move the next runs of the schedules that name it.

    What is due already is left alone, and nothing is run for the change.
    """
    with _held("calendars.change", name, versions) as (calendar, now, using):
        before = calendar.dates
        _set(
            calendar,
            before if dates is None else dates,
            calendar.description if description is None else description,
        )
        calendar.updated_by, calendar.updated_at = by[:200], now
        calendar.version += 1
        calendar.save(using=using, force_update=True)
        if calendar.dates != before:
            _arm_anew(using, [pk for pk, _ in users_of(using, name)], now)
    return calendar


def delete(name: str, *, versions: Collection[int] | None = None) -> None:
    """Delete a calendar that no schedule names."""
    with _held("calendars.delete", name, versions) as (calendar, _, using):
        if users := users_of(using, name):
            shown = ", ".join(repr(user) for _, user in users[:NAMED])
            raise CalendarInUse(f"{len(users)} schedule(s) name this calendar: {shown}")
        calendar.delete(using=using)


def get(name: str) -> Calendar:
    """The calendar of the bound cluster with this name."""
    found = Calendar.objects.filter(name=name).first()
    if found is None:
        raise CalendarNotFound
    return found


def users_of(using: str, name: str) -> list[tuple[UUID, str]]:
    """Ids and names of the schedules that name a calendar, by id; not of those that are deleted."""
    # Of those with exclusions few name a calendar; a list in JSON cannot be searched on SQLite.
    rows = Schedule.objects.using(using).kept().filter(exclusions__has_key="calendars")
    found = rows.order_by("pk").values_list("pk", "name", "exclusions")
    return [(pk, user) for pk, user, rules in found if name in rules["calendars"]]


# -- The row ---------------------------------------------------------------------------------------


@contextmanager
def _held(
    verb: str, name: str, versions: Collection[int] | None
) -> Iterator[tuple[Calendar, datetime, str]]:
    using = router.db_for_write(Calendar)
    with deed(verb, TARGET, name, using=using) as trace:
        rows = Calendar.objects.using(using).filter(name=name)
        calendar = rows.select_for_update(no_key=True).first()
        if calendar is None:
            raise CalendarNotFound
        if versions is not None and calendar.version not in versions:
            raise OutdatedSchedule("the calendar was changed since you read it; read it again")
        before = _told_of(calendar)
        yield calendar, database_now(connections[using]), using
        trace.before, trace.after = before, None
        if calendar.pk is not None:
            trace.before, trace.after = differences(before, _told_of(calendar))


def _told_of(calendar: Calendar) -> dict[str, Any]:
    return {"dates": [*calendar.dates], "description": calendar.description}


def _set(calendar: Calendar, dates: Any, description: str) -> None:
    if problem := text_problem(description, MAX_DESCRIPTION_LENGTH):
        raise InvalidCalendar(problem, field="description")
    try:
        read = Exclusions.parse({"dates": dates}, field="").dates
    except InvalidSchedule as error:
        raise InvalidCalendar(str(error), field=(error.field or "dates").lstrip(".")) from None
    calendar.dates, calendar.description = [day.isoformat() for day in sorted(read)], description


def _arm_anew(using: str, ids: Sequence[UUID], now: datetime) -> None:
    for start in range(0, len(ids), _PORTION):
        portion = ids[start : start + _PORTION]
        rows = Schedule.objects.using(using).kept().filter(pk__in=portion).order_by("pk")
        locked = list(rows.select_for_update(no_key=True))
        calendars = arm.calendars_of(using, locked)
        for schedule in locked:
            if schedule.next_due_at is not None and schedule.next_due_at <= now:
                continue
            arm.arm_or_park(schedule, now, calendars)
            schedule.version += 1
        rewrite(using, locked, _ARMED)
