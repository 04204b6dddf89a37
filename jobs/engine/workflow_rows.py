"""The row of a workflow and its nodes while somebody changes them: checked, locked, told of and saved."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any
from uuid import UUID

from django.db import IntegrityError, connections, transaction

from clusters.deeds import Trace
from jobs.engine import prerequisites
from jobs.engine.clock import database_now
from jobs.errors import (
    DependencyCycle,
    DuplicateWorkflow,
    InvalidWorkflow,
    OutdatedSchedule,
    WorkflowNotFound,
)
from jobs.models import OnNodeFailure, Schedule, Workflow, WorkflowNode
from jobs.models.queue_policies import text_problem
from jobs.models.schedule import MAX_DESCRIPTION_LENGTH, MAX_NAME_LENGTH

MAX_NODES = 200


@dataclass(frozen=True, slots=True)
class NewNode:
    """A node as asked for: the schedule whose work it is, and the schedules of the nodes before it."""

    schedule_id: UUID
    depends_on: Sequence[UUID] = ()
    on_failure: str = OnNodeFailure.STOP


def set_words(workflow: Workflow, name: str, description: str) -> None:
    name = name.strip() if isinstance(name, str) else ""
    if not 1 <= len(name) <= MAX_NAME_LENGTH or not name.isprintable():
        raise InvalidWorkflow(
            f"a name has 1 to {MAX_NAME_LENGTH} printable characters", field="name"
        )
    if problem := text_problem(description, MAX_DESCRIPTION_LENGTH):
        raise InvalidWorkflow(problem, field="description")
    workflow.name, workflow.description = name, description


def locked(using: str, pk: UUID, versions: Collection[int] | None = None) -> Workflow:
    rows = Workflow.objects.using(using).kept().filter(pk=pk).select_for_update(no_key=True)
    workflow: Workflow | None = rows.first()
    if workflow is None:
        raise WorkflowNotFound
    if versions is not None and workflow.version not in versions:
        raise OutdatedSchedule("the workflow was changed since you read it; read it again")
    return workflow


def touch(using: str, workflow: Workflow, by: str) -> None:
    workflow.updated_by = by[:200]
    workflow.updated_at = database_now(connections[using])
    workflow.version += 1


def save(using: str, workflow: Workflow, *, is_new: bool = False) -> None:
    try:
        with transaction.atomic(using=using):
            workflow.save(using=using, force_insert=is_new)
    except IntegrityError:
        same = Workflow.objects.using(using).kept().filter(name__iexact=workflow.name)
        if not same.exclude(pk=workflow.pk).exists():
            raise
        raise DuplicateWorkflow(
            f"there is a workflow named {workflow.name!r}", field="name"
        ) from None


def check_nodes(nodes: Sequence[NewNode]) -> None:
    """Refuse what is no graph: nothing, the same schedule twice, strangers, a circle."""
    if not 1 <= len(nodes) <= MAX_NODES:
        raise InvalidWorkflow(f"a workflow has 1 to {MAX_NODES} nodes", field="nodes")
    ids = [node.schedule_id for node in nodes]
    for index, node in enumerate(nodes):
        if node.schedule_id in ids[:index]:
            raise InvalidWorkflow("is in the workflow twice", field=f"nodes[{index}].schedule_id")
        if node.on_failure not in OnNodeFailure.values:
            allowed = ", ".join(OnNodeFailure.values)
            raise InvalidWorkflow(f"must be one of {allowed}", field=f"nodes[{index}].on_failure")
        if len(set(node.depends_on)) != len(node.depends_on):
            raise InvalidWorkflow("names a node twice", field=f"nodes[{index}].depends_on")
        for parent in node.depends_on:
            if parent not in ids:
                raise InvalidWorkflow(
                    f"{parent} is no node of this workflow", field=f"nodes[{index}].depends_on"
                )
    try:
        TopologicalSorter({n.schedule_id: n.depends_on for n in nodes}).prepare()
    except CycleError:
        raise DependencyCycle(
            "nodes would wait for each other in a circle", field="nodes"
        ) from None


def told_of(using: str, workflow: Workflow, trace: Trace) -> dict[str, Any]:
    if not trace.is_wanted:
        return {}
    nodes = WorkflowNode.objects.using(using).filter(workflow_id=workflow.pk).order_by("position")
    words = ("schedule_id", "depends_on", "on_failure")
    listed = [dict(zip(words, node, strict=True)) for node in nodes.values_list(*words)]
    return {"name": workflow.name, "description": workflow.description, "nodes": listed}


def replace_nodes(using: str, workflow: Workflow, nodes: Sequence[NewNode]) -> None:
    check_nodes(nodes)
    prerequisites.lock_all(using)
    known = Schedule.objects.using(using).kept().filter(pk__in=[n.schedule_id for n in nodes])
    workflows = dict(known.values_list("pk", "workflow_id"))
    for index, node in enumerate(nodes):
        field = f"nodes[{index}].schedule_id"
        if node.schedule_id not in workflows:
            raise InvalidWorkflow(f"there is no schedule {node.schedule_id}", field=field)
        if workflows[node.schedule_id] is not None:
            raise InvalidWorkflow("starts a workflow itself", field=field)
    rows = WorkflowNode.objects.using(using)
    rows.filter(workflow_id=workflow.pk).delete()
    rows.bulk_create(
        WorkflowNode(
            workflow=workflow,
            schedule_id=node.schedule_id,
            position=index,
            depends_on=[str(parent) for parent in node.depends_on],
            on_failure=node.on_failure,
        )
        for index, node in enumerate(nodes)
    )
