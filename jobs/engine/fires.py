"""Fires: due schedules become jobs, each instant of each schedule exactly once.

Any node may do it. A batch of due schedules is locked, and in one transaction every instant that is dealt
with gets its row in ``fire``, those that run get a job, and the schedules get their next instant, which
follows from the last one and never from now. Whatever is in the way of one schedule is written down with
it and keeps no other from its turn.

``fire_plan`` decides what becomes of each instant; ``run_upkeep`` has the duties beside this one.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID

from django.db import InterfaceError, OperationalError, connections, router, transaction
from uuid_utils.compat import uuid7

from clusters.deeds import deed
from clusters.policy import ClusterPolicy
from jobs.engine import arm, workflows
from jobs.engine.clock import database_now
from jobs.engine.edit import UNCHANGED, Unchanged
from jobs.engine.enqueue import enqueue_many
from jobs.engine.fire_plan import OpenRuns, Plan, check_rights, open_runs_of, park, planned
from jobs.engine.new_job import NewJob, Origin
from jobs.engine.schedule_work import made_by
from jobs.engine.started_kinds import check_kinds, check_schedule
from jobs.errors import InvalidSchedule, JobError, ScheduleNotFound, ScheduleState
from jobs.executors import kinds_started
from jobs.models import (
    Fire,
    FireReason,
    FireState,
    Job,
    Overlap,
    Schedule,
    ScheduleDependency,
    Total,
    TotalName,
)
from jobs.models.rewrite import rewrite
from jobs.models.runs import is_gate_open
from jobs.models.schedule_queryset import ScheduleQuerySet
from jobs.sealing import is_sealed
from jobs.states import State, Trigger, WaitsFor

logger = logging.getLogger(__name__)


class Made(NamedTuple):
    """What a trigger made: a job, or the run of a workflow."""

    job_id: UUID | None
    workflow_run_id: UUID | None


# Schedules of one transaction.
BATCH = 200
# Transactions of one call; other upkeep is done in between.
ROUNDS = 10
# How soon a schedule is looked at again whose next instant has to wait for a run.
LOOK_AGAIN = timedelta(seconds=1)
# What the error of a run begins with that gave way to the next one.
SUPERSEDED = "superseded:"
# After so many refusals in a batch each schedule is done alone.
REFUSALS = 3


def fire_due(using: str, policy: ClusterPolicy) -> int:
    """Fire what is due; returns how many schedules were dealt with. Any number of nodes may do this."""
    done = 0
    for _ in range(ROUNDS):
        # The look outside the transaction keeps idle nodes from taking SQLite's write lock.
        due = Schedule.objects.using(using).due()
        if not due.exists():
            break
        try:
            fired = _fire_batch(using, due, BATCH)
        except (OperationalError, InterfaceError):
            # A lock, a slow statement, no database: no fault of a schedule.
            raise
        except Exception:
            logger.exception("a batch of due schedules failed; each of them is done alone")
            fired = _fire_alone(using, due.values_list("pk", flat=True)[:BATCH])
        done += fired
        if fired < BATCH:
            break
    return done


def _fire_alone(using: str, ids: Iterable[UUID]) -> int:
    """One that cannot be fired must not keep the others waiting: it is parked."""
    done = 0
    for pk in ids:
        due = Schedule.objects.using(using).due().filter(pk=pk)
        try:
            done += _fire_batch(using, due, 1)
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            logger.exception("schedule %s cannot be fired; it is parked", pk)
            done += due.order_by().park(f"{type(error).__name__}: {error}")
    return done


def _fire_batch(using: str, due: ScheduleQuerySet, size: int) -> int:
    with transaction.atomic(using=using):
        skip = connections[using].features.has_select_for_update_skip_locked
        schedules = list(due.select_for_update(no_key=True, skip_locked=skip)[:size])
        if not schedules:
            return 0
        now = database_now(connections[using])
        calendars = arm.calendars_of(using, schedules)
        open_runs = open_runs_of(using, schedules)
        plans = [planned(one, now, calendars, open_runs) for one in schedules]
        check_rights(using, plans)
        written = _write(using, plans, open_runs, now)
        for plan in plans:
            _advanced(plan, now, calendars)
        _save(using, plans)
        Total.objects.using(using).all().add(TotalName.FIRES, written)
    _replace(using, plans)
    return len(schedules)


# -- What is written -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Start:
    plan: Plan
    fire: Fire
    waits_for: str | None = None
    superseded: list[UUID] = field(default_factory=list)


def _write(
    using: str, plans: Sequence[Plan], open_runs: Mapping[UUID, OpenRuns], now: datetime
) -> Counter[str]:
    """The rows of fires first: who finds one there already makes no second job for it. Returns how many
    instants fired, and how many did not by reason."""
    starts = [_Start(plan, _fired(plan.schedule, at)) for plan in plans for at in plan.due]
    rows = [*(start.fire for start in starts), *_rows_of(plans)]
    fresh = _insert_fires(using, rows, now)
    starts = [start for start in starts if start.fire.pk in fresh]
    _decide_waits(using, starts, open_runs, now)
    jobs = [start for start in starts if start.plan.schedule.workflow_id is None]
    _enqueue(using, jobs, now)
    for start in starts:
        if start.plan.schedule.workflow_id is not None:
            _start_workflow(using, start)
    for plan in plans:
        plan.schedule.left_out += sum(row.count for row in plan.left_out)
    counts: Counter[str] = Counter()
    for row in rows:
        # A job may have been refused meanwhile.
        counts[row.reason or row.state] += row.count if row.pk in fresh else 0
    return counts


def _fired(schedule: Schedule, at: datetime) -> Fire:
    """The row of an instant that runs; the job's id is known before the job is made."""
    job_id = uuid7() if schedule.workflow_id is None else None
    return Fire(schedule_id=schedule.pk, due_at=at, state=FireState.FIRED, job_id=job_id)


