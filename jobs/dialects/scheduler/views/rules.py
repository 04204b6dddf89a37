"""Exclusions and dependencies of a job: endpoints 10 and 11, and reading, replacing, clearing them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
        with self._rule_deed(job_id, _exclusions):
            schedules.add_exclusions(job_id, document, by=self.principal.actor)
        return empty()

    def set_exclusions(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        find(job_id)
        document = _document(request)
        with self._rule_deed(job_id, _exclusions):
            schedules.set_exclusions(job_id, document, by=self.principal.actor)
        return empty()

    def clear_exclusions(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        find(job_id)
        with self._rule_deed(job_id, _exclusions):
            schedules.set_exclusions(job_id, {}, by=self.principal.actor)
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
        with self._rule_deed(job_id, _dependencies):
            schedules.set_dependencies(job_id, ids, needs=needs, by=self.principal.actor)
        return empty()

    def clear_dependencies(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        schedule = find(job_id)
        with self._rule_deed(job_id, _dependencies):
            schedules.set_dependencies(job_id, [], needs=schedule.needs, by=self.principal.actor)
        return empty(204)

    @contextmanager
    def _rule_deed(
        self, job_id: UUID, told: Callable[[Schedule], dict[str, Any]]
    ) -> Iterator[None]:
        """A deed that tells what the rule was before and what it is afterwards."""
        with self.deed(TARGET, job_id) as trace:
            before = told(find(job_id))
            yield
            trace.before, trace.after = before, told(find(job_id))


def _exclusions(schedule: Schedule) -> dict[str, Any]:
    return {"exclusions": exclusions_to_wire(schedule)}


def _dependencies(schedule: Schedule) -> dict[str, Any]:
    edges = ScheduleDependency.objects.filter(schedule_id=schedule.pk).order_by("prerequisite_id")
    ids = list(edges.values_list("prerequisite_id", flat=True))
    return {"dependencies": dependencies_to_wire(schedule, ids)}


def _document(request: Request) -> dict[str, Any]:
    reader = Reader(request.data)
    document = exclusions_from_wire(reader)
    reader.done()
    if not document:
        refuse("body", "Names no date, day or time to exclude.", "required")
    return document
