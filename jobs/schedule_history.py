"""What was done to a schedule and what became of its instants, as far as the rows tell.

The audit keeps what was done, and the schedule's row who made it and who changed it last; runs that
people started, and instants that made no run, have rows of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from clusters.models import AuditEntry
from jobs.models import Fire, FireState, Job, Schedule
from jobs.states import Trigger

# Of each sort the newest.
MAX_DEEDS = 1000


class Deed(NamedTuple):
    at: datetime
    # one of ACTIONS, or triggered, retried, skipped, missed
    action: str
    # None: the schedule itself.
    by: str | None
    # Of the run or the instant; the schedule's where it is about that.
    id: UUID
    about: dict[str, Any]
    address: str = ""


# Verbs of the audit, where they are told of; runs that people started have rows of their own.
ACTIONS = {
    "schedules.create": "created",
    "schedules.import": "imported",
    "schedules.change": "changed",
    "schedules.reschedule": "rescheduled",
    "schedules.restore": "restored",
    "schedules.pause": "paused",
    "schedules.resume": "resumed",
    "schedules.delete": "deleted",
}


def deeds_of(schedule: Schedule) -> list[Deed]:
    """The newest first."""
    audited = list(_audited(schedule))
    told = {deed.action for deed in audited}
    # The audit tells more; what it does not know was done where none is written.
    rest = (deed for deed in _of_row(schedule) if deed.action not in told)
    deeds = [*audited, *rest, *_runs(schedule), *_left_out(schedule)]
    return sorted(deeds, key=lambda deed: (deed.at, deed.id), reverse=True)


def _audited(schedule: Schedule) -> Iterator[Deed]:
    entries = AuditEntry.objects.using(schedule._state.db).filter(
        target_type="schedule", target_id=str(schedule.pk), verb__in=ACTIONS
    )
    for entry in entries.order_by("-at", "-id")[:MAX_DEEDS]:
        about = {"before": entry.before, "after": entry.after, "reason": entry.reason or None}
        yield Deed(entry.at, ACTIONS[entry.verb], entry.actor, entry.pk, about, entry.address)


def _of_row(schedule: Schedule) -> Iterator[Deed]:
    pk = schedule.pk
    about: dict[str, Any]
    yield Deed(schedule.created_at, "created", schedule.created_by, pk, {})
    if schedule.deleted_at is not None:
        yield Deed(schedule.deleted_at, "deleted", schedule.updated_by, pk, {})
    elif schedule.updated_at > schedule.created_at and schedule.updated_at != schedule.paused_at:
        about = {"version": schedule.version}
        yield Deed(schedule.updated_at, "changed", schedule.updated_by, pk, about)
    if schedule.paused_at is not None:
        about = {
            "reason": schedule.pause_reason,
            "until": schedule.resume_at,
            "is_for_all": schedule.is_paused_by_all,
        }
        yield Deed(schedule.paused_at, "paused", schedule.paused_by, pk, about)


def _runs(schedule: Schedule) -> Iterator[Deed]:
    jobs = Job.objects.using(schedule._state.db).filter(
        schedule_id=schedule.pk, trigger__in=(Trigger.MANUAL, Trigger.RETRY)
    )
    found = jobs.order_by("-created_at", "-pk").values_list(
        "pk", "created_at", "enqueued_by", "trigger", "copy_of"
    )
    for pk, at, by, trigger, copy_of in found[:MAX_DEEDS]:
        action = "retried" if trigger == Trigger.RETRY else "triggered"
        yield Deed(at, action, by, pk, {"job_id": pk, "copy_of": copy_of})


def _left_out(schedule: Schedule) -> Iterator[Deed]:
    fires = Fire.objects.using(schedule._state.db).filter(schedule_id=schedule.pk)
    for fire in fires.exclude(state=FireState.FIRED).order_by("-due_at")[:MAX_DEEDS]:
        about = {
            "due_at": fire.due_at,
            "last_due_at": fire.last_due_at,
            "count": fire.count,
            "reason": fire.reason,
            "detail": fire.detail,
        }
        yield Deed(fire.fired_at, str(fire.state), None, fire.pk, about)
