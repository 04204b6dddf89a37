"""Workflows and their runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from jobs.dialects.scheduler.wire.reading import Reader, parse_guid, read_guid
from jobs.dialects.scheduler.wire.timing import timing_from_wire, timing_to_wire
from jobs.dialects.scheduler.wire.words import (
    EXECUTION_STATUSES,
    ON_FAILURE,
    RUN_STATUSES,
    TRIGGERS,
    WORD_OF_ON_FAILURE,
    time_to_wire,
)
from jobs.engine.workflow_rows import MAX_NODES, NewNode
from jobs.models import Schedule, Workflow, WorkflowNode, WorkflowRun
from jobs.states import State, Trigger

MAX_DESCRIPTION = 2000


def workflow_from_wire(data: Any, *, is_new: bool) -> tuple[dict[str, Any], Reader | None]:
    """What ``workflows.create`` and ``change`` take, and the workflow's own schedule if it has one."""
    reader = Reader(data)
    if is_new:
        reader.need("name", "jobs")
    nodes = reader.items("jobs", _node, MAX_NODES)
    read = {
        "name": reader.text("name"),
        "description": reader.text("description", most=MAX_DESCRIPTION),
        "nodes": nodes,
    }
    schedule = reader.reader("schedule")
    reader.done()
    return {name: value for name, value in read.items() if value is not None}, schedule


def _node(item: Any, field: str) -> NewNode:
    reader = Reader(item, field)
    reader.need("jobId")
    job_id = parse_guid(reader.raw("jobId"))
    if "jobId" in reader and job_id is None:
        reader.refuse("jobId", "Must be a GUID of 36 characters.")
    depends_on = reader.items("dependsOn", read_guid, MAX_NODES)
    on_failure = reader.choice("onFailure", tuple(ON_FAILURE)) or "Stop"
    reader.done()
    assert job_id is not None
    return NewNode(job_id, depends_on or (), ON_FAILURE[on_failure].value)


def schedule_from_wire(reader: Reader, stored: Schedule | None) -> dict[str, Any]:
    """When a workflow runs by itself."""
    values = timing_from_wire(reader, stored)
    for name, value in (
        ("timezone", reader.text("timezone", most=64)),
        ("is_enabled", reader.boolean("isEnabled")),
    ):
        if value is not None:
            values[name] = value
    reader.done()
    return values


def workflow_to_wire(
    workflow: Workflow, nodes: Sequence[WorkflowNode], schedule: Schedule | None
) -> dict[str, Any]:
    return {
        "id": str(workflow.pk),
        "name": workflow.name,
        "description": workflow.description,
        "jobs": [
            {
                "jobId": str(node.schedule_id),
                "jobName": node.schedule.name,
                "dependsOn": node.depends_on,
                "onFailure": WORD_OF_ON_FAILURE[node.on_failure],
            }
            for node in nodes
        ],
        "schedule": None if schedule is None else _schedule_to_wire(schedule),
        "createdBy": workflow.created_by,
        "lastModifiedBy": workflow.updated_by,
        "createdAt": time_to_wire(workflow.created_at),
        "updatedAt": time_to_wire(workflow.updated_at),
    }


def _schedule_to_wire(schedule: Schedule) -> dict[str, Any]:
    return {
        **timing_to_wire(schedule),
        "timezone": schedule.timezone,
        "isEnabled": schedule.is_enabled,
        "nextRunAt": time_to_wire(schedule.next_run_at),
    }


def run_to_wire(run: WorkflowRun, states: Mapping[UUID, str]) -> dict[str, Any]:
    return {
        "id": str(run.pk),
        "workflowId": str(run.workflow_id),
        "status": RUN_STATUSES[run.state],
        "hasFailures": run.has_failures,
        "triggerType": TRIGGERS[Trigger(run.trigger)],
        "triggeredBy": None if run.trigger == Trigger.SCHEDULE else run.started_by,
        "scheduledFor": time_to_wire(run.due_at),
        "retryParentId": None if run.rerun_of is None else str(run.rerun_of),
        "startedAt": time_to_wire(run.created_at),
        "completedAt": time_to_wire(run.finished_at),
        "jobs": [
            {
                "jobId": node["schedule_id"],
                "jobName": node["name"],
                "executionId": node["job_id"],
                "status": _node_status(states.get(UUID(node["job_id"]))),
                "dependsOn": node["depends_on"],
                "onFailure": WORD_OF_ON_FAILURE[node["on_failure"]],
            }
            for node in run.nodes
        ],
    }


def _node_status(state: str | None) -> str | None:
    if state is None:
        return None  # its execution has been deleted
    return "Skipped" if state == State.SKIPPED else EXECUTION_STATUSES[state]
