"""The workflows of a cluster: graphs of schedules' work, and how each run of them went, node by node."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db.models import OuterRef, Subquery
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from clusters.api.fields import Text
from clusters.api.paging import NEWEST_FIRST, PageQuery
from clusters.binding import current_cluster
from jobs.engine import workflows
from jobs.errors import JobError
from jobs.models import (
    Job,
    OnNodeFailure,
    RunState,
    Schedule,
    Workflow,
    WorkflowNode,
    WorkflowRun,
)
from jobs.secrets import meant_payload, shown_payload
from jobs.states import State
from ui import graphs
from ui.answers import address, confirm, done, post_only, refused, sent
from ui.asking import Asked
from ui.callers import may, may_start, require, require_start
from ui.deeds import deed
from ui.forms import ReasonForm
from ui.fragments import show
from ui.payloads import JsonField

PAGE_SIZE = 50
SHOWN_STARTERS = 20


class Query(PageQuery):
    name = Text(max_length=200, required=False, help_text="Of the workflow; its beginning.")


# -- Seen ------------------------------------------------------------------------------------------


def page(site: Any, request: HttpRequest) -> HttpResponse:
    require(request, "workflows.read")
    asked = Asked(request, Query)
    context = {
        **asked.page(request, _found, NEWEST_FIRST, PAGE_SIZE),
        "name": asked.given.get("name", ""),
        "is_filtered": "name" in asked.words,
    }
    return show(site, request, "workflows", context, title="Workflows", status=asked.status)


def _found(words: Mapping[str, Any]) -> Any:
    """Workflows, each with what is told of its last run."""
    rows = Workflow.objects.all().kept()
    if "name" in words:
        rows = rows.filter(name__istartswith=words["name"])
    last = WorkflowRun.objects.filter(workflow_id=OuterRef("pk")).order_by("-created_at", "-pk")
    return rows.annotate(
        last_state=Subquery(last.values("state")[:1]),
        last_begun_at=Subquery(last.values("created_at")[:1]),
    )


def one(site: Any, request: HttpRequest, workflow_id: UUID) -> HttpResponse:
    require(request, "workflows.read")
    workflow = _workflow(workflow_id)
    asked = Asked(request, PageQuery)
    runs = WorkflowRun.objects.filter(workflow_id=workflow_id)
    turned = asked.page(request, lambda words: runs, NEWEST_FIRST, PAGE_SIZE)
    starters = Schedule.objects.all().kept().filter(workflow_id=workflow_id).order_by("name")
    nodes = workflows.nodes_of(workflow)
    context = {
        "workflow": workflow,
        "graph": _graph_of(request, workflow, nodes),
        "gone": [node.schedule.name for node in nodes if node.schedule.deleted_at],
        "starters": [*starters[:SHOWN_STARTERS]],
        "runs": turned.pop("rows"),
        **turned,
        "may_trigger": may(request, "workflows.trigger") and _may_start(request, workflow_id),
    }
    return show(site, request, "workflow", context, title="Workflow", status=asked.status)


def _graph_of(
    request: HttpRequest, workflow: Workflow, nodes: Sequence[WorkflowNode]
) -> dict[str, Any]:
    """The definition; each node leads to the schedule whose work it is."""
    drawn = [
        graphs.Node(
            key=str(node.schedule_id),
            label=node.schedule.name,
            url=None
            if node.schedule.deleted_at
            else address(request, "schedule", schedule_id=node.schedule_id),
            note=node.schedule.type,
            after=node.depends_on,
            is_lenient=node.on_failure == OnNodeFailure.CONTINUE,
        )
        for node in nodes
    ]
    return graphs.graph("workflow", f"The nodes of {workflow.name}", drawn)


def run(site: Any, request: HttpRequest, workflow_id: UUID, run_id: UUID) -> HttpResponse:
    require(request, "workflows.read")
    found = _run(workflow_id, run_id)
    nodes = _nodes(found)
    is_over = found.state != RunState.RUNNING
    context = {
        "run": found,
        "workflow": found.workflow,
        "nodes": nodes,
        "graph": _graph_of_run(request, found, nodes),
        "succeeded": sum(node["state"] == State.SUCCEEDED for node in nodes),
        "may_cancel": may(request, "workflows.cancel")
        and not is_over
        and found.cancel_requested_at is None,
        "may_rerun": is_over
        and any(node["state"] != State.SUCCEEDED for node in nodes)
        and may(request, "workflows.trigger")
        and _may_start_again(request, found),
    }
    return show(site, request, "workflow_run", context, title="Run of a workflow")


def _nodes(found: WorkflowRun) -> list[dict[str, Any]]:
    """The nodes as they were when it began, each with its job as it is."""
    ids = [UUID(node["job_id"]) for node in found.nodes]
    columns = ("pk", "state", "error", "started_at", "finished_at")
    jobs = {row["pk"]: row for row in Job.objects.filter(pk__in=ids).values(*columns)}
    names = {node["schedule_id"]: node["name"] for node in found.nodes}
    return [
        {
            "name": node["name"],
            "schedule_id": node["schedule_id"],
            "on_failure": node["on_failure"],
            "depends_on": [names.get(pk, pk) for pk in node["depends_on"]],
            "job": jobs.get(UUID(node["job_id"])),
            "is_carried_over": bool(node.get("is_carried_over")),
            "state": _state_of(node, jobs.get(UUID(node["job_id"]))),
        }
        for node in found.nodes
    ]


def _graph_of_run(
    request: HttpRequest, found: WorkflowRun, nodes: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """The run as it goes; each node leads to its job."""
    drawn = [
        graphs.Node(
            key=node["schedule_id"],
            label=node["name"],
            state=node["state"] or "gone",
            url=address(request, "job", job_id=node["job"]["pk"]) if node["job"] else None,
            note="carried over" if node["is_carried_over"] else "",
            after=given["depends_on"],
            is_lenient=node["on_failure"] == OnNodeFailure.CONTINUE,
        )
        for node, given in zip(nodes, found.nodes, strict=True)
    ]
    return graphs.graph("run", f"The nodes of this run of {found.workflow.name}", drawn)


def _state_of(node: dict[str, Any], job: Any) -> str | None:
    if job is not None:
        return str(job["state"])
    # Retention may have taken its job, but only of what had succeeded is anything carried over.
    return str(State.SUCCEEDED) if node.get("is_carried_over") else None


# -- Done ------------------------------------------------------------------------------------------


@post_only
def trigger(site: Any, request: HttpRequest, workflow_id: UUID) -> HttpResponse:
    require(request, "workflows.trigger")
    workflow, back = _workflow(workflow_id), address(request, "workflow", workflow_id=workflow_id)
    require_start(request, *workflows.kinds_of(workflow_id))
    try:
        with deed(request, "workflows.trigger", "workflow", workflow_id) as trace:
            made = workflows.start_run(workflow_id, by=trace.by.actor)
            trace.after = {"run_id": made.pk}
    except JobError as error:
        return refused(request, error, back)
    to = address(request, "workflow-run", workflow_id=workflow_id, run_id=made.pk)
    return done(request, f"{workflow.name} runs.", to)


def start(site: Any, request: HttpRequest, workflow_id: UUID) -> HttpResponse:
    """Ask for the payloads of the nodes; then run it with those that differ from their own."""
    principal = require(request, "workflows.trigger")
    workflow, back = _workflow(workflow_id), address(request, "workflow", workflow_id=workflow_id)
    form = InputForm(workflows.nodes_of(workflow), sent(request))
    if request.method == "POST":
        payloads = form.payloads()
        started = workflows.kinds_started_with(workflow_id, payloads)
        require_start(request, *started)
        if not form.has_errors:
            try:
                run = workflows.start_run(workflow_id, by=principal.actor, payloads=payloads)
            except JobError as error:
                return refused(request, error, back)
            to = address(request, "workflow-run", workflow_id=workflow_id, run_id=run.pk)
            return done(request, f"{workflow.name} runs.", to)
    else:
        require_start(request, *workflows.kinds_of(workflow_id))
    context = {
        **site.each_context(request),
        "title": "Run with other input",
        "subtitle": None,
        "workflow": workflow,
        "form": form,
        "back": back,
    }
    status = 400 if form.has_errors else 200
    return TemplateResponse(request, "ui/workflow_start/page.html", context, status=status)


class InputForm:
    """The payload of each node as JSON; what is left alone is the schedule's own."""

    def __init__(self, nodes: Sequence[WorkflowNode], given: Any) -> None:
        self.fields = [_input_of(node, given) for node in nodes]

    @property
    def has_errors(self) -> bool:
        return any(one["error"] for one in self.fields)

    def payloads(self) -> dict[UUID, Any]:
        found: dict[UUID, Any] = {}
        for one in self.fields:
            schedule: Schedule = one["schedule"]
            if one["text"] == one["shown"]:
                continue
            try:
                value = JsonField().clean(one["text"])
            except ValidationError as error:
                one["error"] = " ".join(error.messages)
            else:
                found[schedule.pk] = meant_payload(schedule.kind, value, schedule.payload)
        return found


