"""Workflows and their runs in JSON: what is taken in, and what is given out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from clusters.api.fields import (
    Choice,
    Id,
    Ids,
    Object,
    Text,
    Texts,
    format_time,
    parse_uuid,
    read_object,
    refuse,
)
from clusters.api.paging import PageQuery
from jobs.engine.workflow_rows import MAX_NODES, NewNode
from jobs.models import (
    OnNodeFailure,
    RunState,
    Source,
    Workflow,
    WorkflowNode,
    WorkflowRun,
)
from jobs.models.schedule import MAX_DESCRIPTION_LENGTH, MAX_NAME_LENGTH
from jobs.states import State, Trigger

# -- In --------------------------------------------------------------------------------------------


@extend_schema_serializer(component_name="NewWorkflowNode")
class NodeInput(serializers.Serializer[Any]):
    """The work of a schedule, and the nodes it waits for."""

    schedule_id = Id()
    depends_on = Ids(
        child=Id(),
        max_length=MAX_NODES,
        required=False,
        help_text="Schedules of other nodes; none: it begins with the run.",
    )
    on_failure = Choice(
        choices=OnNodeFailure.values,
        required=False,
        help_text="What its failure means: `stop`, no other node starts; `continue`, those that "
        "wait for it go on. `stop` unless told.",
    )


@extend_schema_field(NodeInput)
class NodeValue(Object):
    """Checked by a form of its own, which says what it does not know."""


@extend_schema_serializer(component_name="WorkflowChange")
class WorkflowChangeInput(serializers.Serializer[Any]):
    """What is left out stays as it is; runs that go on are not touched."""

    name = Text(max_length=MAX_NAME_LENGTH, required=False)
    description = Text(max_length=MAX_DESCRIPTION_LENGTH, allow_blank=True, required=False)
    nodes = Texts(child=NodeValue(), required=False, min_length=1, max_length=MAX_NODES)


@extend_schema_serializer(component_name="NewWorkflow")
class NewWorkflowInput(WorkflowChangeInput):
    """A graph of schedules' work. The schedules keep their own timing, if it is enabled."""

    name = Text(max_length=MAX_NAME_LENGTH)
    nodes = Texts(child=NodeValue(), min_length=1, max_length=MAX_NODES)


@extend_schema_serializer(component_name="StartRun")
class StartRunInput(serializers.Serializer[Any]):
    payloads = Object(
        required=False,
        help_text="By the `schedule_id` of a node: in place of its schedule's payload, for this run.",
    )


class WorkflowFilter(serializers.Serializer[Any]):
    source = Choice(choices=Source.values, required=False)  # type: ignore[assignment]
    created_by = Text(max_length=200, required=False)
    search = Text(
        max_length=100, required=False, help_text="Part of the name or description, in any case."
    )


class WorkflowListQuery(PageQuery, WorkflowFilter):
    pass


class RunFilter(serializers.Serializer[Any]):
    state = Choice(choices=RunState.values, required=False)


class RunListQuery(PageQuery, RunFilter):
    pass


def payloads_of(asked: Mapping[str, Any]) -> dict[UUID, Any]:
    """The payloads of a run's nodes by the ids of their schedules."""
    given: dict[UUID, Any] = {}
    for name, payload in asked.get("payloads", {}).items():
        key = parse_uuid(name)
        if key is None:
            refuse(f"payloads.{name[:100]}", "Is no id of a schedule.")
        given[key] = payload
    return given


def definition(values: Mapping[str, Any]) -> dict[str, Any]:
    """Checked values of a body as the verbs know them."""
    wanted = dict(values)
    if "nodes" in wanted:
        wanted["nodes"] = [
            NewNode(**read_object(NodeInput, node, f"nodes[{index}]"))
            for index, node in enumerate(wanted["nodes"])
        ]
    return wanted


# -- Out -------------------------------------------------------------------------------------------


