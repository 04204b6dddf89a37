"""Fires: due schedules become jobs, each instant of each schedule exactly once.

Any node may do it. A batch of due schedules is locked, and in one transaction every instant that is dealt
with gets its row in ``fire``, those that run get a job, and the schedules get their next instant, which
follows from the last one and never from now. Whatever is in the way of one schedule is written down with
it and keeps no other from its turn.

An instant later than the schedule's grace is a misfire: one job for the newest (``latest``), one for each
of the newest (``all``), or none (``skip``). Under an overlap rule that forbids two runs at a time, the
instants of ``all`` run one after another: the next is made when the one before has ended.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db import InterfaceError, OperationalError, connections, router, transaction
from django.db.models import Count, Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from clusters.policy import ClusterPolicy
from clusters.registry import id_of
from jobs import timing
from jobs.engine import arm, workflows
from jobs.engine.clock import database_now
from jobs.engine.edit import UNCHANGED, Unchanged
from jobs.engine.enqueue import enqueue_many
from jobs.engine.new_job import NewJob, Origin
from jobs.engine.schedule_work import made_by
from jobs.errors import InvalidSchedule, JobError, ScheduleNotFound, ScheduleState
from jobs.executors import KINDS
from jobs.models import (
    Fire,
    FireReason,
    FireState,
    Job,
    Misfire,
    Overlap,
    Schedule,
    ScheduleDependency,
    WorkflowRun,
)
from jobs.models.rewrite import rewrite
from jobs.models.runs import is_gate_open, open_gate, start_waiting
from jobs.models.schedule import ScheduleQuerySet
from jobs.rights import rights_of
from jobs.states import UNSTARTED, State, Trigger, WaitsFor

logger = logging.getLogger(__name__)


class Made(NamedTuple):
    """What a trigger made: a job, or the run of a workflow."""

    job_id: UUID | None
    workflow_run_id: UUID | None


# Schedules of one transaction.
BATCH = 200
# Transactions of one call; other upkeep is done in between.
ROUNDS = 10
# Jobs that one schedule may catch up on in one round.
CAUGHT_UP_AT_ONCE = 10
# How soon a schedule is looked at again whose next instant has to wait for a run.
LOOK_AGAIN = timedelta(seconds=1)
FORGOTTEN_AT_ONCE = 2000
# After so many refusals in a batch each schedule is done alone.
REFUSALS = 3
_INSTANT = timedelta(microseconds=1)


@dataclass(slots=True)
class Plan:
    """What one schedule's turn comes to."""

    schedule: Schedule
    # Instants that get a job, oldest first.
    due: list[datetime] = field(default_factory=list)
    # Rows for those that get none.
    left_out: list[Fire] = field(default_factory=list)
    # All up to here is dealt with; None: nothing was.
    handled_until: datetime | None = None
    # Later than the schedule's grace.
    is_late: bool = False
    # Its turn comes when the run before has ended.
    waits: bool = False
    # The definition that waited holds from now on.
    takes_over: bool = False


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
        open_runs = _open_runs(using, schedules)
        plans = [_planned(one, now, calendars, open_runs) for one in schedules]
        _check_rights(using, plans)
        _write(using, plans, open_runs, now)
        for plan in plans:
            _advanced(plan, now, calendars)
        _save(using, plans)
    _replace(using, plans)
    return len(schedules)


# -- What is to be done ----------------------------------------------------------------------------


@dataclass(slots=True)
class OpenRuns:
    """Runs of a schedule that have not ended."""

    live: int = 0
    # Not started: a deferred start counts as the one that may wait. One between two attempts has started.
    unstarted: int = 0
    for_schedules: list[UUID] = field(default_factory=list)


