"""One job: why it does what it does, all that is known of it, and what a person may do about it."""

from __future__ import annotations

import base64
from typing import Any
from uuid import UUID

from django.db.models import F, OuterRef, Subquery, UUIDField
from django.db.models.lookups import In
from django.http import HttpRequest, HttpResponse

from clusters.binding import current_cluster
from clusters.models import AuditEntry, Node
from jobs.engine.requeue import may_be_requeued
from jobs.engine.waiting import why_waiting
from jobs.models import Attempt, Job, JobDependency, Schedule, WorkflowRun
from jobs.secrets import shown_payload
from jobs.states import FINAL, RETRYABLE_FROM, UNSTARTED, State
from jobs.step_logs import is_made_of_steps
from jobs.step_tree import steps_of
from jobs.step_words import STEPS
from ui import graphs
from ui.answers import address
from ui.callers import may, may_start_again, require
from ui.finding import find_job
from ui.fragments import is_fragment, show
from ui.pages import job_log
from ui.payloads import Line, difference
from ui.words import size

SHOWN_ATTEMPTS, SHOWN_EDGES, SHOWN_DEEDS = 20, 20, 10
SHOWN_BYTES = 1024


def page(site: Any, request: HttpRequest, job_id: UUID) -> HttpResponse:
    job = find_job(job_id)
    require(request, "jobs.read")
    attempts = _attempts(job)
    parents, children = _edges(job)
    deeds = _deeds(request, job)
    context = {
        "job": job,
        "payload": shown_payload(job.kind, job.payload),
        "origin": _origin(job),
        "reasons": why_waiting(job),
        "attempts": attempts[:SHOWN_ATTEMPTS],
        "has_more_attempts": len(attempts) > SHOWN_ATTEMPTS,
        "node": _holder(job),
        "parents": parents,
        "children": children,
        "buttons": _buttons(request, job),
        "deeds": deeds,
        "request_of": next((one.request_id for one in deeds if one.verb == "jobs.enqueue"), None),
        "seconds": _seconds(job),
        "bytes": _bytes(job),
        "graph": _graph(request, job) if is_made_of_steps(job) else None,
        "lines": _difference(job),
    }
    if not is_fragment(request):
        context["log"] = job_log.shown(request, job)
    return show(site, request, "job", context, title="Job")


def _attempts(job: Job) -> list[Any]:
    """The last ones, each with the name of its node, if that is still known."""
    node = Node.objects.filter(pk=OuterRef("node_id"))
    rows = Attempt.objects.filter(job_id=job.pk).annotate(
        host=Subquery(node.values("host")[:1]), pid=Subquery(node.values("pid")[:1])
    )
    return [*rows.order_by("-fence")[: SHOWN_ATTEMPTS + 1]]


def _origin(job: Job) -> dict[str, Any]:
    """The schedule that made it, and its run of a workflow, as far as they are still there."""
    if job.schedule_id is None and job.workflow_run_id is None:
        return {}
    schedule = Schedule.objects.filter(pk=OuterRef("schedule_id"))
    run = WorkflowRun.objects.filter(pk=OuterRef("workflow_run_id"))
    rows = Job.objects.filter(pk=job.pk).values(
        schedule_name=Subquery(schedule.values("name")[:1]),
        schedule_deleted_at=Subquery(schedule.values("deleted_at")[:1]),
        workflow_id=Subquery(run.values("workflow_id")[:1], output_field=UUIDField()),
        workflow_name=Subquery(run.values("workflow__name")[:1]),
        workflow_deleted_at=Subquery(run.values("workflow__deleted_at")[:1]),
        run_state=Subquery(run.values("state")[:1]),
    )
    return {**(rows.first() or {})}


def _holder(job: Job) -> Node | None:
    if job.state != State.RUNNING or job.node_id is None:
        return None
    return Node.objects.filter(pk=job.node_id).first()


def _edges(job: Job) -> tuple[list[Any], list[Any]]:
    """Jobs it waited for and jobs that wait for it, each with its type and state."""
    parents = _first_of(JobDependency.objects.filter(child_id=job.pk), "parent_id")
    children = _first_of(JobDependency.objects.filter(parent_id=job.pk), "child_id")
    rows = sorted(parents.union(children, all=True), key=lambda row: row.end)
    return (
        [row for row in rows if row.child_id == job.pk],
        [row for row in rows if row.parent_id == job.pk],
    )


