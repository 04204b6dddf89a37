"""Jobs: a list, new ones, one of them, and what may be done with it."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from rest_framework.request import Request

from jobs import steps_search
from jobs.dialects.tork.errors import refuse
from jobs.dialects.tork.views import logs
from jobs.dialects.tork.views.base import OK, Page, TorkView, audience, known_since, reply
from jobs.dialects.tork.views.jobs_read import full_job
from jobs.dialects.tork.views.rows import find_job, jobs_of
from jobs.dialects.tork.views.submitting import read_job
from jobs.dialects.tork.views.waiting import wait_for
from jobs.dialects.tork.wire.jobs import Shown, redactor_of, summary_to_wire
from jobs.dialects.tork.wire.states import ENDED, JOB_STATES, STATES_OF_WORDS
from jobs.engine.enqueue import enqueue
from jobs.errors import InvalidTransition
from jobs.steps_search import Search

PAGE_SIZE, MAX_PAGE_SIZE = 10, 20


class JobView(TorkView):
    verbs = {
        "list": "jobs.read",
        "create": "jobs.enqueue",
        "retrieve": "jobs.read",
        "log": "jobs.read",
        "cancel": "jobs.cancel",
        "restart": "jobs.retry",
    }

    def list(self, request: Request, **_: Any) -> HttpResponse:
        page = Page.of(request.query_params, PAGE_SIZE, MAX_PAGE_SIZE)
        words, tags = steps_search.read_query(request.query_params.get("q") or "")
        asked = Search(words, tags, audience(self.principal, self.kwargs["cluster_id"]))
        found = steps_search.find(self.using, asked, STATES_OF_WORDS, page.offset, page.size)
        jobs = jobs_of(self.using, found.ids)
        known = known_since({shown.author for shown in jobs})
        return page.reply([summary_to_wire(shown, known) for shown in jobs], found.total)

    def create(self, request: Request, **_: Any) -> HttpResponseBase:
        content_type = request.META.get("CONTENT_TYPE") or ""
        submitted = read_job(self.raw(), content_type, self.using)
        if submitted.wait_seconds is not None:
            return wait_for(request, submitted, self.kwargs["cluster_id"], self.principal.actor)
        job = enqueue(submitted.new_job(), by=self.principal.actor).job
        shown = Shown(job, redactor=redactor_of(job), author=job.enqueued_by)
        return reply(summary_to_wire(shown, known_since([shown.author])))

    def retrieve(self, request: Request, job_id: str, **_: Any) -> HttpResponse:
        return reply(full_job(self.using, job_id))

    def log(self, request: Request, job_id: str, **_: Any) -> HttpResponse:
        page = Page.of(request.query_params, logs.PAGE_SIZE, logs.MAX_PAGE_SIZE)
        shown = find_job(self.using, job_id)
        found = logs.of_job(self.using, shown.job.pk, page, request.query_params.get("q") or "")
        return page.reply([shown.redactor.value(part) for part in found.parts], found.total)

    def cancel(self, request: Request, job_id: str, **_: Any) -> HttpResponse:
        shown = find_job(self.using, job_id)
        if JOB_STATES[shown.job.state] in ENDED:
            _refuse_cancel()
        with self.deed("job", shown.job.pk):
            try:
                shown.job.cancel()
            except InvalidTransition:
                _refuse_cancel()
        return reply(OK)

    def restart(self, request: Request, job_id: str, **_: Any) -> HttpResponse:
        shown = find_job(self.using, job_id)
        state = JOB_STATES[shown.job.state]
        if state not in ("FAILED", "CANCELLED"):
            refuse(f"job is {state} and can not be restarted")
        if shown.reached > shown.task_count:
            refuse("job has no more tasks to run")
        with self.deed("job", shown.job.pk):
            try:
                shown.job.retry()
            except InvalidTransition:
                refuse(f"job is {JOB_STATES[shown.job.state]} and can not be restarted")
        return reply(OK)


def _refuse_cancel() -> None:
    # The seed's spelling.
    refuse("job in not running")