def _open_runs(using: str, schedules: Sequence[Schedule]) -> Mapping[UUID, OpenRuns]:
    found: dict[UUID, OpenRuns] = {one.pk: OpenRuns() for one in schedules}
    open_jobs = Job.objects.using(using).filter(finished_at=None)
    # A run of a workflow is the workflow's business.
    open_jobs = open_jobs.filter(workflow_run_id=None)
    for_schedules = Q(waits_for=WaitsFor.SCHEDULES, state=State.BLOCKED)
    # Where many may run at a time there may be any number, and nobody asks how many.
    few = [one.pk for one in schedules if one.overlap != Overlap.ALLOW]
    rows = open_jobs.filter(schedule_id__in=few).exclude(for_schedules).order_by()
    counted = rows.values("schedule_id").annotate(
        live=Count("pk"), unstarted=Count("pk", filter=Q(state__in=UNSTARTED, attempts=0))
    )
    for row in counted:
        runs = found[UUID(str(row["schedule_id"]))]
        runs.live, runs.unstarted = row["live"], row["unstarted"]
    held = open_jobs.filter(for_schedules, schedule_id__in=list(found)).order_by()
    for schedule_id, pk in held.values_list("schedule_id", "pk"):
        if schedule_id is not None:
            found[schedule_id].for_schedules.append(pk)
    of_workflow: dict[UUID, list[UUID]] = {}
    for one in schedules:
        if one.workflow_id is not None:
            of_workflow.setdefault(one.workflow_id, []).append(one.pk)
    if of_workflow:
        open_ = WorkflowRun.objects.using(using).filter(
            workflow_id__in=list(of_workflow), finished_at=None
        )
        for workflow_id in open_.values_list("workflow_id", flat=True):
            # Several schedules may start the same one.
            for pk in of_workflow[workflow_id]:
                found[pk].live += 1
    return found


def _planned(
    schedule: Schedule,
    now: datetime,
    calendars: arm.Calendars,
    open_runs: Mapping[UUID, OpenRuns],
) -> Plan:
    try:
        return _plan(schedule, now, calendars, open_runs[schedule.pk])
    except Exception as error:
        _park(schedule, error)
        return Plan(schedule)


def _park(schedule: Schedule, error: Exception) -> None:
    """One schedule that cannot be worked out must not keep the others waiting."""
    logger.exception("schedule %s cannot be worked out; it is parked", schedule.pk)
    schedule.error = f"{type(error).__name__}: {error}"[:1000]
    arm.set_next(schedule, None)
    schedule.version += 1


def _plan(schedule: Schedule, now: datetime, calendars: arm.Calendars, runs: OpenRuns) -> Plan:
    first = schedule.next_due_at
    assert first is not None
    plan = Plan(schedule)
    if schedule.effective_from is not None and first >= schedule.effective_from:
        arm.take_over_pending(schedule)
        plan.takes_over = True
    rule = arm.rule_of(schedule, calendars)
    offset = arm.offset_of(schedule)
    if schedule.accounted_until is not None:
        stretch = timing.excluded_between(rule, schedule.accounted_until, first)
        if stretch is not None:
            plan.left_out.append(_excluded(schedule, stretch))
    grace = timedelta(seconds=schedule.misfire_grace_seconds)
    if now - (first + offset) <= grace:
        plan.due, plan.handled_until = [first], first
    else:
        _plan_misfires(plan, rule, first, now - offset, now - offset - grace - _INSTANT)
    _mind_overlap(plan, runs)
    if plan.is_late and plan.handled_until is not None and not plan.waits:
        stretch = timing.excluded_between(rule, first, plan.handled_until)
        if stretch is not None:
            plan.left_out.append(_excluded(schedule, stretch))
    return plan


def _plan_misfires(
    plan: Plan, rule: timing.Rule, first: datetime, until: datetime, late_until: datetime
) -> None:
    """Nobody was there for a while: choose by the schedule's word for that. ``until`` is now, and what
    lies after ``late_until`` is not later than the grace."""
    schedule = plan.schedule
    plan.is_late = True
    ends_at = schedule.effective_from
    if ends_at is not None and ends_at <= until:
        # What comes after that is for the definition that waits, at its own turn.
        until = ends_at - _INSTANT
    how = schedule.misfire
    if how == Misfire.SKIP:
        # What is not later than the grace is not missed, and has a turn of its own.
        until = min(until, late_until)
    keep = {Misfire.ALL: schedule.misfire_limit, Misfire.LATEST: 1}.get(Misfire(how), 0)
    missed = timing.missed(rule, first - _INSTANT, until, keep)
    chosen = list(missed.newest)
    plan.handled_until = missed.last or first
    dropped = missed.count - len(chosen)
    if dropped > 0 and missed.first is not None:
        last = missed.last if not chosen else chosen[0] - _INSTANT
        plan.left_out.append(
            Fire(
                schedule_id=schedule.pk,
                due_at=missed.first,
                state=FireState.MISSED,
                reason=FireReason.MISFIRE,
                detail=f"no node was there; the schedule says {how}",
                count=dropped,
                is_at_least=missed.is_at_least,
                last_due_at=last,
            )
        )
    plan.due = chosen


