"""What people do to one job: retry, stop, delete, change it, or enqueue a copy of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from clusters.binding import current_cluster
from jobs.api.grants import refuse_words_of_dialects
from jobs.engine.edit import Changes, edit, version_of
from jobs.engine.requeue import requeue
from jobs.errors import JobError
from jobs.executors import kinds_started
from jobs.models import Job, Queue
from jobs.secrets import meant_payload, shown_payload
from jobs.states import State
from ui.answers import address, confirm, done, post_only, refused, sent
from ui.callers import require, require_start, require_start_again, tell_refusal
from ui.deeds import deed
from ui.finding import find_job
from ui.forms import DestroyForm, ReasonForm
from ui.job_forms import ChangeForm, CopyForm
from ui.payloads import difference

STARTS = frozenset({"jobs.retry", "jobs.run_now"})
SHOWN_QUEUES = 200


@post_only
def retry(site: Any, request: HttpRequest, job_id: UUID) -> HttpResponse:
    return _move(request, job_id, "jobs.retry", Job.retry, "It is ready again.")


@post_only
def run_now(site: Any, request: HttpRequest, job_id: UUID) -> HttpResponse:
    return _move(request, job_id, "jobs.run_now", Job.run_now, "It is ready, without waiting.")


def cancel(site: Any, request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Ask first, for it stops work; then cancel, or ask the work to stop."""
    require(request, "jobs.cancel")
    job = find_job(job_id)
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
    job = find_job(job_id)
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
    job, back = find_job(job_id), address(request, "job", job_id=job_id)
    if verb in STARTS:
        # Starting somebody else's program again is no less than starting one.
        require_start_again(request, job)
    try:
        with deed(request, verb, "job", job.pk, reason=reason) as trace:
            trace.before = {"state": str(job.state)}
            move(job)
            trace.after = {"state": str(job.state)}
    except JobError as error:
        return refused(request, error, back)
    return done(request, said, back)


# -- Another one, or the same one otherwise --------------------------------------------------------


@post_only
def copy(site: Any, request: HttpRequest, job_id: UUID) -> HttpResponse:
    """The same work once more, as it is."""
    principal = require(request, "jobs.requeue")
    job, back = find_job(job_id), address(request, "job", job_id=job_id)
    require_start_again(request, job)
    try:
        made = requeue(job, by=principal.actor)
    except JobError as error:
        return refused(request, error, back)
    return done(request, "This is the copy.", address(request, "job", job_id=made.pk))


def copy_changed(site: Any, request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Ask what is to be different, show it, and enqueue the copy."""
    principal = require(request, "jobs.requeue")
    job = find_job(job_id)
    require_start_again(request, job)
    form = CopyForm(sent(request), job=job)
    lines = None
    if request.method == "POST" and form.is_valid():
        changes = form.changes()
        lines = difference(shown_payload(job.kind, job.payload), changes.get("payload", form.shown))
        if "look" not in request.POST:
            try:
                _check_payload(request, job, changes)
                made = requeue(job, by=principal.actor, **changes)
            except JobError as error:
                tell_refusal(request, error)
                form.refuse(error)
            else:
                to = address(request, "job", job_id=made.pk)
                return done(request, "This is the copy.", to)
    return _form(
        site,
        request,
        job,
        form,
        title="A changed copy of this job",
        button="Enqueue the copy",
        lines=lines,
        effect="It is due now, has all its attempts, and names this job as its original. "
        "A secret that stands as *** stays what it is.",
    )


def change(site: Any, request: HttpRequest, job_id: UUID) -> HttpResponse:
    """Ask what is to be different about a job that has not started, and change that."""
    require(request, "jobs.change")
    job = find_job(job_id)
    back = address(request, "job", job_id=job_id)
    form = ChangeForm(sent(request), job=job)
    lines = None
    if request.method == "POST" and form.is_valid():
        changes = form.changes()
        lines = difference(shown_payload(job.kind, job.payload), changes.get("payload", form.shown))
        if not changes:
            return done(request, "Nothing was different.", back)
        if "look" not in request.POST:
            try:
                _check_payload(request, job, changes)
                if "payload" in changes:
                    changes["payload"] = meant_payload(job.kind, changes["payload"], job.payload)
                edit(job, Changes(**changes), versions=[form.cleaned_data["version"]])
            except JobError as error:
                tell_refusal(request, error)
                form.refuse(error)
            else:
                return done(request, "It is changed.", back)
    return _form(
        site,
        request,
        job,
        form,
        title="Change this job",
        button="Change the job",
        lines=lines,
        effect="It has not started. A secret that stands as *** stays what it is.",
        version=version_of(job),
    )


def _check_payload(request: HttpRequest, job: Job, changes: dict[str, Any]) -> None:
    """Another payload is another program."""
    if "payload" not in changes:
        return
    if job.dialect_notes is None:
        refuse_words_of_dialects(job.kind, changes["payload"])
    require_start(request, *kinds_started(job.kind, changes["payload"]))


def _form(site: Any, request: HttpRequest, job: Job, form: Any, **more: Any) -> HttpResponse:
    names = Queue.objects.order_by("name").values_list("name", flat=True)
    context = {
        **site.each_context(request),
        "subtitle": None,
        "form": form,
        "job": job,
        "back": address(request, "job", job_id=job.pk),
        "queues": [*names[:SHOWN_QUEUES]],
        **more,
    }
    status = 400 if form.errors else 200
    return TemplateResponse(request, "ui/job/form.html", context, status=status)


ROUTES = (
    ("jobs/<uuid:job_id>/retry/", retry, "job-retry"),
    ("jobs/<uuid:job_id>/run-now/", run_now, "job-run-now"),
    ("jobs/<uuid:job_id>/cancel/", cancel, "job-cancel"),
    ("jobs/<uuid:job_id>/delete/", delete, "job-delete"),
    ("jobs/<uuid:job_id>/copy/", copy, "job-copy"),
    ("jobs/<uuid:job_id>/copy-changed/", copy_changed, "job-copy-changed"),
    ("jobs/<uuid:job_id>/change/", change, "job-change"),
)
