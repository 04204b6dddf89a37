"""What one schedule's turn comes to: which of its due instants run, which are left out, and why.

Nothing is written here. An instant later than the schedule's grace is a misfire: one job for the newest
(``latest``), one for each of the newest (``all``), or none (``skip``). Under an overlap rule that forbids
two runs at a time, the instants of ``all`` run one after another: the next is made when the one before
has ended.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

from django.db import InterfaceError, OperationalError
from django.db.models import Count, Q

from clusters.registry import id_of
from jobs import timing
from jobs.engine import arm
from jobs.engine.started_kinds import kinds_to_grant
from jobs.models import Fire, FireReason, FireState, Job, Misfire, Overlap, Schedule, WorkflowRun
from jobs.rights import rights_of
from jobs.states import UNSTARTED, State, WaitsFor

logger = logging.getLogger(__name__)

# Jobs that one schedule may catch up on in one round.
CAUGHT_UP_AT_ONCE = 10
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


@dataclass(slots=True)
class OpenRuns:
    """Runs of a schedule that have not ended."""

    live: int = 0
    # Not started: a deferred start counts as the one that may wait. One between two attempts has started.
    unstarted: int = 0
    for_schedules: list[UUID] = field(default_factory=list)


def open_runs_of(using: str, schedules: Sequence[Schedule]) -> Mapping[UUID, OpenRuns]:
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


def planned(
    schedule: Schedule,
    now: datetime,
    calendars: arm.Calendars,
    open_runs: Mapping[UUID, OpenRuns],
) -> Plan:
    try:
        return _plan(schedule, now, calendars, open_runs[schedule.pk])
    except Exception as error:
        park(schedule, error)
        return Plan(schedule)


def park(schedule: Schedule, error: Exception) -> None:
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


def check_rights(using: str, plans: Iterable[Plan]) -> None:
    """Kinds that need a grant need it when they run as well."""
    cluster = id_of(using)
    for plan in plans:
        wanted = kinds_to_grant(plan.schedule) if plan.due else frozenset()
        if not wanted:
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
        if lacking := sorted(wanted - rights.kinds):
            detail = f"{plan.schedule.updated_by} may not start jobs of kind {lacking[0]}"
            plan.left_out += [
                _skipped(plan.schedule, at, detail, FireReason.NO_RIGHTS) for at in plan.due
            ]
            plan.due.clear()
