"""Workflows: endpoint 16, and reading, changing, deleting and running them.

A workflow's own schedule is a schedule of ours that bears the workflow's id in its name, so that those
that people made for it in another way are left alone.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpResponse
from rest_framework.request import Request

from clusters.deeds import differences
from clusters.surfaces import reply
from jobs.dialects.scheduler.views.base import (
    PageAsked,
    SchedulerView,
    accepted,
    body_of,
    empty,
)
from jobs.dialects.scheduler.wire.workflows import (
    run_to_wire,
    schedule_from_wire,
    workflow_from_wire,
    workflow_to_wire,
)
from jobs.engine import schedules, workflows
from jobs.errors import OutdatedSchedule
from jobs.models import Schedule, Workflow, WorkflowNode, WorkflowRun
from jobs.models.runs import node_states


class WorkflowView(SchedulerView):
    verbs = {
        "create": "workflows.create",
        "list": "workflows.read",
        "retrieve": "workflows.read",
        "update": "workflows.change",
        "destroy": "workflows.delete",
        "trigger": "workflows.trigger",
        "runs": "workflows.read",
    }
    titles = {
        "create": "Create workflow failed",
        "update": "Update workflow failed",
        "destroy": "Delete workflow failed",
        "trigger": "Trigger workflow failed",
    }

    def create(self, request: Request, **_: Any) -> HttpResponse:
        values, own = workflow_from_wire(request.data, is_new=True)
        timing = None if own is None else schedule_from_wire(own, None)
        actor = self.principal.actor
        with self.deed("workflow") as trace:
            workflow = workflows.create(
                values["name"],
                values["nodes"],
                by=actor,
                description=values.get("description", ""),
            )
            if timing is not None:
                _schedule_it(workflow, timing, None, actor)
            trace.target_id = str(workflow.pk)
            (trace.after,) = _to_wire([workflow])
        location = self.address("workflow", workflow_id=workflow.pk)
        return reply(str(workflow.pk), headers={"Location": location})

    def list(self, request: Request, **_: Any) -> HttpResponse:
        query = self.query()
        page = PageAsked.of(query)
        query.done()
        kept = Workflow.objects.filter(deleted_at=None)
        return page.read(kept.order_by("-created_at", "-pk"), _to_wire)

    def retrieve(self, request: Request, workflow_id: UUID, **_: Any) -> HttpResponse:
        return _reply(workflows.get(workflow_id))

    def update(self, request: Request, workflow_id: UUID, **_: Any) -> HttpResponse:
        workflows.get(workflow_id)
        values, own = workflow_from_wire(request.data, is_new=False)
        stored = _own_schedule(workflow_id)
        timing = None if own is None else schedule_from_wire(own, stored)
        actor, versions = self.principal.actor, self.versions()
        with self.deed("workflow", workflow_id) as trace:
            (before,) = _to_wire([workflows.get(workflow_id)])
            workflow = workflows.change(workflow_id, by=actor, versions=versions, **values)
            if timing is not None:
                _schedule_it(workflow, timing, stored, actor)
            (after,) = _to_wire([workflow])
            trace.before, trace.after = differences(before, after)
        return _reply(workflow)

    def destroy(self, request: Request, workflow_id: UUID, **_: Any) -> HttpResponse:
        workflow = workflows.get(workflow_id)
        versions = self.versions()
        if versions is not None and workflow.version not in versions:
            raise OutdatedSchedule("the workflow was changed since you read it; read it again")
        actor = self.principal.actor
        with self.deed("workflow", workflow_id):
            own = _own_schedule(workflow_id)
            if own is not None:
                schedules.delete(own.pk, by=actor)
            workflows.delete(workflow_id, by=actor, versions=versions)
        return empty(204)

    def trigger(self, request: Request, workflow_id: UUID, **_: Any) -> HttpResponse:
        body_of(request)
        workflows.get(workflow_id)

        def effect() -> str:
            with self.deed("workflow", workflow_id) as trace:
                run = workflows.start_run(workflow_id, by=self.principal.actor)
                trace.after = {"runId": str(run.pk)}
            return str(run.pk)

        guid, is_repeat = self.once(effect, 202)
        location = self.address("workflow-runs", workflow_id=workflow_id)
        return accepted(location, guid, is_repeat=is_repeat)

    def runs(self, request: Request, workflow_id: UUID, **_: Any) -> HttpResponse:
        query = self.query()
        page = PageAsked.of(query)
        query.done()
        workflows.get(workflow_id)
        rows = WorkflowRun.objects.filter(workflow_id=workflow_id)
        return page.read(rows.order_by("-created_at", "-pk"), _runs_to_wire)


def _own_schedule_name(workflow_id: UUID) -> str:
    return f"workflow {workflow_id}"


def _own_schedule(workflow_id: UUID) -> Schedule | None:
    rows = Schedule.objects.all().kept().filter(workflow_id=workflow_id)
    return rows.filter(name=_own_schedule_name(workflow_id)).first()


def _schedule_it(
    workflow: Workflow, timing: dict[str, Any], stored: Schedule | None, actor: str
) -> None:
    if stored is not None:
        schedules.change(stored.pk, timing, by=actor)
        return
    name = _own_schedule_name(workflow.pk)
    values = {"timezone": "UTC", "name": name, "workflow_id": workflow.pk, **timing}
    schedules.create(values, by=actor)


def _reply(workflow: Workflow) -> HttpResponse:
    (body,) = _to_wire([workflow])
    return reply(body, headers={"ETag": f'"{workflow.version}"'})


def _to_wire(page: list[Workflow]) -> list[dict[str, Any]]:
    ids = [workflow.pk for workflow in page]
    nodes: dict[UUID, list[WorkflowNode]] = {}
    found = WorkflowNode.objects.filter(workflow_id__in=ids).select_related("schedule")
    for node in found.order_by("workflow_id", "position"):
        nodes.setdefault(node.workflow_id, []).append(node)
    rows = Schedule.objects.all().kept().filter(workflow_id__in=ids)
    own = {
        row.workflow_id: row
        for row in rows
        if row.workflow_id and row.name == _own_schedule_name(row.workflow_id)
    }
    return [workflow_to_wire(one, nodes.get(one.pk, []), own.get(one.pk)) for one in page]


def _runs_to_wire(page: list[WorkflowRun]) -> list[dict[str, Any]]:
    states = node_states(WorkflowRun.objects.all().db, page)
    return [run_to_wire(run, states) for run in page]
