"""Schedules: create, list, get and delete."""

from __future__ import annotations

from typing import Any

from django.db.models.functions import Lower
from django.http import HttpResponse
from rest_framework.request import Request

from jobs.dialects.asyncjobs.views.base import AsyncjobsView, empty, reply, reply_raw
from jobs.dialects.asyncjobs.views.slices import fitting, schedule_slices
from jobs.dialects.asyncjobs.wire.schedules import FIELDS, new_schedule, schedule_to_wire
from jobs.dialects.asyncjobs.wire.signatures import check_schedule
from jobs.engine import schedules
from jobs.errors import ScheduleNotFound
from jobs.models import Schedule
from jobs.models.schedule import MAX_NAME_LENGTH
from jobs.models.schedule_queryset import ScheduleQuerySet

MAX_LISTED = 5_000
COLUMNS = (
    *("id", "name", "kind", "type", "queue", "payload", "payload_bytes", "max_attempts"),
    *("expires_in_seconds", "timing", "expression", "interval_seconds", "run_at", "timezone"),
    "created_at",
)


class ScheduleView(AsyncjobsView):
    noun = "schedule"
    type_field = "task_type"
    verbs = {
        "list": "schedules.read",
        "create": "schedules.create",
        "retrieve": "schedules.read",
        "destroy": "schedules.delete",
    }

    def list(self, request: Request, **_: Any) -> HttpResponse:
        # This API has no pages of schedules.
        ordered = _schedules().order_by(Lower("name"), "pk")
        ids = [*ordered.values_list("pk", flat=True)[:MAX_LISTED]]
        texts = fitting(schedule_slices(_schedules().only(*COLUMNS), ids))
        return reply_raw(b'{"schedules":[%b]}' % b",".join(texts))

    def create(self, request: Request, **_: Any) -> HttpResponse:
        values = new_schedule(self.body(FIELDS))
        check_schedule()
        with self.deed("schedule") as trace:
            # In this API no type of task is unknown: workers come and go, and tasks wait for them.
            schedule = schedules.create(values, by=self.principal.actor, before_its_handler=True)
            shown = schedule_to_wire(schedule)
            trace.target_id, trace.after = str(schedule.pk), shown
        return reply(shown, 201)

    def retrieve(self, request: Request, name: str, **_: Any) -> HttpResponse:
        return reply(schedule_to_wire(_one(name)))

    def destroy(self, request: Request, name: str, **_: Any) -> HttpResponse:
        schedule = _one(name)
        with self.deed("schedule", schedule.pk) as trace:
            trace.before = schedule_to_wire(schedule)
            schedules.delete(schedule.pk, by=self.principal.actor)
        return empty(204)


def _schedules() -> ScheduleQuerySet:
    rows: ScheduleQuerySet = Schedule.objects.all()
    return rows.kept()


def _one(name: str) -> Schedule:
    found = None
    # What no schedule can be called is not asked for: some databases refuse the very question.
    if len(name) <= MAX_NAME_LENGTH and name.isprintable():
        found = _schedules().filter(name=name).only(*COLUMNS).first()
    if found is None:
        raise ScheduleNotFound
    return found
