"""Runs: what follows, in the same transaction, when jobs that schedules made have ended.

The schedule learns how its run ended. Runs that were held back are let go: one that waited for the run
before, those of schedules that waited for this one to succeed. A run of a workflow stops where one of its
nodes says so, and ends with its last job.

Whoever ends a job holds its row and then takes the schedules', in the order of their ids. Whoever holds a
schedule therefore never waits for the row of one of its jobs; those that are locked are left to others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models.functions import Now

from jobs.models.dependency import Needs
from jobs.models.rewrite import rewrite
from jobs.models.schedule import Schedule, ScheduleDependency
from jobs.models.schedule_choices import Overlap
from jobs.models.workflow import OnNodeFailure, RunState, WorkflowRun
from jobs.states import FINAL, UNSTARTED, State, WaitsFor


def is_gate_open(schedule: Schedule, succeeded_at: Iterable[datetime | None]) -> bool:
    """Whether the schedules that one depends on have succeeded since its last run.

    So it is where there are none any more: nobody would ever let go what had waited for them.
    """
    since = schedule.dependencies_since
    fresh = [at is not None and (since is None or at > since) for at in succeeded_at]
    return not fresh or (any(fresh) if schedule.needs == Needs.ANY else all(fresh))


def settle(using: str, ended: Iterable[UUID]) -> None:
    """Tell schedules and workflows of jobs that this transaction has ended."""
    from jobs.models.job import Job

    rows = list(
        Job.objects.using(using)
        .filter(pk__in=list(ended), schedule_id__isnull=False, state__in=FINAL)
        .order_by("finished_at", "pk")
        .values("pk", "schedule_id", "workflow_run_id", "state", "finished_at", "waits_for")
    )
    if not rows:
        return
    own: set[UUID] = {row["schedule_id"] for row in rows if row["schedule_id"]}
    succeeded = {
        row["schedule_id"] for row in rows if row["schedule_id"] and row["state"] == State.SUCCEEDED
    }
    waiting = set(_dependants(using, succeeded))
    schedules = _lock(using, own | waiting)
    for row in rows:
        if row["schedule_id"] in schedules:
            _note(schedules[row["schedule_id"]], row)
    noted = [schedules[pk] for pk in own if pk in schedules]
    rewrite(using, noted, _NOTED)
    for pk in sorted(waiting & schedules.keys()):
        open_gate(using, schedules[pk])
    for pk in sorted(own & schedules.keys()):
        start_waiting(using, schedules[pk])
    of_workflows = {row["workflow_run_id"] for row in rows if row["workflow_run_id"]}
    for run_id in sorted(of_workflows):
        settle_workflow_run(using, run_id)


_NOTED = ("last_state", "last_ended_at", "last_succeeded_at", "consecutive_failures")


def _note(schedule: Schedule, row: Mapping[str, Any]) -> None:
    state = row["state"]
    if state == State.SUCCEEDED:
        schedule.consecutive_failures = 0
        schedule.last_succeeded_at = row["finished_at"]
    elif state == State.FAILED:
        schedule.consecutive_failures += 1
    schedule.last_state, schedule.last_ended_at = state, row["finished_at"]


def _dependants(using: str, prerequisites: Iterable[UUID]) -> list[UUID]:
    ids = list(prerequisites)
    if not ids:
        return []
    edges = ScheduleDependency.objects.using(using).filter(prerequisite_id__in=ids)
    return list(edges.values_list("schedule_id", flat=True))


def _lock(using: str, ids: Iterable[UUID]) -> dict[UUID, Schedule]:
    rows = Schedule.objects.using(using).filter(pk__in=list(ids)).order_by("pk")
    return {row.pk: row for row in rows.select_for_update(no_key=True)}


def open_gate(using: str, schedule: Schedule) -> int:
    """Let the newest run go that waited for other schedules, if those have succeeded; the caller holds
    the row. One success lets one go; of several the next run ends all but the last."""
    held = _held(using, schedule.pk, WaitsFor.SCHEDULES)[-1:]
    if not held:
        return 0
    edges = ScheduleDependency.objects.using(using).filter(schedule_id=schedule.pk)
    succeeded = edges.values_list("prerequisite__last_succeeded_at", flat=True)
    if not is_gate_open(schedule, succeeded):
        return 0
    Schedule.objects.using(using).filter(pk=schedule.pk).update(dependencies_since=Now())
    from jobs.models.job import Job

    jobs = Job.objects.using(using).filter(pk__in=held, state=State.BLOCKED)
    if schedule.overlap != Overlap.ALLOW and _live(using, schedule.pk):
        return jobs.update(waits_for=WaitsFor.RUN)
    return jobs.free()


def start_waiting(using: str, schedule: Schedule) -> int:
    """Let the oldest run go that waited for the one before; the caller holds the row."""
    from jobs.models.job import Job

    held = _held(using, schedule.pk, WaitsFor.RUN)[:1]
    if not held or _live(using, schedule.pk):
        return 0
    return Job.objects.using(using).filter(pk__in=held).free()


def _held(using: str, schedule_id: UUID, waits_for: str) -> list[UUID]:
    """Runs that are held back, oldest first, locked; not those that somebody is ending just now."""
    from jobs.models.job import Job

    held = Job.objects.using(using).filter(
        schedule_id=schedule_id, state=State.BLOCKED, waits_for=waits_for, finished_at=None
    )
    skip = connections[using].features.has_select_for_update_skip_locked
    locked = held.order_by("created_at", "pk").select_for_update(no_key=True, skip_locked=skip)
    return list(locked.values_list("pk", flat=True))


def _live(using: str, schedule_id: UUID) -> bool:
    """Whether a run of the schedule goes on, or may begin at any moment."""
    from jobs.models.job import Job

    open_runs = Job.objects.using(using).filter(schedule_id=schedule_id, finished_at=None)
    # A run of a workflow is the workflow's business.
    return open_runs.filter(workflow_run_id=None, waits_for=None).exists()


# -- Workflows -------------------------------------------------------------------------------------


def settle_workflow_run(using: str, run_id: UUID) -> None:
    """Stop a run where a node that failed says so, and end it when no job of it is left."""
    from jobs.models.job import Job

    run = WorkflowRun.objects.using(using).select_for_update(no_key=True).filter(pk=run_id).first()
    if run is None or run.state != RunState.RUNNING:
        return
    jobs = Job.objects.using(using).filter(workflow_run_id=run_id)
    states = dict(jobs.values_list("pk", "state"))
    bad = [node for node in run.nodes if _has_failed(node, states)]
    stops = any(node["on_failure"] == OnNodeFailure.STOP for node in bad)
    if stops and jobs.filter(pk__in=_idle(using, run)).skip():
        # Their end was told of by themselves, and may have ended the run.
        settle_workflow_run(using, run_id)
        return
    if any(state not in FINAL for state in states.values()):
        if bad and not run.has_failures:
            WorkflowRun.objects.using(using).filter(pk=run_id).update(has_failures=True)
        return
    if run.cancel_requested_at is not None:
        state = RunState.CANCELLED
    else:
        state = RunState.FAILED if stops else RunState.SUCCEEDED
    WorkflowRun.objects.using(using).filter(pk=run_id, state=RunState.RUNNING).update(
        state=state, has_failures=bool(bad), finished_at=Now()
    )


def _idle(using: str, run: WorkflowRun) -> set[UUID]:
    """Jobs of a run that have not started, locked; the caller holds the run.

    Not those that somebody else has locked, who may be ending them and waiting for the run, and will look
    at it then; nor those whose end would have to be told to one of these.
    """
    from jobs.models.job import Job

    unstarted = Job.objects.using(using).filter(workflow_run_id=run.pk, state__in=UNSTARTED)
    held = set(unstarted.values_list("pk", flat=True))
    skip = connections[using].features.has_select_for_update_skip_locked
    locked = unstarted.order_by("pk").select_for_update(no_key=True, skip_locked=skip)
    free = set(locked.values_list("pk", flat=True))
    job_of = {node["schedule_id"]: UUID(node["job_id"]) for node in run.nodes}
    edges = [
        (job_of[one], job_of[node["schedule_id"]])
        for node in run.nodes
        for one in node["depends_on"]
    ]
    held -= free
    while held:
        held = {parent for parent, child in edges if child in held} & free
        free -= held
    return free


def _has_failed(node: Mapping[str, Any], states: Mapping[UUID, str]) -> bool:
    if node.get("is_carried_over"):
        return False
    state = states.get(UUID(node["job_id"]))
    return state in (State.FAILED, State.CANCELLED)


def node_states(using: str, runs: Sequence[WorkflowRun]) -> dict[UUID, str]:
    """The states of the jobs of these runs, those carried over from another run included."""
    from jobs.models.job import Job

    ids = [UUID(node["job_id"]) for run in runs for node in run.nodes]
    return dict(Job.objects.using(using).filter(pk__in=ids).values_list("pk", "state"))
