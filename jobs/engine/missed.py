"""Runs that were missed, and the next one: what people decide about single instants.

A gap is the row of a fire in the state ``missed``: instants that nobody was there for and that the
schedule's own word for that left out. Afterwards somebody runs them, or says that they stay left out.
Which instants they were follows from the schedule's definition, so a gap of many can be run as long as
that still says the same about them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from django.db import connections, router
from uuid_utils.compat import uuid7

from clusters.deeds import deed
from jobs import timing
from jobs.engine import arm, workflows
from jobs.engine.clock import database_now
from jobs.engine.enqueue import enqueue_many
from jobs.engine.fire_plan import open_runs_of
from jobs.engine.fires import replace_soon
from jobs.engine.new_job import Origin
from jobs.engine.schedule_rows import held, save
from jobs.engine.schedule_work import made_by
from jobs.engine.started_kinds import check_schedule
from jobs.errors import FireNotFound, InvalidSchedule, JobError, ScheduleNotFound, ScheduleState
from jobs.models import (
    Fire,
    FireReason,
    FireState,
    Misfire,
    Overlap,
    Schedule,
    Timing,
    Total,
    TotalName,
)
from jobs.models.queue_policies import text_problem
from jobs.models.schedule import MAX_MISFIRES, MAX_REASON_LENGTH
from jobs.states import Trigger, WaitsFor

_INSTANT = timedelta(microseconds=1)


@dataclass(slots=True)
class Dealt:
    """What became of a gap."""

    job_ids: list[UUID] = field(default_factory=list)
    workflow_run_ids: list[UUID] = field(default_factory=list)
    # Instants of the gap that are missed as before.
    left: int = 0

    @property
    def runs(self) -> int:
        return len(self.job_ids) + len(self.workflow_run_ids)


class _Gap(NamedTuple):
    using: str
    schedule: Schedule
    row: Fire
    # Those that run, oldest first, and when.
    due: Sequence[datetime]
    now: datetime


def run_missed(pk: UUID, fire_id: UUID, which: str, *, by: str, reason: str = "") -> Dealt:
    """Run what a gap has left out: ``all`` of it, its ``latest`` instant, or none, to ``skip`` it.

    Of many the newest run, oldest first, and the rest stays a gap. Where no two runs may go on at a time
    each of them waits for the one before.
    """
    if which not in Misfire.values:
        raise InvalidSchedule(f"must be one of {', '.join(Misfire.values)}", field="which")
    if problem := text_problem(reason, MAX_REASON_LENGTH):
        raise InvalidSchedule(problem, field="reason")
    using = router.db_for_write(Schedule)
    with deed("schedules.run_missed", "schedule", pk, using=using, reason=reason) as trace:
        kept = Schedule.objects.using(using).kept().filter(pk=pk)
        schedule = kept.select_for_update(no_key=True).first()
        if schedule is None:
            raise ScheduleNotFound
        row = Fire.objects.using(using).filter(pk=fire_id, schedule_id=pk).first()
        if row is None:
            raise FireNotFound
        if row.state != FireState.MISSED:
            raise ScheduleState("that gap has been dealt with")
        trace.filter = {"due_at": row.due_at, "count": row.count}
        if which == Misfire.SKIP:
            dealt = _skip(using, row, by)
        else:
            check_schedule(schedule, using)
            due = _due(using, schedule, row, which)
            gap = _Gap(using, schedule, row, due, database_now(connections[using]))
            dealt = _start(gap, by)
            _write(gap, dealt)
        trace.count, trace.after = dealt.runs, {"which": which, "left": dealt.left}
    return dealt


def _skip(using: str, row: Fire, by: str) -> Dealt:
    row.state, row.detail = FireState.SKIPPED, f"left out by {by}"[:500]
    row.save(using=using, update_fields=["state", "detail"])
    return Dealt()


def _due(using: str, schedule: Schedule, row: Fire, which: str) -> list[datetime]:
    """The instants that are to run."""
    if not schedule.is_enabled:
        raise ScheduleState("the schedule is disabled")
    keep = MAX_MISFIRES if which == Misfire.ALL else 1
    if row.count == 1:
        return [row.due_at]
    if keep > 1 and _runs_one_alone(schedule):
        raise ScheduleState("its runs do not wait for each other: run the latest")
    rule = arm.rule_of(schedule, arm.calendars_of(using, [schedule]))
    last = row.last_due_at or row.due_at
    found = timing.missed(rule, row.due_at - _INSTANT, last, keep)
    if (found.count, found.first) != (row.count, row.due_at):
        raise ScheduleState("its definition says otherwise by now of when it was due: trigger it")
    return [*found.newest]


def _runs_one_alone(schedule: Schedule) -> bool:
    """Whether of many runs at once only one would come to its end."""
    if schedule.workflow_id is not None:
        return schedule.overlap != Overlap.ALLOW
    return schedule.overlap == Overlap.REPLACE


def _start(gap: _Gap, by: str) -> Dealt:
    schedule, row = gap.schedule, gap.row
    dealt = Dealt(left=row.count - len(gap.due))
    if schedule.workflow_id is not None:
        for at in gap.due:
            run = workflows.start_run(
                schedule.workflow_id, by=by, schedule_id=schedule.pk, due_at=at
            )
            dealt.workflow_run_ids.append(run.pk)
        return dealt
    is_live = bool(open_runs_of(gap.using, [schedule])[schedule.pk].live)
    jobs = []
    for at in gap.due:
        has_to_wait = schedule.overlap != Overlap.ALLOW and is_live
        waits_for = WaitsFor.RUN if has_to_wait else None
        origin = Origin(schedule.pk, Trigger.MANUAL, due_at=at, waits_for=waits_for)
        jobs.append(made_by(schedule, origin, gap.now, job_id=uuid7()))
        is_live = True
    try:
        dealt.job_ids = [UUID(made.job_id) for made in enqueue_many(jobs, by=by)]
    except JobError as error:
        error.index = None
        raise
    replace_soon(gap.using, schedule)
    return dealt


def _write(gap: _Gap, dealt: Dealt) -> None:
    """The rows of the instants that ran; what is left of the gap keeps its own."""
    using, schedule, row = gap.using, gap.schedule, gap.row
    fired = [Fire(schedule_id=schedule.pk, due_at=at, state=FireState.FIRED) for at in gap.due]
    for number, fire in enumerate(fired):
        fire.fired_at = gap.now
        fire.job_id = dealt.job_ids[number] if dealt.job_ids else None
        fire.workflow_run_id = dealt.workflow_run_ids[number] if dealt.workflow_run_ids else None
    rows = Fire.objects.using(using)
    if dealt.left:
        row.count, row.last_due_at = dealt.left, gap.due[0] - _INSTANT
        row.save(using=using, update_fields=["count", "last_due_at"])
    else:
        rows.filter(pk=row.pk).delete()
    rows.bulk_create(fired)
    schedule.last_run_at = gap.now
    schedule.last_job_id = dealt.job_ids[-1] if dealt.job_ids else schedule.last_job_id
    schedule.left_out = max(schedule.left_out - len(fired), 0)
    schedule.save(using=using, update_fields=["last_run_at", "last_job_id", "left_out"])
    counts: Counter[str] = Counter({FireState.FIRED: len(fired)})
    Total.objects.using(using).all().add(TotalName.FIRES, counts)


def skip_next(pk: UUID, *, by: str, reason: str = "") -> Schedule:
    """Leave out the next run of a schedule, and nothing else: the one after it is the next."""
    if problem := text_problem(reason, MAX_REASON_LENGTH):
        raise InvalidSchedule(problem, field="reason")
    with held("schedules.skip_next", pk, reason=reason) as (schedule, now, using):
        if schedule.timing == Timing.ONCE and schedule.pending is None:
            raise ScheduleState("it has one run only: disable or delete it")
        if schedule.next_due_at is None or schedule.next_run_at is None:
            raise ScheduleState("nothing of it is to come")
        if schedule.next_run_at <= now:
            raise ScheduleState("its next run is due already")
        calendars = arm.calendars_of(using, [schedule])
        due = _first_free(schedule, schedule.next_due_at, calendars)
        if due is None:
            raise ScheduleState("nothing of it is to come")
        # As long as the row is there no job is made for this instant, whatever arms the schedule anew.
        # It is kept from that instant on, as if a node had looked at it then.
        Fire.objects.using(using).create(
            schedule_id=pk,
            due_at=due,
            state=FireState.SKIPPED,
            reason=FireReason.EXCLUSION,
            detail=_told(by, reason),
            fired_at=due,
        )
        following = arm.next_due(schedule, due, calendars)
        after = following and _first_free(schedule, following.at, calendars)
        arm.set_next(schedule, after)
        schedule.left_out += 1
        schedule.version += 1
        save(using, schedule)
        Total.objects.using(using).all().add(
            TotalName.FIRES, Counter({str(FireReason.EXCLUSION): 1})
        )
    return schedule


def _first_free(schedule: Schedule, due: datetime, calendars: arm.Calendars) -> datetime | None:
    """This instant, or the first after it that nobody has left out."""
    rows = Fire.objects.using(schedule._state.db).filter(schedule_id=schedule.pk)
    while rows.filter(due_at=due).exists():
        following = arm.next_due(schedule, due, calendars)
        if following is None:
            return None
        due = following.at
    return due


def _told(by: str, reason: str) -> str:
    return (f"left out by {by}: {reason}" if reason else f"left out by {by}")[:500]