def _first_of(edges: Any, there: str) -> Any:
    """So many as are shown, by a key each: there may be very many."""
    other = Job.objects.filter(pk=OuterRef(there))
    first = edges.order_by(there).values(there)[:SHOWN_EDGES]
    return edges.filter(In(F(there), first)).annotate(
        end=F(there),
        end_type=Subquery(other.values("type")[:1]),
        end_state=Subquery(other.values("state")[:1]),
    )


def _deeds(request: HttpRequest, job: Job) -> list[AuditEntry]:
    if not may(request, "audit.read"):
        return []
    entries = AuditEntry.objects.all().about("job", str(job.pk))
    return [*entries[:SHOWN_DEEDS]]


def _difference(job: Job) -> list[Line]:
    """What its payload says otherwise than that of the job it is a copy of."""
    if job.copy_of is None:
        return []
    original = Job.objects.only("kind", "payload").filter(pk=job.copy_of).first()
    if original is None:
        return []
    shown = [shown_payload(one.kind, one.payload) for one in (original, job)]
    return difference(*shown)


def _graph(request: HttpRequest, job: Job) -> dict[str, Any]:
    """Its steps: those of a list one after the other, those of a group all at once."""
    steps = steps_of(current_cluster().alias, job.pk, limit=graphs.MAX_DRAWN)
    below: dict[UUID, list[Any]] = {}
    for step in steps:
        below.setdefault(step.parent_id, []).append(step)
    after: dict[UUID, list[UUID]] = {}

    def order(parent_id: UUID, kind: str, before: list[UUID]) -> list[UUID]:
        """Say what each of these steps comes after; those at the end of all come before what follows."""
        ends: list[UUID] = []
        for step in sorted(below.get(parent_id, ()), key=lambda step: (step.index, step.job_id)):
            after[step.job_id] = before if kind != STEPS or not ends else ends
            last = order(step.job_id, step.job.kind, [step.job_id])
            ends = last if kind == STEPS else [*ends, *last]
        return ends or before

    order(job.pk, job.kind, [])
    nodes = [
        graphs.Node(
            key=str(step.job_id),
            label=step.name or step.job.type,
            state=step.job.state,
            url=address(request, "job", job_id=step.job_id),
            note=step.job.type or step.job.kind,
            after=[str(key) for key in after[step.job_id]],
            is_lenient=step.is_tolerated,
        )
        for step in steps
        if step.job_id in after
    ]
    return graphs.graph("steps", "The steps of this job", nodes)


def _seconds(job: Job) -> float | None:
    if job.started_at is None or job.finished_at is None or job.finished_at < job.started_at:
        return None
    return (job.finished_at - job.started_at).total_seconds()


def _bytes(job: Job) -> dict[str, Any] | None:
    if job.payload_bytes is None:
        return None
    data = bytes(job.payload_bytes)
    return {
        "size": size(len(data)),
        "text": base64.b64encode(data[:SHOWN_BYTES]).decode(),
        "is_cut": len(data) > SHOWN_BYTES,
    }


def _buttons(request: HttpRequest, job: Job) -> list[dict[str, Any]]:
    """What this caller may do with this job as it is; one that stops or deletes asks first."""
    starts = may_start_again(request, job)
    can_stop = job.state not in FINAL and job.cancel_requested_at is None
    copies = starts and may_be_requeued(job)
    again = "Retry what did not succeed" if is_made_of_steps(job) else "Retry"
    wanted = (
        ("retry", again, job.state in RETRYABLE_FROM and starts, "jobs.retry", True),
        ("run-now", "Run now", job.state == State.SCHEDULED and starts, "jobs.run_now", True),
        ("change", "Change…", job.state in UNSTARTED, "jobs.change", False),
        ("copy", "Copy", copies, "jobs.requeue", True),
        ("copy-changed", "Changed copy…", copies, "jobs.requeue", False),
        ("cancel", "Cancel…", can_stop, "jobs.cancel", False),
        ("delete", "Delete…", job.state in FINAL, "jobs.delete", False),
    )
    return [
        {
            "name": name,
            "label": label,
            "url": address(request, f"job-{name}", job_id=job.pk),
            "is_direct": is_direct,
            "is_primary": name in ("retry", "run-now"),
        }
        for name, label, is_possible, verb, is_direct in wanted
        if is_possible and may(request, verb)
    ]


ROUTES = (("jobs/<uuid:job_id>/", page, "job"),)
