"""A new job: asked for with the words of the API, looked at first where one wants to, and enqueued."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse

from clusters.api.fields import read_object
from clusters.binding import current_cluster
from config.problems import InvalidInput
from jobs.api.grants import refuse_words_of_dialects
from jobs.api.job_forms import NewJobInput, new_job
from jobs.engine.enqueue import enqueue
from jobs.engine.new_job import NewJob
from jobs.engine.preview import Preview, preview
from jobs.errors import JobError
from jobs.executors import PUBLIC_KINDS, kinds_started
from jobs.job_kinds import kinds
from jobs.models import Queue
from ui.answers import address, done, sent
from ui.callers import (
    may_start,
    require,
    require_start,
    tell_kind_not_offered,
    tell_refusal,
)
from ui.job_forms import NewJobForm

SHOWN_NAMES = 200


def new(site: Any, request: HttpRequest) -> HttpResponse:
    """Show the form, what would become of it, or the job that it became."""
    principal = require(request, "jobs.enqueue")
    allowed = [kind for kind in PUBLIC_KINDS if may_start(request, kind)]
    tell_kind_not_offered(request, request.POST.get("kind", ""))
    form = NewJobForm(sent(request), kinds=allowed)
    looked: Preview | None = None
    if request.method == "POST" and form.is_valid():
        try:
            asked = new_job(read_object(NewJobInput, form.words()))
            _check_start(request, asked)
            if "look" in request.POST:
                looked = preview(asked, by=principal.actor)
            else:
                made = enqueue(asked, by=principal.actor)
                said = "It is enqueued." if made.created else "This job is there already."
                return done(request, said, address(request, "job", job_id=made.job_id))
        except InvalidInput as error:
            form.refuse_all(error)
        except JobError as error:
            tell_refusal(request, error)
            form.refuse(error)
    names = Queue.objects.order_by("name").values_list("name", flat=True)
    context = {
        **site.each_context(request),
        "title": "New job",
        "subtitle": None,
        "form": form,
        "looked": looked,
        "back": address(request, "jobs"),
        "queues": [*names[:SHOWN_NAMES]],
        "types": kinds(current_cluster().alias)[:SHOWN_NAMES],
    }
    status = 400 if form.errors else 200
    return TemplateResponse(request, "ui/job/new.html", context, status=status)


def _check_start(request: HttpRequest, asked: NewJob) -> None:
    refuse_words_of_dialects(asked.kind, asked.payload)
    require_start(request, *kinds_started(asked.kind, asked.payload))


ROUTES = (("jobs/new/", new, "job-new"),)
