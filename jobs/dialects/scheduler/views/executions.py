"""Executions: endpoints 12 to 15, those of all jobs, and their logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.db.models import F, Min, Q, QuerySet
from django.db.models.functions import Coalesce
from django.db.models.lookups import GreaterThanOrEqual, LessThanOrEqual
from django.http import HttpResponse
from rest_framework.request import Request

from clusters.surfaces import reply
from jobs.dialects.scheduler.views.base import (
    PageAsked,
    SchedulerView,
    accepted,
    body_of,
    empty,
)
from jobs.dialects.scheduler.views.jobs import find
from jobs.dialects.scheduler.wire.executions import (
    Beside,
    attempt_to_wire,
    execution_to_wire,
    log_to_wire,
)
from jobs.dialects.scheduler.wire.reading import Query
from jobs.dialects.scheduler.wire.words import KINDS
from jobs.engine import schedule_runs
from jobs.errors import JobNotFound
from jobs.models import Attempt, Job, JobDependency, LogLine, ScheduleDependency
from jobs.models.job_queryset import JobQuerySet
from jobs.states import FINAL, UNSTARTED, Reason, State, WaitsFor

STATUS_FILTERS: Mapping[str, Q] = {
    "Pending": Q(state__in=UNSTARTED),
    "Running": Q(state__in=(State.RUNNING, State.WAITING)),
    "Succeeded": Q(state=State.SUCCEEDED),
    "Failed": Q(state=State.FAILED),
    "Cancelled": Q(state__in=(State.CANCELLED, State.SKIPPED)),
    # What the original's generated client calls them.
    "Success": Q(state=State.SUCCEEDED),
    "TimedOut": Q(state=State.FAILED, reason__in=(Reason.TIMEOUT, Reason.EXPIRED)),
}
# What lists do not show.
_HEAVY = ("payload", "payload_bytes", "result", "metadata", "tags")
DEFAULT_LINES, MAX_LINES = 200, 1000
MAX_ATTEMPTS = 100


class ExecutionView(SchedulerView):
    verbs = {
        "of_job": "jobs.read",
        "list": "jobs.read",
        "retrieve": "jobs.read",
        "logs": "jobs.read",
        "cancel": "jobs.cancel",
        "retry": "jobs.retry",
    }
    titles = {"cancel": "Cancel execution failed", "retry": "Retry execution failed"}

    def of_job(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        query = self.query()
        page, asked = PageAsked.of(query), _filter(query)
        query.done()
        # Of a deleted job its executions stay.
        find(job_id, with_deleted=True)
        # All are of the job's own kind, and so an index counts them without their rows.
        return _page(page, Job.objects.filter(asked, schedule_id=job_id))

    def list(self, request: Request, **_: Any) -> HttpResponse:
        query = self.query()
        page, asked = PageAsked.of(query), _filter(query)
        job_id = query.guid("jobId")
        query.done()
        rows = _jobs().filter(asked)
        return _page(page, rows if job_id is None else rows.filter(schedule_id=job_id))

    def retrieve(self, request: Request, execution_id: UUID, **_: Any) -> HttpResponse:
        job = _find(execution_id)
        attempts = Attempt.objects.all().of_job(job.pk)[:MAX_ATTEMPTS]
        shown = execution_to_wire(job, _beside([job]), is_detail=True)
        return reply({**shown, "attempts": [attempt_to_wire(one) for one in attempts]})

    def cancel(self, request: Request, execution_id: UUID, **_: Any) -> HttpResponse:
        body_of(request)
        job = _find(execution_id)
        with self.deed("job", execution_id):
            job.cancel()
        return empty()

    def retry(self, request: Request, execution_id: UUID, **_: Any) -> HttpResponse:
        body_of(request)
        job = _find(execution_id)

        def effect() -> str:
            with self.deed("job", execution_id) as trace:
                made = schedule_runs.retry(job, by=self.principal.actor)
                trace.after = {"executionId": str(made.pk)}
            return str(made.pk)

        guid, is_repeat = self.once(effect, 202)
        return accepted(self.address("execution", execution_id=guid), guid, is_repeat=is_repeat)

    def logs(self, request: Request, execution_id: UUID, **_: Any) -> HttpResponse:
        query = self.query()
        after = query.integer("after", 0, 0, 2**63 - 1)
        limit = query.integer("limit", DEFAULT_LINES, 1, MAX_LINES)
        query.done()
        # Before its lines: those of a job that has ended are all there.
        has_ended = _find(execution_id).state in FINAL
        rows = LogLine.objects.all().of_job(execution_id).filter(id__gt=after)
        found = [*rows[: limit + 1]]
        lines = found[:limit]
        return reply(
            {
                "items": [log_to_wire(line) for line in lines],
                "nextAfter": lines[-1].pk if lines else after,
                "isComplete": has_ended and len(found) <= limit,
            }
        )


def _jobs() -> JobQuerySet:
    """Jobs that schedules made, whose kind of work has a word here."""
    jobs: JobQuerySet = Job.objects.filter(schedule_id__isnull=False, kind__in=KINDS)
    return jobs


def _find(execution_id: UUID) -> Job:
    job = _jobs().filter(pk=execution_id).first()
    if job is None:
        raise JobNotFound
    return job


def _filter(query: Query) -> Q:
    asked: Q = query.choice("status", STATUS_FILTERS) or Q()
    began_at = Coalesce(F("started_at"), F("created_at"))
    if (since := query.moment("fromDate")) is not None:
        asked &= Q(GreaterThanOrEqual(began_at, since))
    if (until := query.moment("toDate", to_end_of_day=True)) is not None:
        # Nothing begins before it was made: this much an index can tell.
        asked &= Q(created_at__lte=until) & Q(LessThanOrEqual(began_at, until))
    return asked


def _page(page: PageAsked, rows: QuerySet[Job]) -> HttpResponse:
    rows = rows.defer(*_HEAVY).order_by("-created_at", "-pk")
    return page.read(rows, executions_to_wire)


def executions_to_wire(jobs: list[Job]) -> list[dict[str, Any]]:
    beside = _beside(jobs)
    return [execution_to_wire(job, beside) for job in jobs]


def _beside(jobs: list[Job]) -> Beside:
    """What else is to be known of these, read in one go for all."""
    beside = Beside()
    tried_again = [job.pk for job in jobs if job.attempts > 1]
    if tried_again:
        attempts = Attempt.objects.filter(job_id__in=tried_again)
        first = attempts.values_list("job_id").annotate(Min("started_at"))
        beside.first_starts = dict(first)
    failed = [job.pk for job in jobs if job.reason == Reason.ERROR]
    if failed:
        # The last attempt bears the fence that the job had at its end.
        last = Attempt.objects.filter(job_id__in=failed, fence=F("job__fence"))
        beside.error_types = dict(last.values_list("job_id", "error_type"))
    beside.waiting_on = _waiting_on([job for job in jobs if job.state == State.BLOCKED])
    return beside


def _waiting_on(jobs: list[Job]) -> dict[UUID, list[UUID]]:
    """The jobs of this API that executions wait for."""
    if not jobs:
        return {}
    for_schedules = {
        job.schedule_id for job in jobs if job.schedule_id and job.waits_for == WaitsFor.SCHEDULES
    }
    before: dict[UUID, list[UUID]] = {}
    edges = ScheduleDependency.objects.filter(schedule_id__in=for_schedules)
    for one, other in edges.order_by("prerequisite_id").values_list(
        "schedule_id", "prerequisite_id"
    ):
        before.setdefault(one, []).append(other)
    parents: dict[UUID, list[UUID]] = {}
    waits = JobDependency.objects.filter(
        child_id__in=[job.pk for job in jobs if job.waits_for is None],
        parent__finished_at=None,
        parent__schedule_id__isnull=False,
    )
    for child, schedule_id in waits.values_list("child_id", "parent__schedule_id"):
        if schedule_id is not None:
            parents.setdefault(child, []).append(schedule_id)
    found: dict[UUID, list[UUID]] = {}
    for job in jobs:
        if job.schedule_id is None:
            continue
        if job.waits_for == WaitsFor.SCHEDULES:
            found[job.pk] = before.get(job.schedule_id, [])
        elif job.waits_for == WaitsFor.RUN:
            found[job.pk] = [job.schedule_id]
        else:
            found[job.pk] = parents.get(job.pk, [])
    return found
