"""Workflows: graphs of schedules' work, and their runs.

A run is made at one stroke: a job for each node, blocked by edges to the jobs of the nodes before it, so
the machinery of dependencies carries it on and nobody has to watch it. An edge from a node that says
``continue`` lets its child run whatever came of it; one from a node that says ``stop`` skips it.
``jobs.models.runs`` ends the run with its last job.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from graphlib import TopologicalSorter
from typing import Any
from uuid import UUID

from django.db import connections, router, transaction
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from clusters.deeds import deed, differences, part_of_a_deed
from clusters.policy import ClusterPolicy
from clusters.registry import id_of
from jobs.engine.clock import database_now
from jobs.engine.enqueue import enqueue_many
from jobs.engine.new_job import NewJob, Origin
from jobs.engine.schedule_work import made_by
from jobs.engine.started_kinds import (
    check_kinds,
    check_rows,
    check_schedules,
    kinds_started_by,
    kinds_to_grant,
)
from jobs.engine.workflow_rows import (
    NewNode,
    locked,
    replace_nodes,
    save,
    set_words,
    told_of,
    touch,
)
from jobs.errors import (
    InvalidTransition,
    InvalidWorkflow,
    WorkflowInUse,
    WorkflowNotFound,
    WorkflowRunNotFound,
)
from jobs.executors import kinds_started
from jobs.models import (
    Job,
    OnNodeFailure,
    OnParentFailure,
    RunState,
    Schedule,
    Source,
    Workflow,
    WorkflowNode,
    WorkflowRun,
)
from jobs.models.release import release_ended
from jobs.models.runs import node_states, settle_workflow_run
from jobs.rights import rights_of
from jobs.sealing import is_sealed
from jobs.states import UNSTARTED, State, Trigger

# What the audit calls one.
TARGET = "workflow"
FORGOTTEN_AT_ONCE = 2000


# -- Definitions -----------------------------------------------------------------------------------


def create(
    name: str,
    nodes: Sequence[NewNode],
    *,
    by: str,
    description: str = "",
    source: str = Source.PEOPLE,
) -> Workflow:
    """Make a workflow of schedules that exist."""
    using = router.db_for_write(Workflow)
    with deed("workflows.create", TARGET, using=using) as trace:
        _check_nodes(using, nodes)
        workflow = Workflow(created_by=by[:200], updated_by=by[:200], source=source)
        set_words(workflow, name, description)
        save(using, workflow, is_new=True)
        replace_nodes(using, workflow, nodes)
        trace.target_id, trace.after = str(workflow.pk), told_of(using, workflow, trace)
    workflow.refresh_from_db(using=using)
    return workflow


def change(
    pk: UUID,
    *,
    by: str,
    name: str | None = None,
    description: str | None = None,
    nodes: Sequence[NewNode] | None = None,
    versions: Collection[int] | None = None,
    source: str | None = None,
) -> Workflow:
    """Change what is named and leave the rest. Runs that go on are not touched."""
    using = router.db_for_write(Workflow)
    with deed("workflows.change", TARGET, pk, using=using) as trace:
        workflow = locked(using, pk, versions)
        before = told_of(using, workflow, trace)
        set_words(
            workflow,
            workflow.name if name is None else name,
            workflow.description if description is None else description,
        )
        if source is not None:
            workflow.source = source
        if nodes is not None:
            _check_nodes(using, nodes)
            replace_nodes(using, workflow, nodes)
        touch(using, workflow, by)
        save(using, workflow)
        trace.before, trace.after = differences(before, told_of(using, workflow, trace))
    return workflow


def _check_nodes(using: str, nodes: Sequence[NewNode]) -> None:
    """Whoever puts the work of others together answers for what it starts."""
    check_schedules(using, pk__in=[node.schedule_id for node in nodes])


def delete(pk: UUID, *, by: str, versions: Collection[int] | None = None) -> None:
    """Hide a workflow for good; its runs stay, and those that go on end by themselves."""
    using = router.db_for_write(Workflow)
    with deed("workflows.delete", TARGET, pk, using=using) as trace:
        workflow = locked(using, pk, versions)
        trace.before = told_of(using, workflow, trace)
        if Schedule.objects.using(using).kept().filter(workflow_id=pk).exists():
            raise WorkflowInUse("a schedule starts this workflow; delete that first")
        workflow.deleted_at = database_now(connections[using])
        touch(using, workflow, by)
        save(using, workflow)
        # Its schedules need not be kept for it.
        WorkflowNode.objects.using(using).filter(workflow_id=pk).delete()


def get(pk: UUID) -> Workflow:
    """The workflow of the bound cluster with this id."""
    using = router.db_for_read(Workflow)
    workflow: Workflow | None = Workflow.objects.using(using).kept().filter(pk=pk).first()
    if workflow is None:
        raise WorkflowNotFound
    return workflow


def kept_or_deleted(pk: UUID) -> Workflow:
    """The workflow with this id, whose runs are there also when it was deleted."""
    workflow = Workflow.objects.filter(pk=pk).first()
    if workflow is None:
        raise WorkflowNotFound
    return workflow


def nodes_of(workflow: Workflow) -> list[WorkflowNode]:
    """The nodes in the order of the definition, each with its schedule."""
    nodes = WorkflowNode.objects.using(workflow._state.db).filter(workflow_id=workflow.pk)
    return list(nodes.select_related("schedule").order_by("position"))


def kinds_of(workflow_id: UUID | None) -> list[str]:
    """What the nodes of a workflow start; nothing where there is none."""
    if workflow_id is None:
        return []
    nodes = WorkflowNode.objects.filter(workflow_id=workflow_id)
    return _kinds(nodes.values_list("schedule__kind", "schedule__payload"))


def kinds_started_with(workflow_id: UUID, payloads: Mapping[UUID, Any]) -> list[str]:
    """What a run with these payloads starts, beside what its nodes start with their own."""
    rows = WorkflowNode.objects.filter(workflow_id=workflow_id, schedule_id__in=list(payloads))
    kinds = rows.values_list("schedule_id", "schedule__kind")
    given = _kinds((kind, payloads[pk]) for pk, kind in kinds)
    return sorted({*given, *kinds_of(workflow_id)})


def kinds_of_schedules(ids: Collection[UUID]) -> list[str]:
    """What these schedules start."""
    rows = Schedule.objects.filter(pk__in=ids)
    return _kinds(rows.values_list("kind", "payload"))


def kinds_of_run(run: WorkflowRun) -> list[str]:
    """What the nodes of a run start if they run again, those that were given a payload with that."""
    own = kinds_of_schedules([UUID(node["schedule_id"]) for node in run.nodes])
    given = [UUID(node["job_id"]) for node in run.nodes if node.get("has_input")]
    if not given:
        return own
    using = str(run._state.db)
    jobs = Job.objects.using(using).filter(pk__in=given)
    started = kinds_started_by(using, dict(jobs.values_list("pk", "kind")))
    return sorted({*own, *(name for names in started.values() for name in names)})


def _kinds(rows: Iterable[tuple[str, Any]]) -> list[str]:
    return sorted({name for kind, payload in rows for name in kinds_started(kind, payload)})


# -- Runs ------------------------------------------------------------------------------------------


def start_run(
    pk: UUID,
    *,
    by: str,
    trigger: str = Trigger.MANUAL,
    schedule_id: UUID | None = None,
    due_at: datetime | None = None,
    payloads: Mapping[UUID, Any] | None = None,
) -> WorkflowRun:
    """Begin a run: the jobs of all nodes, enqueued in one transaction.

    ``payloads`` take the place of those of the nodes' schedules, for this run.
    """
    using = router.db_for_write(Workflow)
    with deed("workflows.trigger", TARGET, pk, using=using) as trace:
        workflow = get(pk)
        nodes = nodes_of(workflow)
        if not nodes:
            # It was deleted between the two looks; a run without a job would never end.
            raise WorkflowNotFound
        for node in nodes:
            if node.schedule.deleted_at is not None:
                raise InvalidTransition(f"schedule {node.schedule.name!r} has been deleted")
        if trigger == Trigger.SCHEDULE:
            _check_rights(using, nodes)
        check_schedules(using, workflow_nodes__workflow_id=pk)
        given = dict(payloads or {})
        _use(using, given, [node.schedule for node in nodes])
        run = WorkflowRun(
            workflow=workflow,
            trigger=trigger,
            schedule_id=schedule_id,
            due_at=due_at,
            started_by=by[:200],
        )
        run.nodes = [
            {
                "schedule_id": str(node.schedule_id),
                "name": node.schedule.name,
                "job_id": str(uuid7()),
                "depends_on": node.depends_on,
                "on_failure": str(node.on_failure),
                **({"has_input": True} if node.schedule_id in given else {}),
            }
            for node in nodes
        ]
        run.save(using=using, force_insert=True)
        _enqueue(using, run, {str(node.schedule_id): node.schedule for node in nodes}, by)
        trace.after = {"run_id": run.pk}
        if given:
            trace.after["other_payloads"] = sorted(map(str, given))
    run.refresh_from_db(using=using)
    return run


def _use(using: str, payloads: Mapping[UUID, Any], schedules: Sequence[Schedule]) -> None:
    """Put payloads into these copies of the rows; variables in them are filled in as in their own."""
    known = {schedule.pk: schedule for schedule in schedules}
    for pk, payload in payloads.items():
        if pk not in known:
            raise InvalidWorkflow("is no node of this workflow", field=f"payloads.{pk}")
        if is_sealed(payload):
            field = f"payloads.{pk}.$sealed"
            raise InvalidWorkflow("nobody can give a sealed payload", field=field)
        check_kinds(using, kinds_started(known[pk].kind, payload))
        known[pk].payload, known[pk].payload_bytes = payload, None


def _check_rights(using: str, nodes: Sequence[WorkflowNode]) -> None:
    """Kinds that need a grant need it when they run as well, of whoever wrote the schedule."""
    for node in nodes:
        wanted, by = kinds_to_grant(node.schedule), node.schedule.updated_by
        if not wanted:
            continue
        if lacking := sorted(wanted - rights_of(by, "jobs.enqueue", id_of(using)).kinds):
            raise InvalidWorkflow(f"{by} may not start jobs of kind {lacking[0]}", field="nodes")


def rerun(run_id: UUID, *, by: str) -> WorkflowRun:
    """Take up a run that ended again: what succeeded is carried over, the rest is done anew."""
    using = router.db_for_write(Workflow)
    with deed("workflows.trigger", TARGET, using=using) as trace:
        old = get_run(run_id)
        trace.target_id = str(old.workflow_id)
        if old.state == RunState.RUNNING:
            raise InvalidTransition("cannot re-run what has not ended", field="state")
        states = node_states(using, [old])
        done = {
            node["schedule_id"]
            for node in old.nodes
            if node.get("is_carried_over") or states.get(UUID(node["job_id"])) == State.SUCCEEDED
        }
        if len(done) == len(old.nodes):
            raise InvalidTransition("every node of this run has succeeded", field="state")
        ids = [node["schedule_id"] for node in old.nodes]
        schedules = Schedule.objects.using(using).kept().in_bulk([UUID(pk) for pk in ids])
        check_schedules(using, pk__in=ids)
        run = WorkflowRun(
            workflow_id=old.workflow_id,
            trigger=Trigger.RETRY,
            rerun_of=old.pk,
            schedule_id=old.schedule_id,
            due_at=old.due_at,
            started_by=by[:200],
        )
        run.nodes = []
        for node in old.nodes:
            is_done = node["schedule_id"] in done
            if not is_done and UUID(node["schedule_id"]) not in schedules:
                raise InvalidTransition(f"schedule {node['name']!r} has been deleted")
            fresh = {**node, "is_carried_over": is_done}
            if not is_done:
                fresh["job_id"] = str(uuid7())
            run.nodes.append(fresh)
        _use_again(using, old.nodes, done, schedules)
        run.save(using=using, force_insert=True)
        _enqueue(using, run, {str(pk): schedule for pk, schedule in schedules.items()}, by)
        trace.after = {"run_id": run.pk, "rerun_of": old.pk}
    run.refresh_from_db(using=using)
    return run


def _use_again(
    using: str,
    nodes: Sequence[dict[str, Any]],
    done: Collection[str],
    schedules: Mapping[UUID, Schedule],
) -> None:
    """What was given to a run instead of the schedules' payloads is given to its nodes again."""
    again = [node for node in nodes if node.get("has_input") and node["schedule_id"] not in done]
    rows = Job.objects.using(using).filter(pk__in=[UUID(node["job_id"]) for node in again])
    check_rows(rows)
    jobs = {job.pk: job for job in rows}
    for node in again:
        job = jobs.get(UUID(node["job_id"]))
        if job is None:
            raise InvalidTransition(f"the input of {node['name']!r} is not kept any more")
        schedule = schedules[UUID(node["schedule_id"])]
        # As it is stored: its variables are filled in, and what was sealed is so.
        schedule.payload, schedule.payload_bytes = job.payload, None
        schedule.has_variables = False