def _rows_of(plans: Iterable[Plan]) -> list[Fire]:
    return [row for plan in plans for row in plan.left_out]


def _insert_fires(using: str, fires: Sequence[Fire], now: datetime) -> set[UUID]:
    """Insert those that are not there; returns the ids of the new ones."""
    if not fires:
        return set()
    for fire in fires:
        fire.pk = fire.pk or uuid7()
        fire.fired_at = now
    rows = Fire.objects.using(using)
    rows.bulk_create(fires, ignore_conflicts=True)
    return set(rows.filter(pk__in=[fire.pk for fire in fires]).values_list("pk", flat=True))


def _decide_waits(
    using: str, starts: Sequence[_Start], runs: Mapping[UUID, OpenRuns], now: datetime
) -> None:
    """Which runs must wait: for schedules they depend on, or for the run before to be dead."""
    schedules = {start.plan.schedule.pk: start.plan.schedule for start in starts}
    edges = ScheduleDependency.objects.using(using).filter(schedule_id__in=list(schedules))
    gates: dict[UUID, list[datetime | None]] = {}
    for schedule_id, succeeded_at in edges.values_list(
        "schedule_id", "prerequisite__last_succeeded_at"
    ):
        gates.setdefault(schedule_id, []).append(succeeded_at)
    held = {pk: [*runs[pk].for_schedules] for pk in gates}
    for start in starts:
        schedule = start.plan.schedule
        if schedule.pk in gates and not is_gate_open(schedule, gates[schedule.pk]):
            start.waits_for = WaitsFor.SCHEDULES
            # Those of the same turn, too: one success lets one run go.
            start.superseded = [*held[schedule.pk]]
            held[schedule.pk] += [start.fire.job_id] if start.fire.job_id else []
            continue
        if schedule.pk in gates:
            schedule.dependencies_since = now
        if schedule.overlap in (Overlap.QUEUE_ONE, Overlap.REPLACE) and runs[schedule.pk].live:
            start.waits_for = WaitsFor.RUN


