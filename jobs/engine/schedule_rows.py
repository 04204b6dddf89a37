"""The row of a schedule while somebody changes it: locked, told of, and saved."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connections, router, transaction

from clusters.deeds import deed, differences
from jobs.engine import arm, definition
from jobs.engine.clock import database_now
from jobs.engine.definition import EDITABLE
from jobs.errors import DuplicateSchedule, OutdatedSchedule, ScheduleNotFound
from jobs.models import Misfire, Schedule, ScheduleDependency, Timing
from jobs.secrets import shown_payload

TARGET = "schedule"
_STATE = ("is_paused", "pause_reason", "resume_at", "deleted_at", "effective_from")
_COLUMNS = sorted((EDITABLE - {"payload", "payload_bytes"}) | {*_STATE})


@contextmanager
def held(
    verb: str,
    pk: UUID,
    versions: Collection[int] | None = None,
    *,
    is_deleted: bool | None = False,
    exclusions: Any = None,
    reason: str = "",
) -> Iterator[tuple[Schedule, datetime, str]]:
    """The row, locked, with the database's time; what is changed of it must be saved.

    ``exclusions`` are those that it is to get.
    """
    using = router.db_for_write(Schedule)
    with deed(verb, TARGET, pk, using=using, reason=reason) as trace:
        definition.hold_calendars(using, exclusions)
        schedule = one(using, pk).select_for_update(no_key=True).first()
        if schedule is None or is_deleted is (schedule.deleted_at is None):
            raise ScheduleNotFound
        if versions is not None and schedule.version not in versions:
            raise OutdatedSchedule
        before = told_of(schedule) if trace.is_wanted else {}
        yield schedule, database_now(connections[using]), using
        if trace.is_wanted:
            now = one(using, pk).first()
            if now is not None:
                trace.before, trace.after = differences(before, told_of(now))
            else:
                trace.before = before


def one(using: str, pk: UUID) -> Any:
    return Schedule.objects.using(using).filter(pk=pk)


def told_of(schedule: Schedule) -> dict[str, Any]:
    """What a trace tells of a schedule; its secrets are masked as everywhere."""
    values = {name: getattr(schedule, name) for name in _COLUMNS}
    data = schedule.payload_bytes
    values["payload"] = shown_payload(schedule.kind, schedule.payload)
    values["payload_bytes"] = None if data is None else bytes(data)
    edges = ScheduleDependency.objects.using(schedule._state.db).filter(schedule_id=schedule.pk)
    before = edges.order_by("prerequisite_id").values_list("prerequisite_id", flat=True)
    values["depends_on"] = [str(pk) for pk in before]
    return values


def touch(schedule: Schedule, by: str, now: datetime) -> None:
    schedule.updated_by, schedule.updated_at = by[:200], now
    schedule.version += 1


def save(using: str, schedule: Schedule, *, is_new: bool = False) -> None:
    try:
        # A transaction of its own: the refusal must not spoil the one around it.
        with transaction.atomic(using=using):
            schedule.save(using=using, force_insert=is_new, force_update=not is_new)
    except IntegrityError:
        refuse_same_name(using, schedule)
        raise


def refuse_same_name(using: str, schedule: Schedule) -> None:
    """Refuse a name that another schedule has."""
    same = Schedule.objects.using(using).kept().filter(name__iexact=schedule.name)
    if same.exclude(pk=schedule.pk).exists():
        raise DuplicateSchedule(
            f"there is a schedule named {schedule.name!r}", field="name"
        ) from None


def go_on(using: str, schedule: Schedule, now: datetime) -> None:
    """Let a paused schedule go on from now."""
    # Not an edit: who wrote the definition, and with what rights, stays as it is.
    schedule.is_paused = schedule.is_paused_by_all = False
    schedule.paused_at = schedule.paused_by = schedule.pause_reason = schedule.resume_at = None
    if schedule.timing == Timing.INTERVAL:
        schedule.anchor_at = now
    arm.arm_or_park(schedule, now, definition.calendars_of(using, schedule))
    _catch_up_once(schedule, now)
    schedule.version += 1
    save(using, schedule)


def _catch_up_once(schedule: Schedule, now: datetime) -> None:
    """A one-time run whose moment came while the schedule was paused still has to happen."""
    is_late = schedule.timing == Timing.ONCE and schedule.last_due_at is None
    is_wanted = arm.is_running(schedule) and schedule.misfire != Misfire.SKIP
    if is_late and is_wanted and schedule.run_at is not None and schedule.run_at <= now:
        arm.set_next(schedule, schedule.run_at)
