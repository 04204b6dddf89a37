"""Jobs: endpoints 1 to 9 of the specification, and what goes with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.db.models import F
from django.db.models.functions import Lower
from django.http import HttpResponse
from rest_framework.request import Request

from authn.permissions import is_allowed
from clusters.deeds import differences
from clusters.errors import NotAllowed
from clusters.models import current_policy
from clusters.surfaces import reply
from jobs import schedule_figures
from jobs.dialects.scheduler.views.base import (
    PageAsked,
    SchedulerView,
    accepted,
    body_of,
    empty,
)
from jobs.dialects.scheduler.wire.configuration import overridden
from jobs.dialects.scheduler.wire.jobs import change_from_wire, job_to_wire, new_job_from_wire
from jobs.dialects.scheduler.wire.reading import Query, Reader
from jobs.dialects.scheduler.wire.timing import (
    exclusions_from_wire,
    occurrence_to_wire,
    timing_from_wire,
)
from jobs.dialects.scheduler.wire.words import (
    FAILED,
    JOB_TYPES,
    KINDS,
    SCHEDULE_TYPES,
    STATUS_FILTERS,
)
from jobs.engine import fires, schedules
from jobs.engine.edit import UNCHANGED
from jobs.errors import ScheduleNotFound, ScheduleState
from jobs.models import Schedule, ScheduleDependency
from jobs.models.schedule_queryset import ScheduleQuerySet

MAX_SEARCH = 200
MAX_FAILED = 1000
DEFAULT_RUNS, MAX_RUNS = 10, 100

SORTS: Mapping[str, Any] = {
    "name": Lower("name"),
    "createdAt": F("created_at"),
    "updatedAt": F("updated_at"),
    "nextRunAt": F("next_run_at"),
    "lastExecutedAt": F("last_run_at"),
    "consecutiveFailures": F("consecutive_failures"),
}

MAY_BE_NULL = ("nextRunAt", "lastExecutedAt")

# What the audit calls a job of this API.
TARGET = "schedule"
Schedules = list[Schedule]


class JobView(SchedulerView):
    verbs = {
        "create": "schedules.create",
        "list": "schedules.read",
        "retrieve": "schedules.read",
        "update": "schedules.change",
        "destroy": "schedules.delete",
        "reschedule": "schedules.reschedule",
        "pause": "schedules.pause",
        "resume": "schedules.resume",
        "trigger": "schedules.trigger",
        "restore": "schedules.restore",
        "failed": "schedules.read",
        "next_runs": "schedules.read",
        "preview": "schedules.read",
        "tags": "schedules.read",
    }
    titles = {
        "create": "Create job failed",
        "update": "Update job failed",
        "destroy": "Delete job failed",
        "reschedule": "Reschedule job failed",
        "pause": "Pause job failed",
        "resume": "Resume job failed",
        "trigger": "Trigger job failed",
        "restore": "Restore job failed",
        "preview": "Preview schedule failed",
    }

    def create(self, request: Request, **_: Any) -> HttpResponse:
        values, created_by = new_job_from_wire(request.data)
        with self.deed(TARGET) as trace:
            schedule = schedules.create(values, by=self.principal.actor, created_by=created_by)
            trace.target_id = str(schedule.pk)
            (trace.after,) = jobs_to_wire([schedule])
        location = self.address("job", job_id=schedule.pk)
        return self._reply(schedule, 201, {"Location": location})

    def list(self, request: Request, **_: Any) -> HttpResponse:
        query = self.query()
        page, rows = PageAsked.of(query), _listed(query)
        query.done()
        return page.read(rows, jobs_to_wire)

    def retrieve(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        return self._reply(find(job_id))

    def update(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        stored = find(job_id)
        values = change_from_wire(request.data, stored)
        actor, versions = self.principal.actor, self.versions()
        with self._change_of(stored) as done:
            done.append(schedules.change(job_id, values, by=actor, versions=versions))
        return self._reply(done[0])

    def destroy(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        query = self.query()
        is_hard = query.boolean("hardDelete")
        query.done()
        find(job_id, with_deleted=is_hard)
        actor = self.principal.actor
        if not is_hard:
            with self.deed(TARGET, job_id):
                schedules.delete(job_id, by=actor, versions=self.versions())
            return empty(204)
        if not is_allowed(self.principal, "schedules.delete_for_good", self.kwargs["cluster_id"]):
            raise NotAllowed("schedules.delete_for_good")
        schedules.delete_for_good(job_id, by=actor, versions=self.versions())
        return empty(204)

    def reschedule(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        stored = find(job_id)
        reader = Reader(request.data)
        values = timing_from_wire(reader)
        effective_from = reader.moment("effectiveFrom")
        reader.done()
        with self._change_of(stored) as done:
            schedule = schedules.reschedule(
                job_id,
                values,
                by=self.principal.actor,
                effective_from=effective_from,
                versions=self.versions(),
            )
            done.append(schedule)
        return self._reply(schedule)

    def pause(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        find(job_id)
        reader = Reader(body_of(request))
        reason, until = reader.text("reason", most=500), reader.moment("until")
        reader.done()
        with self.deed(TARGET, job_id, reason=reason or "") as trace:
            schedules.pause(job_id, by=self.principal.actor, reason=reason or "", until=until)
            trace.after = {"pausedUntil": until}
        return empty()

    def resume(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        find(job_id)
        body_of(request)
        with self.deed(TARGET, job_id):
            schedules.resume(job_id, by=self.principal.actor)
        return empty()

    def trigger(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        schedule = find(job_id)
        reader = Reader(body_of(request))
        parameters = reader.object("parameters")
        reader.done()
        payload = overridden(schedule, parameters) if parameters else UNCHANGED

        def effect() -> str:
            with self.deed(TARGET, job_id) as trace:
                made = fires.trigger(job_id, by=self.principal.actor, payload=payload)
                trace.after = {"executionId": str(made.job_id)}
            return str(made.job_id)

        guid, is_repeat = self.once(effect, 202)
        return accepted(self.address("execution", execution_id=guid), guid, is_repeat=is_repeat)

    def restore(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        if find(job_id, with_deleted=True).deleted_at is None:
            raise ScheduleState("the schedule has not been deleted", code="not_deleted")
        with self.deed(TARGET, job_id):
            schedule = schedules.restore(job_id, by=self.principal.actor)
        return self._reply(schedule)

    def failed(self, request: Request, **_: Any) -> HttpResponse:
        query = self.query()
        threshold = query.integer("threshold", 3, 1, 10**9)
        query.done()
        rows = shown().kept().filter(consecutive_failures__gte=threshold)
        return reply(jobs_to_wire(rows.order_by("-consecutive_failures", "pk")[:MAX_FAILED]))

    def next_runs(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        query = self.query()
        count = query.integer("count", DEFAULT_RUNS, 1, MAX_RUNS)
        query.done()
        found = schedules.next_runs(find(job_id), count)
        return reply([occurrence_to_wire(one) for one in found])

    def preview(self, request: Request, **_: Any) -> HttpResponse:
        reader = Reader(request.data)
        values = timing_from_wire(reader)
        values["timezone"] = reader.text("timezone", most=64) or "UTC"
        count = reader.integer("count", 1, MAX_RUNS) or DEFAULT_RUNS
        exclusions = reader.reader("exclusions")
        if exclusions is not None:
            values["exclusions"] = exclusions_from_wire(exclusions)
        reader.done()
        found = schedules.preview(values, count)[1]
        return reply([occurrence_to_wire(one) for one in found])

    def tags(self, request: Request, **_: Any) -> HttpResponse:
        found = schedule_figures.tags(shown().db, KINDS)
        return reply([{"name": name, "jobCount": count} for name, count in found])

    @contextmanager
    def _change_of(self, stored: Schedule) -> Iterator[Schedules]:
        """A deed that tells what is different afterwards; its secrets are masked as everywhere."""
        done: Schedules = []
        with self.deed(TARGET, stored.pk) as trace:
            (before,) = jobs_to_wire([stored])
            yield done
            (after,) = jobs_to_wire(done)
            trace.before, trace.after = differences(before, after)

    def _reply(
        self, schedule: Schedule, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> HttpResponse:
        (body,) = jobs_to_wire([schedule])
        return reply(body, status, {"ETag": f'"{schedule.version}"', **(headers or {})})


def shown() -> ScheduleQuerySet:
    """Schedules of the bound cluster whose kind of work has a word here, deleted ones included."""
    rows: ScheduleQuerySet = Schedule.objects.all()
    return rows.filter(kind__in=KINDS, workflow=None)


def find(job_id: UUID, *, with_deleted: bool = False) -> Schedule:
    rows = shown() if with_deleted else shown().kept()
    schedule = rows.filter(pk=job_id).first()
    if schedule is None:
        raise ScheduleNotFound
    return schedule


def jobs_to_wire(rows: Iterable[Schedule], *, with_names: bool = False) -> list[dict[str, Any]]:
    """Schedules as jobs, with those they depend on, which are read in one go."""
    page, policy = list(rows), current_policy()
    edges = ScheduleDependency.objects.filter(schedule_id__in=[one.pk for one in page])
    before: dict[UUID, list[UUID]] = {}
    names: dict[UUID, str] = {}
    for schedule_id, pk, name in edges.order_by("prerequisite_id").values_list(
        "schedule_id", "prerequisite_id", "prerequisite__name"
    ):
        before.setdefault(schedule_id, []).append(pk)
        names[pk] = name
    told = names if with_names else None
    return [job_to_wire(one, policy, before.get(one.pk, ()), told) for one in page]


def _listed(query: Query) -> Any:
    rows = shown()
    status = query.choice("status", tuple(STATUS_FILTERS))
    if status == FAILED:
        rows = rows.kept().failing()
    elif status is not None:
        rows = rows.of_status(*STATUS_FILTERS[status])
    elif not query.boolean("includeDeleted"):
        rows = rows.kept()
    if (kind := query.choice("jobType", JOB_TYPES)) is not None:
        rows = rows.filter(kind=kind)
    if (timing := query.choice("scheduleType", SCHEDULE_TYPES)) is not None:
        rows = rows.filter(timing=timing)
    if (tag := query.text("tag")) is not None:
        rows = rows.tagged(tag)
    if (created_by := query.text("createdBy")) is not None:
        rows = rows.filter(created_by=created_by)
    if (search := query.text("search", most=MAX_SEARCH)) is not None:
        rows = rows.search(search)
    named = query.choice("sortBy", tuple(SORTS))
    direction = query.choice("sortDirection", ("asc", "desc"))
    # Newest first where nothing is said; a named order goes up.
    descends = direction == "desc" if named or direction else True
    column = SORTS[named or "createdAt"]
    # Said only where it matters: an index in the plain order would not serve the other.
    last = True if named in MAY_BE_NULL else None
    order = column.desc(nulls_last=last) if descends else column.asc(nulls_last=last)
    return rows.order_by(order, "-pk" if descends else "pk")