def _input_of(node: WorkflowNode, given: Any) -> dict[str, Any]:
    schedule = node.schedule
    payload = shown_payload(schedule.kind, schedule.payload)
    shown = "" if payload is None else json.dumps(payload, ensure_ascii=False, indent=2)
    name = f"payload-{schedule.pk}"
    text = shown if given is None else given.get(name, shown).replace("\r\n", "\n")
    return {"name": name, "schedule": schedule, "shown": shown, "text": text, "error": ""}


def cancel(site: Any, request: HttpRequest, workflow_id: UUID, run_id: UUID) -> HttpResponse:
    """Ask first, for it stops work; then start no other node, and ask those that run to stop."""
    require(request, "workflows.cancel")
    found = _run(workflow_id, run_id)
    back = address(request, "workflow-run", workflow_id=workflow_id, run_id=run_id)
    form = ReasonForm(sent(request))
    if request.method == "POST" and form.is_valid():
        reason = form.cleaned_data["reason"]
        try:
            actor = require(request, "workflows.cancel").actor
            workflows.cancel_run(run_id, by=actor, reason=reason)
        except JobError as error:
            return refused(request, error, back)
        return done(request, "No other node starts.", back)
    return confirm(
        site,
        request,
        form,
        title="Cancel this run?",
        button="Cancel the run",
        effect="No other node starts. Those that run are asked to stop, and ended if they do not.",
        target=f"{found.workflow.name} · {found.pk}",
        back=back,
    )


