"""One job: why it does what it does, all that is known of it, and what a person may do about it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.core.exceptions import PermissionDenied
from django.db.models import Case, F, OuterRef, Q, Subquery, When
from django.http import Http404, HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from clusters.binding import current_cluster
from clusters.models import AuditEntry, Node
from jobs.engine.started_kinds import kinds_started_by
from jobs.engine.waiting import why_waiting
from jobs.errors import JobError
from jobs.executors import CONDUCTED
from jobs.models import Attempt, Job, JobDependency, LogLine, Schedule, WorkflowRun
from jobs.secrets import shown_payload
from jobs.states import FINAL, RETRYABLE_FROM, State
from ui.answers import address, confirm, done, post_only, refused, sent
from ui.callers import may, may_start, require
from ui.deeds import deed
from ui.forms import DestroyForm, ReasonForm
from ui.fragments import is_fragment, show
from ui.words import size

SHOWN_ATTEMPTS, SHOWN_LINES, SHOWN_EDGES, SHOWN_DEEDS = 20, 200, 20, 10
SHOWN_BYTES = 1024
STARTS = frozenset({"jobs.retry", "jobs.run_now"})


# -- Seen ------------------------------------------------------------------------------------------


def page(site: Any, request: HttpRequest, job_id: UUID) -> HttpResponse:
    job = _job(job_id)
    require(request, "jobs.read")
    attempts = _attempts(job)
    lines = [] if is_fragment(request) else _last_lines(job.pk)
    parents, children = _edges(job)
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
        "deeds": _deeds(request, job),
        "seconds": _seconds(job),
        "bytes": _bytes(job),
        "lines": lines,
        "last_line": lines[-1].pk if lines else 0,
        "is_followed": job.state not in FINAL,
    }
    return show(site, request, "job", context, title="Job")


def log(site: Any, request: HttpRequest, job_id: UUID) -> HttpResponse:
    """The lines after the last one that the browser has; 204 where there is none."""
    require(request, "jobs.read")
    job = _job(job_id)
    try:
        after = max(int(request.GET.get("after", "0")), 0)
        if after > 2**63 - 1:
            raise ValueError
    except ValueError:
        return HttpResponse("after: must be a whole number", status=400, content_type="text/plain")
    lines = [*LogLine.objects.filter(job_id=job.pk, id__gt=after).order_by("id")[:SHOWN_LINES]]
    is_over = job.state in FINAL and len(lines) < SHOWN_LINES
    if not lines and not is_over:
        return HttpResponse(status=204)
    context = {
        "job": job,
        "lines": lines,
        "last_line": lines[-1].pk if lines else after,
        "is_followed": not is_over,
    }
    return TemplateResponse(request, "ui/job/lines.html", context)


def _job(job_id: UUID) -> Job:
    job = Job.objects.filter(pk=job_id).first()
    if job is None:
        raise Http404
    return job


def _attempts(job: Job) -> list[Any]:
    """The last ones, each with the name of its node, if that is still known."""
    node = Node.objects.filter(pk=OuterRef("node_id"))
    rows = Attempt.objects.filter(job_id=job.pk).annotate(
        host=Subquery(node.values("host")[:1]), pid=Subquery(node.values("pid")[:1])
    )
    return [*rows.order_by("-fence")[: SHOWN_ATTEMPTS + 1]]


def _last_lines(job_id: UUID) -> list[LogLine]:
    newest = LogLine.objects.filter(job_id=job_id).order_by("-id")[:SHOWN_LINES]
    return [*newest][::-1]


def _origin(job: Job) -> dict[str, Any]:
    """The schedule that made it, and its run of a workflow, as far as they are still there."""
    origin: dict[str, Any] = {}
    if job.schedule_id is not None:
        rows = Schedule.objects.filter(pk=job.schedule_id)
        origin["schedule"] = rows.only("id", "name", "deleted_at").first()
    if job.workflow_run_id is not None:
        runs = WorkflowRun.objects.filter(pk=job.workflow_run_id)
        origin["run"] = runs.select_related("workflow").defer("nodes").first()
    return origin


def _holder(job: Job) -> Node | None:
    if job.state != State.RUNNING or job.node_id is None:
        return None
    return Node.objects.filter(pk=job.node_id).first()


def _edges(job: Job) -> tuple[list[Any], list[Any]]:
    """Jobs it waited for and jobs that wait for it, each with its type and state."""
    end = Case(When(child_id=job.pk, then=F("parent_id")), default=F("child_id"))
    other = Job.objects.filter(pk=OuterRef("end"))
    edges = JobDependency.objects.filter(Q(child_id=job.pk) | Q(parent_id=job.pk)).annotate(
        end=end,
        end_type=Subquery(other.values("type")[:1]),
        end_state=Subquery(other.values("state")[:1]),
    )
    rows = [*edges.order_by("parent_id", "child_id")[: 2 * SHOWN_EDGES]]
    parents = [row for row in rows if row.child_id == job.pk]
    children = [row for row in rows if row.parent_id == job.pk]
    return parents[:SHOWN_EDGES], children[:SHOWN_EDGES]


def _deeds(request: HttpRequest, job: Job) -> list[AuditEntry]:
    if not may(request, "audit.read"):
        return []
    entries = AuditEntry.objects.all().about("job", str(job.pk))
    return [*entries[:SHOWN_DEEDS]]


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


# -- Done ------------------------------------------------------------------------------------------


def _buttons(request: HttpRequest, job: Job) -> list[dict[str, Any]]:
    """What this caller may do with this job as it is; one that stops or deletes asks first."""
    starts = _may_start(request, job)
    can_stop = job.state not in FINAL and job.cancel_requested_at is None
    wanted = (
        ("retry", "Retry", job.state in RETRYABLE_FROM and starts, "jobs.retry", True),
        ("run-now", "Run now", job.state == State.SCHEDULED and starts, "jobs.run_now", True),
        ("cancel", "Cancel…", can_stop, "jobs.cancel", False),
        ("delete", "Delete…", job.state in FINAL, "jobs.delete", False),
    )
    return [
        {
            "name": name,
            "label": label,
            "url": address(request, f"job-{name}", job_id=job.pk),
            "is_direct": is_direct,
        }
        for name, label, is_possible, verb, is_direct in wanted
        if is_possible and may(request, verb)
    ]


def _may_start(request: HttpRequest, job: Job) -> bool:
    if not job.has_dependants and job.kind not in CONDUCTED:
        # Neither a step nor made of steps.
        return may_start(request, job.kind)
    started = kinds_started_by(job._state.db or "", {job.pk: job.kind})
    return may_start(request, *started[job.pk])


@post_only
def retry(site: Any, request: HttpRequest, job_id: UUID) -> HttpResponse:
    return _move(request, job_id, "jobs.retry", Job.retry, "It is ready again.")


@post_only
def run_now(site: Any, request: HttpRequest, job_id: UUID) -> HttpResponse:
    return _move(request, job_id, "jobs.run_now", Job.run_now, "It is ready, without waiting.")


def cancel(site: Any, request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Ask first, for it stops work; then cancel, or ask the work to stop."""
    require(request, "jobs.cancel")
    job = _job(job_id)
    form = ReasonForm(sent(request))
    if request.method == "POST" and form.is_valid():
        reason = form.cleaned_data["reason"]
        said = "Asked to stop." if job.state == State.RUNNING else "Cancelled."
        return _move(request, job_id, "jobs.cancel", Job.cancel, said, reason=reason)
    effect = (
        "It is running: its work is asked to stop, and ended if it does not."
        if job.state == State.RUNNING
        else "It has not started, and will not."
    )
    return confirm(
        site,
        request,
        form,
        title="Cancel this job?",
        button="Cancel the job",
        effect=effect,
        target=f"{job.type} · {job.pk}",
        back=address(request, "job", job_id=job.pk),
    )


