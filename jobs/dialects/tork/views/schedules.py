"""Scheduled jobs: our schedules of jobs made of steps."""

from __future__ import annotations

from typing import Any, NoReturn
from uuid import uuid4

from django.http import HttpResponse
from rest_framework.request import Request

from jobs.dialects.tork.errors import refuse
from jobs.dialects.tork.views.base import OK, Page, TorkView, audience, known_since, reply
from jobs.dialects.tork.views.submitting import Submitted, read_scheduled
from jobs.dialects.tork.wire.ids import parse_id
from jobs.dialects.tork.wire.jobs import (
    schedule_definition,
    schedule_summary_to_wire,
    schedule_to_wire,
)
from jobs.dialects.tork.wire.redaction import Redactor, values_in
from jobs.engine import schedules
from jobs.engine.new_job import MAX_TIMEOUT_SECONDS
from jobs.errors import DuplicateSchedule, ScheduleNotFound, ScheduleState
from jobs.models import Misfire, Overlap, Schedule, Timing
from jobs.models.queue import DEFAULT_QUEUE
from jobs.models.schedule import MAX_DESCRIPTION_LENGTH
from jobs.step_words import AUDIENCE, STEPS
from jobs.steps_search import MOST

PAGE_SIZE, MAX_PAGE_SIZE = 10, 20


class ScheduledJobView(TorkView):
    verbs = {
        "list": "schedules.read",
        "create": "schedules.create",
        "retrieve": "schedules.read",
        "destroy": "schedules.delete_for_good",
        "pause": "schedules.pause",
        "resume": "schedules.resume",
    }

    def list(self, request: Request, **_: Any) -> HttpResponse:
        page = Page.of(request.query_params, PAGE_SIZE, MAX_PAGE_SIZE)
        rows = Schedule.objects.using(self.using).filter(kind=STEPS, deleted_at=None)
        rows = rows.order_by("-created_at", "-id")
        names = audience(self.principal, self.kwargs["cluster_id"])
        if names is None:
            total = rows.order_by()[:MOST].count()
            found = list(rows[page.offset : min(page.offset + page.size, total)])
        else:
            # Few have permissions, and no column of their own for them.
            seen = [row for row in rows[:MOST] if _is_seen(row, names)]
            total, found = len(seen), seen[page.offset : page.offset + page.size]
        known = known_since({row.created_by for row in found})
        return page.reply([schedule_summary_to_wire(row, known) for row in found], total)

    def create(self, request: Request, **_: Any) -> HttpResponse:
        content_type = request.META.get("CONTENT_TYPE") or ""
        submitted = read_scheduled(self.raw(), content_type, self.using)
        with self.deed("schedule") as trace:
            schedule = _create(submitted, self.principal.actor)
            trace.target_id, trace.after = str(schedule.pk), {"name": schedule.name}
        return reply(schedule_summary_to_wire(schedule, known_since([schedule.created_by])))

    def retrieve(self, request: Request, schedule_id: str, **_: Any) -> HttpResponse:
        schedule = self._find(schedule_id)
        permissions = schedule_definition(schedule).get("permissions") or ()
        named = {f"user:{one.get('user')}" for one in permissions}
        return reply(schedule_to_wire(schedule, known_since({schedule.created_by} | named)))

    def destroy(self, request: Request, schedule_id: str, **_: Any) -> HttpResponse:
        schedule = self._find(schedule_id)
        try:
            schedules.delete_for_good(schedule.pk, by=self.principal.actor)
        except ScheduleNotFound:
            _not_found()
        return reply(OK)

    def pause(self, request: Request, schedule_id: str, **_: Any) -> HttpResponse:
        schedule = self._find(schedule_id)
        with self.deed("schedule", schedule.pk):
            if not schedule.is_enabled:
                refuse("scheduled job is not active")
            try:
                schedules.pause(schedule.pk, by=self.principal.actor)
            except ScheduleState:
                refuse("scheduled job is not active")
        return reply(OK)

    def resume(self, request: Request, schedule_id: str, **_: Any) -> HttpResponse:
        schedule = self._find(schedule_id)
        with self.deed("schedule", schedule.pk):
            try:
                schedules.resume(schedule.pk, by=self.principal.actor)
            except ScheduleState:
                refuse("scheduled job is not paused")
        return reply(OK)

    def _find(self, schedule_id: str) -> Schedule:
        pk = parse_id(schedule_id)
        rows = Schedule.objects.using(self.using).filter(kind=STEPS, deleted_at=None)
        schedule = rows.filter(pk=pk).first() if pk else None
        if schedule is None:
            _not_found()
        return schedule


def _not_found() -> NoReturn:
    refuse("scheduled job not found", 404)


def _is_seen(schedule: Schedule, names: tuple[str, ...]) -> bool:
    allowed = (schedule.dialect_notes or {}).get(AUDIENCE)
    return allowed is None or not set(allowed).isdisjoint(names)


def _create(submitted: Submitted, by: str) -> Schedule:
    document = submitted.document
    # What is secret in these is said from the sealed definition, and hidden there.
    shown = Redactor(values_in(document)).text
    name = shown(document["name"])
    values: dict[str, Any] = {
        "name": name,
        "description": shown(document.get("description") or "")[:MAX_DESCRIPTION_LENGTH],
        "kind": STEPS,
        "payload": submitted.native,
        "queue": DEFAULT_QUEUE,
        "tags": document.get("tags") or [],
        "max_attempts": 1,
        "timeout_seconds": MAX_TIMEOUT_SECONDS,
        "timing": Timing.CRON,
        "expression": submitted.cron,
        # The original knows neither, and starts whatever is due.
        "overlap": Overlap.ALLOW,
        "misfire": Misfire.SKIP,
    }
    notes = submitted.notes
    try:
        return schedules.create(values, by=by, notes=notes)
    except DuplicateSchedule:
        # There names need not be unique; the definition keeps its own.
        values["name"] = f"{name} {uuid4().hex[:12]}"
        return schedules.create(values, by=by, notes=notes)
