"""Workflows of one cluster, and their runs."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpResponse
from django.urls import reverse
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import parse_uuid, refuse
from clusters.api.paging import NEWEST_FIRST, read_page
from clusters.api.schema import (
    BODY,
    IDEMPOTENCY_KEY,
    IF_MATCH,
    RUN_ID,
    SCHEDULE_ID,
    WORKFLOW_ID,
    answers,
)
from jobs.api import workflow_wire as wire
from jobs.api.examples import WORKFLOW_EXAMPLES
from jobs.api.job_wire import Count
from jobs.api.once import answer_once
from jobs.api.versions import asked_versions, etag
from jobs.engine import workflows
from jobs.errors import WorkflowNotFound, WorkflowRunNotFound
from jobs.models import Schedule, Workflow, WorkflowRun
from jobs.models.runs import node_states
from jobs.models.workflow import WorkflowQuerySet


class WorkflowViewSet(NativeViewSet):
    verbs = {
        "list": "workflows.read",
        "count": "workflows.read",
        "retrieve": "workflows.read",
        "create": "workflows.create",
        "partial_update": "workflows.change",
        "destroy": "workflows.delete",
        "trigger": "workflows.trigger",
    }

    @extend_schema(
        operation_id="workflows_list",
        summary="List workflows, newest first",
        parameters=[wire.WorkflowListQuery],
        responses=answers({200: wire.WorkflowPage}),
    )
    def list(self, request: Request, cluster_id: str) -> HttpResponse:
        asked = self.query(wire.WorkflowListQuery)
        page = read_page(request, _listed(asked), NEWEST_FIRST, asked)
        return reply(page.to_json(wire.workflow_to_json))

    @extend_schema(
        operation_id="workflows_count",
        summary="Count workflows",
        parameters=[wire.WorkflowFilter],
        responses=answers({200: Count}),
    )
    def count(self, request: Request, cluster_id: str) -> HttpResponse:
        count = _listed(self.query(wire.WorkflowFilter)).count()
        return reply({"count": count, "is_exact": True})

    @extend_schema(
        operation_id="workflows_create",
        summary="Create a workflow",
        description="Of schedules that exist. To run it by itself, make a schedule with its "
        "`workflow_id`.",
        request=wire.NewWorkflowInput,
        responses=answers({201: wire.WorkflowDetail}, 409, *BODY),
        examples=WORKFLOW_EXAMPLES,
    )
    def create(self, request: Request, cluster_id: str) -> HttpResponse:
        self.query()
        values = wire.definition(self.body(wire.NewWorkflowInput))
        workflow = workflows.create(by=self.principal.actor, **values)
        location = reverse("workflow", args=[cluster_id, workflow.pk])
        return _detail(workflow, 201, {"Location": location})

    @extend_schema(
        operation_id="workflows_get",
        summary="Get a workflow",
        parameters=[WORKFLOW_ID],
        responses=answers({200: wire.WorkflowDetail}),
    )
    def retrieve(self, request: Request, cluster_id: str, workflow_id: str) -> HttpResponse:
        self.query()
        return _detail(workflows.get(_key(workflow_id)))

    @extend_schema(
        operation_id="workflows_change",
        summary="Change a workflow",
        parameters=[WORKFLOW_ID, IF_MATCH],
        request=wire.WorkflowChangeInput,
        responses=answers({200: wire.WorkflowDetail}, 409, 412, *BODY),
    )
    def partial_update(self, request: Request, cluster_id: str, workflow_id: str) -> HttpResponse:
        self.query()
        workflow = workflows.get(_key(workflow_id))
        values = wire.definition(self.body(wire.WorkflowChangeInput))
        if not values:
            refuse("body", "Names nothing to change.", "required")
        versions = asked_versions(request)
        return _detail(
            workflows.change(workflow.pk, by=self.principal.actor, versions=versions, **values)
        )

    @extend_schema(
        operation_id="workflows_delete",
        summary="Delete a workflow",
        description="Its runs stay, and those that go on end by themselves. Refused while a schedule "
        "starts it.",
        parameters=[WORKFLOW_ID, IF_MATCH],
        request=None,
        responses=answers({204: None}, 409, 412),
    )
    def destroy(self, request: Request, cluster_id: str, workflow_id: str) -> HttpResponse:
        self.query()
        self.body()
        versions = asked_versions(request)
        workflows.delete(_key(workflow_id), by=self.principal.actor, versions=versions)
        return HttpResponse(status=204)

    @extend_schema(
        operation_id="workflows_trigger",
        summary="Run a workflow now",
        description="Beside runs that go on. A re-run of it has the same `payloads`.",
        parameters=[WORKFLOW_ID, IDEMPOTENCY_KEY],
        request=wire.StartRunInput,
        responses=answers({202: wire.RunDetail}, 409, 422, 429, *BODY),
    )
    def trigger(self, request: Request, cluster_id: str, workflow_id: str) -> HttpResponse:
        self.query()
        asked = self.body(wire.StartRunInput)
        workflow = workflows.get(_key(workflow_id))
        payloads = wire.payloads_of(asked)

        def effect() -> tuple[int, Any]:
            run = workflows.start_run(workflow.pk, by=self.principal.actor, payloads=payloads)
            return 202, _run_to_json(run)

        response, body = answer_once(request, self.principal.actor, effect)
        response.headers["Location"] = _address(cluster_id, body)
        return response


class WorkflowRunViewSet(NativeViewSet):
    verbs = {
        "list": "workflows.read",
        "count": "workflows.read",
        "retrieve": "workflows.read",
        "cancel": "workflows.cancel",
        "rerun": "workflows.trigger",
        "skip": "workflows.trigger",
    }

    @extend_schema(
        operation_id="workflow_runs_list",
        summary="List the runs of a workflow, newest first",
        description="Also of one that was deleted.",
        parameters=[WORKFLOW_ID, wire.RunListQuery],
        responses=answers({200: wire.RunPage}),
    )
    def list(self, request: Request, cluster_id: str, workflow_id: str) -> HttpResponse:
        asked = self.query(wire.RunListQuery)
        page = read_page(request, _runs(workflow_id, asked), NEWEST_FIRST, asked)
        return reply(page.to_json(wire.run_to_json))

    @extend_schema(
        operation_id="workflow_runs_count",
        summary="Count the runs of a workflow",
        parameters=[WORKFLOW_ID, wire.RunFilter],
        responses=answers({200: Count}),
    )
    def count(self, request: Request, cluster_id: str, workflow_id: str) -> HttpResponse:
        asked = self.query(wire.RunFilter)
        found = _runs(workflow_id, asked)[: MAX_COUNTED + 1].count()
        return reply({"count": min(found, MAX_COUNTED), "is_exact": found <= MAX_COUNTED})

    @extend_schema(
        operation_id="workflow_runs_get",
        summary="Get a run of a workflow, node by node",
        parameters=[WORKFLOW_ID, RUN_ID],
        responses=answers({200: wire.RunDetail}),
    )
    def retrieve(
        self, request: Request, cluster_id: str, workflow_id: str, run_id: str
    ) -> HttpResponse:
        self.query()
        return reply(_run_to_json(_run(workflow_id, run_id)))

    @extend_schema(
        operation_id="workflow_runs_cancel",
        summary="Cancel a run of a workflow",
        description="No other node starts, and those that run are asked to stop. Twice is no error.",
        parameters=[WORKFLOW_ID, RUN_ID],
        request=None,
        responses=answers({200: wire.RunDetail}, 409),
    )
    def cancel(
        self, request: Request, cluster_id: str, workflow_id: str, run_id: str
    ) -> HttpResponse:
        self.query()
        self.body()
        run = workflows.cancel_run(_run(workflow_id, run_id).pk, by=self.principal.actor)
        return reply(_run_to_json(run))

    @extend_schema(
        operation_id="workflow_runs_rerun",
        summary="Take up a run of a workflow again",
        description="A new run: what succeeded is carried over, and the rest is done anew.",
        parameters=[WORKFLOW_ID, RUN_ID, IDEMPOTENCY_KEY],
        request=None,
        responses=answers({202: wire.RunDetail}, 409, 422, 429),
    )
    def rerun(
        self, request: Request, cluster_id: str, workflow_id: str, run_id: str
    ) -> HttpResponse:
        self.query()
        self.body()
        run = _run(workflow_id, run_id)

        def effect() -> tuple[int, Any]:
            return 202, _run_to_json(workflows.rerun(run.pk, by=self.principal.actor))

        response, body = answer_once(request, self.principal.actor, effect)
        response.headers["Location"] = _address(cluster_id, body)
        return response

    @extend_schema(
        operation_id="workflow_runs_skip_node",
        summary="Skip a node of a run that has not started",
        description="Those that wait for it go on as if it had succeeded.",
        parameters=[WORKFLOW_ID, RUN_ID, SCHEDULE_ID],
        request=None,
        responses=answers({200: wire.RunDetail}, 409),
    )
    def skip(
        self, request: Request, cluster_id: str, workflow_id: str, run_id: str, schedule_id: str
    ) -> HttpResponse:
        self.query()
        self.body()
        run, node = _run(workflow_id, run_id), parse_uuid(schedule_id)
        if node is None:
            raise WorkflowRunNotFound
        return reply(_run_to_json(workflows.skip_node(run.pk, node)))


# Counting runs stops here.
MAX_COUNTED = 10_000


def _listed(asked: dict[str, Any]) -> WorkflowQuerySet:
    rows: WorkflowQuerySet = Workflow.objects.all()
    rows = rows.kept()
    for word in ("source", "created_by"):
        if word in asked:
            rows = rows.filter(**{word: asked[word]})
    return rows.search(asked["search"]) if "search" in asked else rows


def _key(workflow_id: str) -> UUID:
    key = parse_uuid(workflow_id)
    if key is None:
        raise WorkflowNotFound
    return key


def _detail(
    workflow: Workflow, status: int = 200, headers: dict[str, str] | None = None
) -> HttpResponse:
    starting = Schedule.objects.all().kept().filter(workflow_id=workflow.pk).order_by("pk")
    body = wire.workflow_detail_to_json(
        workflow, workflows.nodes_of(workflow), list(starting.values_list("pk", flat=True)[:100])
    )
    return reply(body, status, {**etag(workflow.version), **(headers or {})})


def _runs(workflow_id: str, asked: dict[str, Any]) -> Any:
    workflow = workflows.kept_or_deleted(_key(workflow_id))
    rows = WorkflowRun.objects.filter(workflow_id=workflow.pk)
    return rows.filter(state=asked["state"]) if "state" in asked else rows


def _run(workflow_id: str, run_id: str) -> WorkflowRun:
    key, run_key = parse_uuid(workflow_id), parse_uuid(run_id)
    run = workflows.get_run(run_key) if key and run_key else None
    if run is None or run.workflow_id != key:
        raise WorkflowRunNotFound
    return run


def _run_to_json(run: WorkflowRun) -> dict[str, Any]:
    return wire.run_detail_to_json(run, node_states(str(run._state.db), [run]))


def _address(cluster_id: str, run: dict[str, Any]) -> str:
    return reverse("workflow-run", args=[cluster_id, run["workflow_id"], run["id"]])
