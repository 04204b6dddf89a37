"""Calendars: named dates on which the schedules that name them do not run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from django.db import connections, router, transaction

from jobs.engine import arm
from jobs.engine.clock import database_now
from jobs.errors import InvalidSchedule
from jobs.exclusions import Exclusions
from jobs.models import Calendar, Schedule
from jobs.models.queue import QUEUE_NAME
from jobs.models.queue_policies import text_problem

MAX_DESCRIPTION_LENGTH = 500


def create(name: str, dates: Sequence[str], *, by: str, description: str = "") -> Calendar:
    """Make a calendar; it takes part when a schedule names it."""
    using = router.db_for_write(Calendar)
    calendar = Calendar(name=name, updated_by=by[:200], updated_at=database_now(connections[using]))
    if not re.match(QUEUE_NAME.regex, name):
        raise InvalidSchedule(f"a name has {QUEUE_NAME.message}", field="name")
    _set(calendar, dates, description)
    calendar.save(using=using, force_insert=True)
    return calendar


def change(name: str, *, by: str, dates: Sequence[str], description: str) -> Calendar:
    """Change a calendar; other dates move the next runs of the schedules that name it."""
    using = router.db_for_write(Calendar)
    with transaction.atomic(using=using):
        now = database_now(connections[using])
        rows = Calendar.objects.using(using).filter(name=name).select_for_update(no_key=True)
        calendar = rows.get()
        before = calendar.dates
        _set(calendar, dates, description)
        calendar.updated_by, calendar.updated_at = by[:200], now
        calendar.version += 1
        calendar.save(using=using, force_update=True)
        if calendar.dates != before:
            _arm_anew(using, name, now)
    return calendar


def _set(calendar: Calendar, dates: Any, description: str) -> None:
    if problem := text_problem(description, MAX_DESCRIPTION_LENGTH):
        raise InvalidSchedule(problem, field="description")
    read = Exclusions.parse({"dates": dates}, field="").dates
    calendar.dates, calendar.description = [day.isoformat() for day in sorted(read)], description


def _arm_anew(using: str, name: str, now: Any) -> None:
    rows = Schedule.objects.using(using).kept().filter(exclusions__has_key="calendars")
    for schedule in rows.order_by("pk").select_for_update(no_key=True):
        is_due = schedule.next_due_at is not None and schedule.next_due_at <= now
        if name not in schedule.exclusions["calendars"] or is_due:
            continue
        arm.arm(schedule, now, arm.calendars_of(using, [schedule]))
        schedule.version += 1
        schedule.save(using=using)