def _enqueue(using: str, starts: Sequence[_Start], now: datetime) -> None:
    """Enqueue the jobs; who is refused has that written into his fire."""
    left = list(starts)
    refused = 0
    while left:
        batch = left if refused < REFUSALS else left[:1]
        try:
            with transaction.atomic(using=using):
                enqueue_many([_new_job(start, now) for start in batch], by="schedules")
        except JobError as error:
            refused += 1
            bad = batch[error.index or 0]
            left.remove(bad)
            _refuse(using, bad, error)
            continue
        left = left[len(batch) :]
        for start in batch:
            schedule = start.plan.schedule
            schedule.last_job_id, schedule.last_run_at = start.fire.job_id, now
    superseded = [pk for start in starts for pk in start.superseded if start.fire.job_id]
    if superseded:
        _supersede(using, superseded)


def _new_job(start: _Start, now: datetime) -> NewJob:
    schedule, due_at = start.plan.schedule, start.fire.due_at
    return made_by(
        schedule,
        Origin(
            schedule_id=schedule.pk,
            trigger=Trigger.SCHEDULE,
            due_at=due_at,
            waits_for=start.waits_for,
        ),
        now,
        job_id=start.fire.job_id,
    )


def _refuse(using: str, start: _Start, error: JobError) -> None:
    fire = start.fire
    fire.state, fire.reason, fire.job_id = FireState.SKIPPED, FireReason.REFUSED, None
    fire.detail = f"{error.field or 'job'}: {error}"[:500]
    fire.save(using=using, update_fields=["state", "reason", "detail", "job_id"])
    start.plan.schedule.left_out += 1
    logger.warning("schedule %s: %s", start.plan.schedule.pk, fire.detail)


def _start_workflow(using: str, start: _Start) -> None:
    schedule = start.plan.schedule
    assert schedule.workflow_id is not None
    try:
        with transaction.atomic(using=using):
            run = workflows.start_run(
                schedule.workflow_id,
                by="schedules",
                trigger=Trigger.SCHEDULE,
                schedule_id=schedule.pk,
                due_at=start.fire.due_at,
            )
    except JobError as error:
        _refuse(using, start, error)
        return
    start.fire.workflow_run_id = run.pk
    start.fire.save(using=using, update_fields=["workflow_run_id"])
    schedule.last_run_at = run.created_at


def trigger(pk: UUID, *, by: str, payload: Any = UNCHANGED, even_disabled: bool = False) -> Made:
    """Run a schedule now, whatever its timing, its exclusions and what it depends on say.

    The next run stays where it is. Where two runs may not go on at a time, this one waits for the one
    before, which is asked to stop where new runs replace old ones. ``payload`` takes the place of the
    schedule's for this run.
    """
    using = router.db_for_write(Schedule)
    with deed("schedules.trigger", "schedule", pk, using=using) as trace:
        row = Schedule.objects.using(using).kept().filter(pk=pk)
        schedule = row.select_for_update(no_key=True).first()
        if schedule is None:
            raise ScheduleNotFound
        if not schedule.is_enabled and not even_disabled:
            raise ScheduleState("the schedule is disabled", code="disabled")
        check_schedule(schedule, using)
        now = database_now(connections[using])
        if schedule.workflow_id is not None:
            if not isinstance(payload, Unchanged):
                raise InvalidSchedule("a run of a workflow takes no payload", field="payload")
            run = workflows.start_run(schedule.workflow_id, by=by, schedule_id=pk)
            Schedule.objects.using(using).filter(pk=pk).update(last_run_at=now)
            trace.after = {"workflow_run_id": run.pk}
            return Made(None, run.pk)
        runs = open_runs_of(using, [schedule])[pk]
        has_to_wait = runs.live and schedule.overlap != Overlap.ALLOW
        origin = Origin(
            schedule_id=pk,
            trigger=Trigger.MANUAL,
            waits_for=WaitsFor.RUN if has_to_wait else None,
        )
        if not isinstance(payload, Unchanged):
            if is_sealed(payload):
                raise InvalidSchedule("nobody can give a sealed payload", field="payload.$sealed")
            # Of this copy of the row only; variables in it are filled in as in the schedule's own.
            schedule.payload, schedule.payload_bytes = payload, None
            check_kinds(using, kinds_started(schedule.kind, payload))
        new = made_by(schedule, origin, now)
        job_id = UUID(enqueue_many([new], by=by)[0].job_id)
        trace.after = {"job_id": job_id, "other_payload": not isinstance(payload, Unchanged)}
        Schedule.objects.using(using).filter(pk=pk).update(last_job_id=job_id, last_run_at=now)
        if has_to_wait:
            replace_soon(using, schedule)
    return Made(job_id, None)


