"""Schedules and what became of each of their instants; workflows and their runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from jobs.demo.play import Graph, Timetable
from jobs.demo.stage import DAY, MINUTE, Stage
from jobs.engine import calendars
from jobs.engine import schedules as verbs
from jobs.engine import workflows as graphs
from jobs.engine.workflow_rows import NewNode
from jobs.models import (
    Calendar,
    Fire,
    FireReason,
    FireState,
    JobDependency,
    RunState,
    Schedule,
    Total,
    TotalName,
    WorkflowRun,
)
from jobs.states import Outcome, State, Trigger

BY = "user:oncall"
HOLIDAYS = "bank-holidays"
# Runs that are told of by one schedule.
MOST_RUNS = 720
RUNS_OF_A_GRAPH = 6
# Instants that are worked out together; of a yearly schedule most lie ahead.
AT_ONCE = 25
# How the runs of a workflow went, the oldest first.
HOW = ("succeeded", "succeeded", "failed", "succeeded", "succeeded", "running")


def schedules(stage: Stage) -> dict[str, Schedule]:
    """Made by the verb that people use, and older than the day."""
    found = {}
    again = _again(stage)
    for number, plan in enumerate(stage.play.timetables):
        values: dict[str, Any] = {
            "name": plan.name + again,
            "description": plan.about,
            "type": plan.type,
            "kind": stage.play.work(plan.type).kind,
            "payload": stage.play.work(plan.type).payload(stage.random),
            "queue": plan.queue,
            "timezone": plan.zone,
            "overlap": plan.overlap,
            "is_enabled": plan.is_enabled,
        }
        exclusions: dict[str, Any] = {}
        if plan.without_weekends:
            exclusions["days_of_week"] = ["saturday", "sunday"]
        if plan.without_holidays:
            exclusions["calendars"] = [_holidays(stage)]
        if exclusions:
            values["exclusions"] = exclusions
        if plan.every:
            values |= {"timing": "interval", "interval_seconds": plan.every}
        else:
            values |= {"timing": "cron", "expression": plan.expression}
        schedule = verbs.create(values, by=BY, before_its_handler=True)
        if plan.paused:
            schedule = verbs.pause(schedule.pk, by=BY, reason=plan.paused)
        born = stage.now - timedelta(days=40 + number)
        _row(stage, schedule.pk).update(
            created_at=born, updated_at=born, anchor_at=_anchor(schedule, born)
        )
        schedule.refresh_from_db()
        found[plan.name] = schedule
    return found


def _holidays(stage: Stage) -> str:
    """The calendar of the bank holidays, made where it is not there."""
    if not Calendar.objects.using(stage.using).filter(name=HOLIDAYS).exists():
        years = (stage.now.year, stage.now.year + 1)
        dates = [f"{year}-{day}" for year in years for day in ("01-01", "05-01", "12-25", "12-26")]
        calendars.create(HOLIDAYS, dates, by=BY, description="No bank pays out on these days")
    return HOLIDAYS


def _again(stage: Stage) -> str:
    """What follows the names where a day before has left its own."""
    first, number = stage.play.timetables[0].name, 1
    rows = Schedule.objects.using(stage.using)
    while rows.filter(name=f"{first} {number}" if number > 1 else first).exists():
        number += 1
    return f" {number}" if number > 1 else ""


def _anchor(schedule: Schedule, born: datetime) -> datetime | None:
    return born.replace(second=0, microsecond=0) if schedule.anchor_at else None


def _row(stage: Stage, pk: UUID) -> Any:
    return Schedule.objects.using(stage.using).filter(pk=pk)


def fires(stage: Stage, found: Mapping[str, Schedule]) -> None:
    """Each instant of the day: a job, or the reason why there is none."""
    rows: list[Fire] = []
    totals: Counter[str] = Counter()
    for plan in stage.play.timetables:
        schedule = found[plan.name]
        if schedule.is_enabled and not schedule.is_paused:
            made = [*_fires_of(stage, plan, schedule)]
            rows += made
            totals.update(fire.reason or fire.state for fire in made)
    Fire.objects.using(stage.using).bulk_create(rows, batch_size=500)
    Total.objects.using(stage.using).all().add(TotalName.FIRES, totals)


def _fires_of(stage: Stage, plan: Timetable, schedule: Schedule) -> Iterator[Fire]:
    until = stage.now - timedelta(minutes=plan.late)
    due = _instants(stage, schedule, until)
    missed = [at for at in due if _is_missed(stage, plan, at)]
    # The newest, where there are very many.
    runs = [at for at in due if at not in missed][-max(2, round(MOST_RUNS * stage.scale)) :]
    last: dict[str, Any] = {}
    for number, at in enumerate(runs):
        is_bad = len(runs) - number <= plan.failing
        job_id, ended_at = _run(stage, plan, schedule, at, is_bad)
        yield Fire(
            id=stage.id_at(at),
            schedule_id=schedule.pk,
            due_at=at,
            state=FireState.FIRED,
            job_id=job_id,
            fired_at=at + timedelta(milliseconds=stage.random.randrange(20, 400)),
        )
        last |= {
            "last_due_at": at,
            "last_job_id": job_id,
            "last_run_at": at,
            "last_ended_at": ended_at,
        }
        last["last_state"] = "failed" if is_bad else "succeeded"
        if not is_bad:
            last["last_succeeded_at"] = ended_at
    if missed:
        last["left_out"] = len(missed)
        yield Fire(
            id=stage.id_at(missed[0]),
            schedule_id=schedule.pk,
            due_at=missed[0],
            last_due_at=missed[-1],
            count=len(missed),
            state=FireState.MISSED,
            reason=FireReason.MISFIRE,
            detail="no node was there",
            fired_at=stage.ago(minutes=plan.missed_at - plan.missed_for),
        )
    last["consecutive_failures"] = min(plan.failing, len(runs))
    if plan.late:
        overdue = next(iter(verbs.next_runs(schedule, 1, until)), None)
        if overdue is not None and overdue.instant < stage.now:
            last |= {"next_due_at": overdue.instant, "next_run_at": overdue.instant}
    _row(stage, schedule.pk).update(**last)


def _instants(stage: Stage, schedule: Schedule, until: datetime) -> list[datetime]:
    """Those of the day."""
    found: list[datetime] = []
    after = stage.begun
    while after < until:
        some = verbs.next_runs(schedule, AT_ONCE, after, include_excluded=False)
        found += [one.instant for one in some if one.instant < until - MINUTE]
        after = some[-1].instant if some else until
    return found


def _is_missed(stage: Stage, plan: Timetable, at: datetime) -> bool:
    begun = stage.ago(minutes=plan.missed_at)
    return bool(plan.missed_at) and begun <= at < begun + timedelta(minutes=plan.missed_for)


def _run(
    stage: Stage, plan: Timetable, schedule: Schedule, at: datetime, is_bad: bool
) -> tuple[UUID, datetime]:
    """The job of an instant, with its end."""
    work = stage.play.work(plan.type)
    job = stage.job(
        work,
        at + timedelta(milliseconds=60),
        schedule_id=schedule.pk,
        due_at=at,
        trigger=Trigger.SCHEDULE.value,
        has_dependants=True,
        enqueued_by="schedules",
        max_attempts=1,
    )
    took = min(stage.takes(work.seconds, 0.2), stage.now - at - timedelta(seconds=1))
    trouble = None
    if is_bad:
        trouble = next(one for one in stage.play.troubles if one.type == plan.type)
    outcome = Outcome.FAILED if trouble else Outcome.SUCCEEDED
    started_at = job.run_at + timedelta(milliseconds=stage.random.randrange(5, 90))
    ended_at = stage.attempt(job, started_at, took, outcome, trouble=trouble)
    if work.lines:
        stage.says(job, started_at, *work.lines)
    return job.id, ended_at


# -- Workflows -------------------------------------------------------------------------------------


def workflows(stage: Stage, rows: Mapping[str, Schedule]) -> None:
    for graph in stage.play.graphs:
        again = rows[graph.nodes[0][0]].name.removeprefix(graph.nodes[0][0])
        nodes = [
            NewNode(rows[name].pk, [rows[one].pk for one in before]) for name, before in graph.nodes
        ]
        workflow = graphs.create(graph.name + again, nodes, by=BY, description=graph.about)
        starter = verbs.create(
            {
                "name": f"{graph.name}, every time{again}",
                "workflow_id": workflow.pk,
                "timing": "cron",
                "expression": graph.expression,
                "timezone": graph.zone,
            },
            by=BY,
            before_its_handler=True,
        )
        times = [stage.ago(minutes=220 * back + 4) for back in range(RUNS_OF_A_GRAPH)][::-1]
        runs = [
            _run_of(stage, graph, rows, workflow.pk, starter.pk, at, how)
            for at, how in zip(times, HOW, strict=True)
            if at > stage.now - DAY
        ]
        WorkflowRun.objects.using(stage.using).bulk_create(runs)


def _run_of(
    stage: Stage,
    graph: Graph,
    rows: Mapping[str, Schedule],
    workflow_id: UUID,
    starter_id: UUID,
    at: datetime,
    how: str,
) -> WorkflowRun:
    """A run: all went well, or its second node failed, or its second node waits for its turn."""
    run_id = stage.id_at(at)
    ids: dict[str, UUID] = {}
    ends: dict[str, datetime] = {}
    edges: list[JobDependency] = []
    nodes = []
    for place, (name, before) in enumerate(graph.nodes):
        schedule = rows[name]
        more: dict[str, Any] = {
            "schedule_id": schedule.pk,
            "workflow_run_id": run_id,
            "due_at": at,
            "trigger": Trigger.WORKFLOW.value,
            "has_dependants": True,
            "enqueued_by": "schedules",
            "max_attempts": 1,
        }
        work = stage.play.work(schedule.type)
        job = stage.job(work, at, **more)
        ids[name] = job.id
        is_open = how == "running" and place >= 1
        begun = max((ends.get(one, at) for one in before), default=at) + timedelta(seconds=1)
        satisfied = None if is_open and place > 1 else begun
        edges += [
            JobDependency(
                child_id=job.id, parent_id=ids[one], on_failure="skip", satisfied_at=satisfied
            )
            for one in before
        ]
        if is_open and place == 1:
            # Its turn is in an hour: a campaign waits for its hour.
            job.state, job.run_at = State.SCHEDULED.value, stage.now + timedelta(hours=1)
        elif is_open:
            job.state, job.pending_dependencies = State.BLOCKED.value, len(before)
        elif how == "failed" and place == 1:
            trouble = next(one for one in stage.play.troubles if one.type == schedule.type)
            ends[name] = stage.attempt(
                job, begun, stage.takes(2.0), Outcome.FAILED, trouble=trouble
            )
        elif how == "failed" and place > 1:
            ends[name] = begun
            stage.ended(job, begun, State.SKIPPED)
        else:
            ends[name] = stage.attempt(job, begun, stage.takes(3.0, 0.3), Outcome.SUCCEEDED)
        nodes.append(
            {
                "schedule_id": str(schedule.pk),
                "name": name,
                "job_id": str(job.id),
                "depends_on": [str(rows[one].pk) for one in before],
                "on_failure": "stop",
            }
        )
    JobDependency.objects.using(stage.using).bulk_create(edges)
    return WorkflowRun(
        id=run_id,
        workflow_id=workflow_id,
        state=RunState(how),
        has_failures=how == "failed",
        trigger=Trigger.SCHEDULE,
        schedule_id=starter_id,
        due_at=at,
        nodes=nodes,
        started_by="schedules",
        created_at=at,
        finished_at=None if how == "running" else max(ends.values()),
    )