def _mind_overlap(plan: Plan, runs: OpenRuns) -> None:
    """Leave out or put off what may not run beside the runs before it."""
    schedule = plan.schedule
    if not plan.due:
        return
    if schedule.overlap == Overlap.ALLOW:
        del plan.due[CAUGHT_UP_AT_ONCE:]
    elif schedule.overlap == Overlap.REPLACE:
        # Each would replace the one before it: only the last would run.
        for at in plan.due[:-1]:
            plan.left_out.append(_skipped(schedule, at, "replaced by the next before it began"))
        del plan.due[:-1]
    elif schedule.misfire == Misfire.ALL and plan.is_late:
        # Each of them is to run, and no two at a time.
        if runs.live:
            plan.waits = True
            plan.due.clear()
            plan.left_out.clear()
            return
        del plan.due[1:]
    elif runs.live and schedule.overlap == Overlap.SKIP:
        plan.left_out.append(_skipped(schedule, plan.due.pop(), "the run before has not ended"))
    elif runs.unstarted:
        plan.left_out.append(_skipped(schedule, plan.due.pop(), "another run waits already"))
    if plan.due and plan.handled_until is not None and schedule.misfire == Misfire.ALL:
        # The rest has its turn when these are done.
        plan.handled_until = plan.due[-1]


def _excluded(schedule: Schedule, stretch: timing.Stretch) -> Fire:
    return Fire(
        schedule_id=schedule.pk,
        due_at=stretch.first,
        state=FireState.SKIPPED,
        reason=FireReason.EXCLUSION,
        detail=stretch.reason[:500],
        count=stretch.count,
        is_at_least=stretch.is_at_least,
        last_due_at=stretch.last,
    )


def _skipped(
    schedule: Schedule, at: datetime, detail: str, reason: str = FireReason.OVERLAP
) -> Fire:
    return Fire(
        schedule_id=schedule.pk,
        due_at=at,
        state=FireState.SKIPPED,
        reason=reason,
        detail=detail[:500],
    )


def _check_rights(using: str, plans: Iterable[Plan]) -> None:
    """Kinds that need a grant need it when they run as well."""
    cluster = id_of(using)
    for plan in plans:
        kind = KINDS.get(plan.schedule.kind)
        if not plan.due or kind is None or not kind.needs_grant:
            continue
        try:
            rights = rights_of(plan.schedule.updated_by, "jobs.enqueue", cluster)
        except (OperationalError, InterfaceError):
            # Rights are in another database; those that need none do not wait for it.
            logger.warning(
                "rights of schedule %s unknown; it waits", plan.schedule.pk, exc_info=True
            )
            plan.waits = True
            plan.due.clear()
            plan.left_out.clear()
            continue
        if kind.name not in rights.kinds:
            detail = f"{plan.schedule.updated_by} may not start jobs of kind {kind.name}"
            plan.left_out += [
                _skipped(plan.schedule, at, detail, FireReason.NO_RIGHTS) for at in plan.due
            ]
            plan.due.clear()


# -- What is written -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Start:
    plan: Plan
    fire: Fire
    waits_for: str | None = None
    superseded: list[UUID] = field(default_factory=list)


def _write(
    using: str, plans: Sequence[Plan], open_runs: Mapping[UUID, OpenRuns], now: datetime
) -> None:
    """The rows of fires first: who finds one there already makes no second job for it."""
    starts = [_Start(plan, _fired(plan.schedule, at)) for plan in plans for at in plan.due]
    fresh = _insert_fires(using, [*(start.fire for start in starts), *_rows_of(plans)], now)
    starts = [start for start in starts if start.fire.pk in fresh]
    _decide_waits(using, starts, open_runs, now)
    jobs = [start for start in starts if start.plan.schedule.workflow_id is None]
    _enqueue(using, jobs, now)
    for start in starts:
        if start.plan.schedule.workflow_id is not None:
            _start_workflow(using, start)
    for plan in plans:
        plan.schedule.left_out += sum(row.count for row in plan.left_out)


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
    for start in starts:
        schedule = start.plan.schedule
        if schedule.pk in gates and not is_gate_open(schedule, gates[schedule.pk]):
            start.waits_for = WaitsFor.SCHEDULES
            start.superseded = runs[schedule.pk].for_schedules
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


