"""Exclusions and dependencies of a job: endpoints 10 and 11, and reading, replacing, clearing them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.http import HttpResponse
from rest_framework.request import Request

from clusters.surfaces import reply
from jobs.dialects.scheduler.views.base import SchedulerView, empty
from jobs.dialects.scheduler.views.jobs import TARGET, find
from jobs.dialects.scheduler.wire.reading import Reader, refuse
from jobs.dialects.scheduler.wire.timing import (
    dependencies_from_wire,
    dependencies_to_wire,
    exclusions_from_wire,
    exclusions_to_wire,
    warnings_of,
)
from jobs.engine import schedules
from jobs.models import Schedule, ScheduleDependency

NO_EXCLUSIONS: dict[str, Any] = {
    "excludedDates": [],
    "excludedDaysOfWeek": [],
    "timeRange": None,
    "timeRanges": [],
    "calendars": [],
    "countries": [],
}


class RuleView(SchedulerView):
    verbs = {
        "exclusions": "schedules.read",
        "add_exclusions": "schedules.change",
        "set_exclusions": "schedules.change",
        "clear_exclusions": "schedules.change",
        "dependencies": "schedules.read",
        "set_dependencies": "schedules.change",
        "clear_dependencies": "schedules.change",
    }
    titles = {
        "add_exclusions": "Add exclusions failed",
        "set_exclusions": "Set exclusions failed",
        "clear_exclusions": "Clear exclusions failed",
        "set_dependencies": "Add dependencies failed",
        "clear_dependencies": "Clear dependencies failed",
    }

    def exclusions(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        schedule = find(job_id)
        return reply(exclusions_to_wire(schedule) or NO_EXCLUSIONS)

    def add_exclusions(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        find(job_id)
        document = _document(request)
        with self.deed(TARGET, job_id) as trace:
            schedules.add_exclusions(job_id, document, by=self.principal.actor)
            trace.after = {"exclusions": document}
        return empty()

    def set_exclusions(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        find(job_id)
        document = _document(request)
        with self.deed(TARGET, job_id) as trace:
            schedules.set_exclusions(job_id, document, by=self.principal.actor)
            trace.after = {"exclusions": document}
        return empty()

    def clear_exclusions(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        find(job_id)
        with self.deed(TARGET, job_id) as trace:
            schedules.set_exclusions(job_id, {}, by=self.principal.actor)
            trace.after = {"exclusions": None}
        return empty(204)

    def dependencies(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        schedule = find(job_id)
        edges = ScheduleDependency.objects.filter(schedule_id=job_id).order_by("prerequisite_id")
        before: list[Schedule] = [edge.prerequisite for edge in edges.select_related()]
        ids, names = [one.pk for one in before], {one.pk: one.name for one in before}
        shown = dependencies_to_wire(schedule, ids, names) or {
            "dependsOnJobIds": [],
            "condition": None,
            "dependsOnJobNames": [],
        }
        return reply({**shown, "warnings": warnings_of(before)})

    def set_dependencies(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        find(job_id)
        reader = Reader(request.data)
        ids, needs = dependencies_from_wire(reader)
        reader.done()
        with self.deed(TARGET, job_id) as trace:
            schedules.set_dependencies(job_id, ids, needs=needs, by=self.principal.actor)
            trace.after = {"dependsOnJobIds": [str(pk) for pk in ids], "condition": needs}
        return empty()

    def clear_dependencies(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        schedule = find(job_id)
        with self.deed(TARGET, job_id) as trace:
            schedules.set_dependencies(job_id, [], needs=schedule.needs, by=self.principal.actor)
            trace.after = {"dependsOnJobIds": []}
        return empty(204)


def _document(request: Request) -> dict[str, Any]:
    reader = Reader(request.data)
    document = exclusions_from_wire(reader)
    reader.done()
    if not document:
        refuse("body", "Names no date, day or time to exclude.", "required")
    return document