def _enqueue(using: str, run: WorkflowRun, schedules: Mapping[str, Schedule], by: str) -> None:
    now = database_now(connections[using])
    by_schedule = {node["schedule_id"]: node for node in run.nodes}
    jobs: list[NewJob] = []
    for node in _in_order(run.nodes):
        if node.get("is_carried_over"):
            continue
        parents = [by_schedule[parent] for parent in node["depends_on"]]
        waited_for = [parent for parent in parents if not parent.get("is_carried_over")]
        rules = {UUID(parent["job_id"]): _rule(parent["on_failure"]) for parent in waited_for}
        origin = Origin(
            schedule_id=UUID(node["schedule_id"]),
            trigger=Trigger.WORKFLOW,
            due_at=run.due_at,
            workflow_run_id=run.pk,
            rules=rules,
        )
        job_id = UUID(node["job_id"])
        job = made_by(schedules[node["schedule_id"]], origin, now, job_id=job_id)
        job.depends_on = [*rules]
        jobs.append(job)
    enqueue_many(jobs, by=by)


def _in_order(nodes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each node after those it waits for."""
    by_schedule = {node["schedule_id"]: node for node in nodes}
    order = TopologicalSorter({n["schedule_id"]: n["depends_on"] for n in nodes})
    return [by_schedule[pk] for pk in order.static_order()]


def _rule(on_failure: str) -> str:
    is_lenient = on_failure == OnNodeFailure.CONTINUE
    return (OnParentFailure.RUN if is_lenient else OnParentFailure.SKIP).value


def get_run(run_id: UUID) -> WorkflowRun:
    """The run of the bound cluster with this id."""
    using = router.db_for_read(WorkflowRun)
    run = WorkflowRun.objects.using(using).filter(pk=run_id).first()
    if run is None:
        raise WorkflowRunNotFound
    return run


def cancel_run(run_id: UUID, *, by: str, reason: str = "") -> WorkflowRun:
    """Start no other node and ask those that run to stop; asking twice is no error."""
    using = router.db_for_write(WorkflowRun)
    run = get_run(run_id)
    asked = WorkflowRun.objects.using(using).filter(pk=run_id, state=RunState.RUNNING)
    with deed("workflows.cancel", TARGET, run.workflow_id, using=using, reason=reason) as trace:
        trace.filter, trace.before = {"run_id": run_id}, {"state": run.state}
        if not asked.update(cancel_requested_at=Now(), cancelled_by=by[:200]):
            raise InvalidTransition(f"cannot cancel a run that has {run.state}", field="state")
    # Whoever ends a job takes the run's row after the job's: not in one transaction with it.
    jobs = Job.objects.using(using).filter(workflow_run_id=run_id, finished_at=None)
    with part_of_a_deed():
        jobs.cancel()
    with transaction.atomic(using=using):
        settle_workflow_run(using, run_id)
    return get_run(run_id)


def skip_node(run_id: UUID, schedule_id: UUID) -> WorkflowRun:
    """Leave out a node that has not started; those that wait for it go on as if it had succeeded."""
    using = router.db_for_write(WorkflowRun)
    run = get_run(run_id)
    ids = [UUID(n["job_id"]) for n in run.nodes if n["schedule_id"] == str(schedule_id)]
    if not ids:
        raise WorkflowRunNotFound("the run has no such node")
    jobs = Job.objects.using(using).filter(pk__in=ids, workflow_run_id=run_id)
    with deed("workflows.trigger", TARGET, run.workflow_id, using=using) as trace:
        trace.filter = {"run_id": run_id}
        trace.after = {"skipped_schedule_id": schedule_id}
        row = jobs.filter(state__in=UNSTARTED).select_for_update(no_key=True).first()
        if row is None:
            raise InvalidTransition(
                "only a node that has not started can be skipped", field="state"
            )
        # First, and for good: what its end would say to its children has been said then.
        release_ended(using, {row.pk: State.SUCCEEDED})
        jobs.skip()
    return get_run(run_id)


def forget_runs(using: str, policy: ClusterPolicy) -> int:
    """Delete a batch of runs that ended long ago, as long as fires are kept; 0: there are no more."""
    runs = WorkflowRun.objects.using(using).filter(finished_at__isnull=False)
    old = runs.filter(finished_at__lt=Now() - timedelta(seconds=policy.retain_rollup_seconds))
    ids = list(old.order_by("finished_at").values_list("pk", flat=True)[:FORGOTTEN_AT_ONCE])
    deleted, _ = WorkflowRun.objects.using(using).filter(pk__in=ids).delete() if ids else (0, {})
    return deleted