def trigger(pk: UUID, *, by: str, payload: Any = UNCHANGED) -> Made:
    """Run a schedule now, whatever its timing, its exclusions and what it depends on say.

    The next run stays where it is. Where two runs may not go on at a time, this one waits for the one
    before. ``payload`` takes the place of the schedule's for this run.
    """
    using = router.db_for_write(Schedule)
    with transaction.atomic(using=using):
        row = Schedule.objects.using(using).kept().filter(pk=pk)
        schedule = row.select_for_update(no_key=True).first()
        if schedule is None:
            raise ScheduleNotFound
        if not schedule.is_enabled:
            raise ScheduleState("the schedule is disabled", code="disabled")
        now = database_now(connections[using])
        if schedule.workflow_id is not None:
            if not isinstance(payload, Unchanged):
                raise InvalidSchedule("a run of a workflow takes no payload", field="payload")
            run = workflows.start_run(schedule.workflow_id, by=by, schedule_id=pk)
            Schedule.objects.using(using).filter(pk=pk).update(last_run_at=now)
            return Made(None, run.pk)
        runs = _open_runs(using, [schedule])[pk]
        has_to_wait = runs.live and schedule.overlap != Overlap.ALLOW
        origin = Origin(
            schedule_id=pk,
            trigger=Trigger.MANUAL,
            waits_for=WaitsFor.RUN if has_to_wait else None,
        )
        if not isinstance(payload, Unchanged):
            # Of this copy of the row only; variables in it are filled in as in the schedule's own.
            schedule.payload, schedule.payload_bytes = payload, None
        new = made_by(schedule, origin, now)
        job_id = UUID(enqueue_many([new], by=by)[0].job_id)
        Schedule.objects.using(using).filter(pk=pk).update(last_job_id=job_id, last_run_at=now)
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
    jobs.update(error="superseded: the schedules it depends on had not succeeded by the next run")
    jobs.cancel()


def _advanced(plan: Plan, now: datetime, calendars: arm.Calendars) -> None:
    try:
        _advance(plan, now, calendars)
    except Exception as error:
        _park(plan.schedule, error)


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


def cancel_replaced(using: str, schedule_id: UUID) -> int:
    """Cancel all runs of a schedule but the newest that waits for them."""
    jobs = Job.objects.using(using).filter(schedule_id=schedule_id, finished_at=None)
    jobs = jobs.filter(workflow_run_id=None)
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


# -- Upkeep ----------------------------------------------------------------------------------------


def mend_runs(using: str, policy: ClusterPolicy) -> int:
    """Let go what should have been let go, and cancel what is to be replaced; returns how many.

    The transactions that end runs do it at once, except where they found a row locked, or a node died
    between a fire and the cancels that belong to it.
    """
    held = Job.objects.using(using).filter(state=State.BLOCKED, waits_for__isnull=False)
    ids = held.order_by().values_list("schedule_id", flat=True).distinct()[:1000]
    mended = 0
    for pk in [pk for pk in ids if pk is not None]:
        with transaction.atomic(using=using):
            rows = Schedule.objects.using(using).filter(pk=pk)
            skip = connections[using].features.has_select_for_update_skip_locked
            schedule = rows.select_for_update(no_key=True, skip_locked=skip).first()
            if schedule is not None:
                mended += open_gate(using, schedule) + start_waiting(using, schedule)
        if schedule is not None and schedule.overlap == Overlap.REPLACE:
            mended += cancel_replaced(using, schedule.pk)
    return mended


def hold_excluded(using: str, policy: ClusterPolicy) -> int:
    """Put off runs that became ready inside a window in which their schedule may not start."""
    closed = Schedule.objects.using(using).kept().filter(exclusions__has_key="time_ranges")
    ready = Job.objects.using(using).filter(
        schedule_id__isnull=False, finished_at=None, state=State.READY, trigger=Trigger.SCHEDULE
    )
    found = ready.order_by().values_list("schedule_id", flat=True).distinct()[:1000]
    ids = [pk for pk in found if pk is not None]
    if not ids:
        return 0
    now = database_now(connections[using])
    held = 0
    for schedule in closed.filter(pk__in=ids):
        try:
            opens_at = arm.window_end(schedule, now)
        except JobError:
            # Such as a zone that the rules of today do not know: its next turn parks it.
            continue
        if opens_at is not None:
            jobs = ready.filter(schedule_id=schedule.pk, attempts=0)
            held += jobs.postpone(opens_at)
    return held


def forget_fires(using: str, policy: ClusterPolicy) -> int:
    """Delete a batch of old fires; 0 when there are no more. Rows keep an instant from firing twice, so
    they stay for much longer than anything is caught up."""
    old = Fire.objects.using(using).filter(
        fired_at__lt=Now() - timedelta(seconds=policy.retain_rollup_seconds)
    )
    ids = list(old.order_by("fired_at").values_list("pk", flat=True)[:FORGOTTEN_AT_ONCE])
    if not ids:
        return 0
    deleted, _ = Fire.objects.using(using).filter(pk__in=ids).delete()
    return deleted