class WorkflowItem(serializers.Serializer[Any]):
    """A workflow as lists show it."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField()
    source = serializers.ChoiceField(  # type: ignore[assignment]
        choices=Source.values, help_text="Who keeps the definition."
    )
    created_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    updated_by = serializers.CharField()
    updated_at = serializers.DateTimeField()
    version = serializers.IntegerField(help_text="Counts the edits; the ETag.")


class WorkflowNodeItem(serializers.Serializer[Any]):
    schedule_id = serializers.UUIDField()
    name = serializers.CharField(help_text="Of the schedule.")
    depends_on = serializers.ListField(child=serializers.UUIDField())
    on_failure = serializers.ChoiceField(choices=OnNodeFailure.values)


class WorkflowDetail(WorkflowItem):
    nodes = WorkflowNodeItem(many=True)
    started_by = serializers.ListField(
        child=serializers.UUIDField(), help_text="The schedules that start it."
    )


class WorkflowPage(serializers.Serializer[Any]):
    items = WorkflowItem(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


@extend_schema_serializer(component_name="WorkflowRun")
class RunItem(serializers.Serializer[Any]):
    """A run as lists show it."""

    id = serializers.UUIDField()
    workflow_id = serializers.UUIDField()
    state = serializers.ChoiceField(choices=RunState.values)
    has_failures = serializers.BooleanField(
        help_text="Some node failed, whatever that meant for the run."
    )
    trigger = serializers.ChoiceField(choices=Trigger.values)
    rerun_of = serializers.UUIDField(allow_null=True)
    schedule_id = serializers.UUIDField(allow_null=True, help_text="The schedule that made it.")
    due_at = serializers.DateTimeField(allow_null=True)
    started_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    cancel_requested_at = serializers.DateTimeField(allow_null=True)
    cancelled_by = serializers.CharField(allow_null=True)


class RunNodeItem(WorkflowNodeItem):
    """A node as it was when the run began."""

    job_id = serializers.UUIDField()
    state = serializers.ChoiceField(
        choices=State.values, allow_null=True, help_text="Of its job; null where that is gone."
    )
    is_carried_over = serializers.BooleanField(
        help_text="It had succeeded in the run that this one takes up again."
    )


@extend_schema_serializer(component_name="WorkflowRunDetail")
class RunDetail(RunItem):
    nodes = RunNodeItem(many=True)


@extend_schema_serializer(component_name="WorkflowRunPage")
class RunPage(serializers.Serializer[Any]):
    items = RunItem(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


def workflow_to_json(workflow: Workflow) -> dict[str, Any]:
    return {
        "id": str(workflow.pk),
        "name": workflow.name,
        "description": workflow.description,
        "source": str(workflow.source),
        "created_by": workflow.created_by,
        "created_at": format_time(workflow.created_at),
        "updated_by": workflow.updated_by,
        "updated_at": format_time(workflow.updated_at),
        "version": workflow.version,
    }


def workflow_detail_to_json(
    workflow: Workflow, nodes: Sequence[WorkflowNode], started_by: Sequence[UUID]
) -> dict[str, Any]:
    return {
        **workflow_to_json(workflow),
        "nodes": [
            {
                "schedule_id": str(node.schedule_id),
                "name": node.schedule.name,
                "depends_on": node.depends_on,
                "on_failure": str(node.on_failure),
            }
            for node in nodes
        ],
        "started_by": [str(pk) for pk in started_by],
    }


def run_to_json(run: WorkflowRun) -> dict[str, Any]:
    return {
        "id": str(run.pk),
        "workflow_id": str(run.workflow_id),
        "state": str(run.state),
        "has_failures": run.has_failures,
        "trigger": str(run.trigger),
        "rerun_of": None if run.rerun_of is None else str(run.rerun_of),
        "schedule_id": None if run.schedule_id is None else str(run.schedule_id),
        "due_at": format_time(run.due_at),
        "started_by": run.started_by,
        "created_at": format_time(run.created_at),
        "finished_at": format_time(run.finished_at),
        "cancel_requested_at": format_time(run.cancel_requested_at),
        "cancelled_by": run.cancelled_by,
    }


def run_detail_to_json(run: WorkflowRun, states: Mapping[UUID, str]) -> dict[str, Any]:
    return {
        **run_to_json(run),
        "nodes": [
            {
                "schedule_id": node["schedule_id"],
                "name": node["name"],
                "depends_on": node["depends_on"],
                "on_failure": node["on_failure"],
                "job_id": node["job_id"],
                "state": states.get(UUID(node["job_id"])),
                "is_carried_over": bool(node.get("is_carried_over")),
            }
            for node in run.nodes
        ],
    }