def delete(site: Any, request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Ask first; then delete the job with its attempts and its log."""
    require(request, "jobs.delete")
    job = _job(job_id)
    form = DestroyForm(sent(request), cluster=current_cluster())
    if request.method == "POST" and form.is_valid():
        reason = form.cleaned_data["reason"]
        try:
            with deed(request, "jobs.delete", "job", job.pk, reason=reason) as trace:
                trace.before = {"type": job.type, "queue": job.queue, "state": str(job.state)}
                job.delete_final()
        except JobError as error:
            return refused(request, error, address(request, "job", job_id=job_id))
        return done(request, f"Job {job_id} is deleted.", address(request, "jobs"))
    return confirm(
        site,
        request,
        form,
        title="Delete this job?",
        button="Delete the job",
        effect="The job, its attempts and its log are gone for good. Its figures stay.",
        target=f"{job.type} · {job.pk}",
        back=address(request, "job", job_id=job.pk),
    )


def _move(
    request: HttpRequest,
    job_id: UUID,
    verb: str,
    move: Callable[[Job], None],
    said: str,
    *,
    reason: str = "",
) -> HttpResponse:
    require(request, verb)
    job, back = _job(job_id), address(request, "job", job_id=job_id)
    if verb in STARTS and not _may_start(request, job):
        # Starting somebody else's program again is no less than starting one.
        raise PermissionDenied
    try:
        with deed(request, verb, "job", job.pk, reason=reason) as trace:
            trace.before = {"state": str(job.state)}
            move(job)
            trace.after = {"state": str(job.state)}
    except JobError as error:
        return refused(request, error, back)
    return done(request, said, back)


ROUTES = (
    ("jobs/<uuid:job_id>/", page, "job"),
    ("jobs/<uuid:job_id>/log/", log, "job-log"),
    ("jobs/<uuid:job_id>/retry/", retry, "job-retry"),
    ("jobs/<uuid:job_id>/run-now/", run_now, "job-run-now"),
    ("jobs/<uuid:job_id>/cancel/", cancel, "job-cancel"),
    ("jobs/<uuid:job_id>/delete/", delete, "job-delete"),
)
