"""What a cluster holds, in the words of a file: only what differs from the defaults, in a fixed order."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from django.db.models.functions import Now

from jobs.definitions.document import COLUMNS, SCHEDULE, Definitions, default_of
from jobs.models import (
    Calendar,
    Queue,
    Schedule,
    ScheduleDependency,
    Source,
    Workflow,
    WorkflowNode,
)
from jobs.models.queue import DEFAULT_QUEUE
from jobs.models.queue_policies import POLICIES
from jobs.sealing import is_sealed
from jobs.secrets import shown_payload

# Of a schedule that starts a workflow these say nothing.
_OF_JOBS = ("kind", "type", "payload", "payload_base64", "has_variables")


def export(using: str) -> tuple[Definitions, list[str]]:
    """The definitions of a cluster, and what was left out of them.

    Schedules of code stand in code. One that has had its last run would do nothing elsewhere.
    """
    found = Definitions()
    remarks = []
    for queue in Queue.objects.using(using).order_by("name"):
        said = queue_document(queue)
        if said or queue.name != DEFAULT_QUEUE:
            found.queues[queue.name] = said
    for calendar in Calendar.objects.using(using).order_by("name"):
        found.calendars[calendar.name] = calendar_document(calendar)
    names = schedule_names(using)
    edges = prerequisites(using)
    gone = deleted_prerequisites(using)
    workflows = dict(Workflow.objects.using(using).kept().values_list("pk", "name"))
    ended = set(
        Schedule.objects.using(using).filter(run_at__lte=Now()).values_list("pk", flat=True)
    ) | set(Schedule.objects.using(using).filter(ends_at__lte=Now()).values_list("pk", flat=True))
    for schedule in _by_name(Schedule.objects.using(using).kept()):
        if schedule.source == Source.CODE:
            remarks.append(f"schedule {schedule.name!r} stands in code and is left out")
        elif schedule.pk in ended:
            remarks.append(f"schedule {schedule.name!r} has had its last run and is left out")
        else:
            before = edges.get(schedule.pk, ())
            found.schedules[schedule.name] = schedule_document(
                schedule,
                [names[pk] for pk in before if pk in names],
                workflows.get(schedule.workflow_id) if schedule.workflow_id else None,
            )
            if is_sealed(schedule.payload):
                shown = shown_payload(schedule.kind, schedule.payload)
                found.schedules[schedule.name]["payload"] = shown
                remarks.append(f"schedule {schedule.name!r} holds secrets, which are left out")
            remarks += [
                f"schedule {schedule.name!r} depends on {gone[pk]!r}, which is deleted: "
                "the dependency is left out, and where this is applied it waits for that no more"
                for pk in before
                if pk in gone
            ]
    for workflow in _by_name(Workflow.objects.using(using).kept()):
        found.workflows[workflow.name] = workflow_document(workflow, nodes_of(using, workflow))
    return found, remarks


def _by_name(rows: Any) -> list[Any]:
    # Not by the database: its order depends on its locale.
    return sorted(rows, key=lambda row: row.name)


def schedule_names(using: str) -> dict[UUID, str]:
    return dict(Schedule.objects.using(using).kept().values_list("pk", "name"))


def prerequisites(using: str) -> dict[UUID, list[UUID]]:
    found: dict[UUID, list[UUID]] = {}
    rows = ScheduleDependency.objects.using(using).values_list("schedule_id", "prerequisite_id")
    for schedule_id, prerequisite_id in rows:
        found.setdefault(schedule_id, []).append(prerequisite_id)
    return found


def deleted_prerequisites(using: str) -> dict[UUID, str]:
    """The names of deleted schedules that others depend on."""
    rows = Schedule.objects.using(using).filter(deleted_at__isnull=False)
    needed = rows.filter(dependants__schedule__deleted_at=None)
    return dict(needed.values_list("pk", "name"))


def nodes_of(using: str, workflow: Workflow) -> list[WorkflowNode]:
    rows = WorkflowNode.objects.using(using).filter(workflow_id=workflow.pk)
    return list(rows.select_related("schedule").order_by("position"))


# -- One of each -----------------------------------------------------------------------------------


def queue_document(queue: Queue) -> dict[str, Any]:
    said = queue.policies()
    return {name: said[name] for name in POLICIES if said[name] != default_of(Queue, name)}


def calendar_document(calendar: Calendar) -> dict[str, Any]:
    described = {"description": calendar.description} if calendar.description else {}
    return {**described, "dates": list(calendar.dates)}


def schedule_document(
    schedule: Schedule, depends_on: Sequence[str], workflow: str | None
) -> dict[str, Any]:
    said: dict[str, Any] = {}
    for name in SCHEDULE:
        if name == "timing" or (workflow is not None and name in _OF_JOBS):
            continue
        if name == "depends_on":
            value: Any = sorted(depends_on) or None
        elif name == "workflow":
            value = workflow
        else:
            column = COLUMNS.get(name, name)
            value = getattr(schedule, column)
            if value == default_of(Schedule, column) and name != "type":
                continue
            # Intervals count from the moment at which they were made, unless somebody says otherwise.
            if name == "anchor_at" and value == schedule.created_at:
                continue
        if value is not None:
            said[name] = _plain(value)
    return said


def workflow_document(workflow: Workflow, nodes: Sequence[WorkflowNode]) -> dict[str, Any]:
    names = {str(node.schedule_id): node.schedule.name for node in nodes}
    listed = [
        node_document(
            node.schedule.name,
            [names[pk] for pk in node.depends_on if pk in names],
            node.on_failure,
        )
        for node in nodes
    ]
    described = {"description": workflow.description} if workflow.description else {}
    return {**described, "nodes": listed}


def node_document(schedule: str, depends_on: Sequence[str], on_failure: str) -> dict[str, Any]:
    said: dict[str, Any] = {"schedule": schedule}
    if depends_on:
        said["depends_on"] = sorted(depends_on)
    if on_failure != default_of(WorkflowNode, "on_failure"):
        said["on_failure"] = str(on_failure)
    return said


def _plain(value: Any) -> Any:
    """As YAML writes it; keys in order, for databases keep them in orders of their own."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    if isinstance(value, Mapping):
        return {str(key): _plain(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, str) else value