@post_only
def rerun(site: Any, request: HttpRequest, workflow_id: UUID, run_id: UUID) -> HttpResponse:
    require(request, "workflows.trigger")
    found = _run(workflow_id, run_id)
    back = address(request, "workflow-run", workflow_id=workflow_id, run_id=run_id)
    require_start(request, *workflows.kinds_of_run(found))
    try:
        with deed(request, "workflows.trigger", "workflow", workflow_id) as trace:
            made = workflows.rerun(run_id, by=trace.by.actor)
            trace.after = {"run_id": made.pk, "rerun_of": run_id}
    except JobError as error:
        return refused(request, error, back)
    to = address(request, "workflow-run", workflow_id=workflow_id, run_id=made.pk)
    return done(request, "What did not succeed is done again.", to)


def _may_start(request: HttpRequest, workflow_id: UUID) -> bool:
    return may_start(request, *workflows.kinds_of(workflow_id))


def _may_start_again(request: HttpRequest, found: WorkflowRun) -> bool:
    return may_start(request, *workflows.kinds_of_run(found))


def _workflow(workflow_id: UUID) -> Workflow:
    found = Workflow.objects.all().kept().filter(pk=workflow_id).first()
    if found is None:
        raise Http404
    return found


def _run(workflow_id: UUID, run_id: UUID) -> WorkflowRun:
    """A run, also of a workflow that was deleted."""
    rows = WorkflowRun.objects.using(current_cluster().alias).select_related("workflow")
    found = rows.filter(pk=run_id, workflow_id=workflow_id).first()
    if found is None:
        raise Http404
    return found


ROUTES = (
    ("workflows/", page, "workflows"),
    ("workflows/<uuid:workflow_id>/", one, "workflow"),
    ("workflows/<uuid:workflow_id>/trigger/", trigger, "workflow-trigger"),
    ("workflows/<uuid:workflow_id>/start/", start, "workflow-start"),
    ("workflows/<uuid:workflow_id>/runs/<uuid:run_id>/", run, "workflow-run"),
    ("workflows/<uuid:workflow_id>/runs/<uuid:run_id>/cancel/", cancel, "workflow-run-cancel"),
    ("workflows/<uuid:workflow_id>/runs/<uuid:run_id>/rerun/", rerun, "workflow-run-rerun"),
)