def _supersede(using: str, ids: Sequence[UUID]) -> None:
    """Of runs that wait for other schedules only the newest goes on waiting."""
    # Whoever has one of them locked is ending it, and may be waiting for the schedule that we hold.
    waiting = Job.objects.using(using).filter(pk__in=ids, state=State.BLOCKED)
    skip = connections[using].features.has_select_for_update_skip_locked
    mine = list(
        waiting.select_for_update(no_key=True, skip_locked=skip).values_list("pk", flat=True)
    )
    jobs = Job.objects.using(using).filter(pk__in=mine)
    told = f"{SUPERSEDED} the schedules it depends on had not succeeded by the next run"
    jobs.update(error=told)
    jobs.cancel()


def _advanced(plan: Plan, now: datetime, calendars: arm.Calendars) -> None:
    try:
        _advance(plan, now, calendars)
    except Exception as error:
        park(plan.schedule, error)


def _advance(plan: Plan, now: datetime, calendars: arm.Calendars) -> None:
    schedule = plan.schedule
    if plan.waits:
        schedule.next_run_at = now + LOOK_AGAIN
        return
    if plan.handled_until is None:
        return
    schedule.last_due_at = schedule.accounted_until = plan.handled_until
    due = arm.next_due(schedule, plan.handled_until, calendars)
    arm.set_next(schedule, due.at if due else None)


_COLUMNS = (
    *("next_due_at", "next_run_at", "last_due_at", "accounted_until", "last_job_id", "last_run_at"),
    *("left_out", "dependencies_since", "error", "version"),
)
_PENDING = (*arm.TIMING_FIELDS, "anchor_at", "pending", "effective_from")


def _save(using: str, plans: Sequence[Plan]) -> None:
    for plan in plans:
        if plan.takes_over:
            plan.schedule.save(using=using, update_fields=_PENDING)
    rewrite(using, [plan.schedule for plan in plans], _COLUMNS)


def _replace(using: str, plans: Iterable[Plan]) -> None:
    """Ask the runs to stop that new ones are to replace. Not in the transaction that holds the
    schedules: whoever ends a job waits for its schedule."""
    for plan in plans:
        if plan.due and plan.schedule.overlap == Overlap.REPLACE:
            cancel_replaced(using, plan.schedule.pk)


def replace_soon(using: str, schedule: Schedule) -> None:
    """Do the same for one schedule as soon as the transaction is over that holds it.

    What goes wrong then is only written to the log: upkeep does it again.
    """
    if schedule.overlap == Overlap.REPLACE:
        cancel = partial(cancel_replaced, using, schedule.pk)
        transaction.on_commit(cancel, using=using, robust=True)


def cancel_replaced(using: str, schedule_id: UUID) -> int:
    """Cancel all runs of a schedule but the newest that waits for them, and those that wait for other
    schedules to succeed."""
    jobs = Job.objects.using(using).filter(schedule_id=schedule_id, finished_at=None)
    jobs = jobs.filter(workflow_run_id=None)
    jobs = jobs.exclude(waits_for=WaitsFor.SCHEDULES, state=State.BLOCKED)
    newest = (
        jobs.filter(waits_for=WaitsFor.RUN, state=State.BLOCKED)
        .order_by("-created_at", "-pk")
        .values_list("pk", flat=True)
        .first()
    )
    if newest is None:
        return 0
    others = jobs.exclude(pk=newest).filter(cancel_requested_at=None)
    return int(others.cancel())
