"""Cron schedules: those of ours that repeat and make jobs."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.db.models.functions import Lower
from django.http import HttpResponse
from rest_framework.request import Request

from clusters.deeds import differences
from clusters.surfaces import reply
from jobs.dialects.forge.views.base import ForgeView, empty
from jobs.dialects.forge.wire.cron import schedule_to_wire, timing_from_wire
from jobs.engine import fires, schedules
from jobs.errors import ScheduleNotFound
from jobs.models import Overlap, Schedule, Timing
from jobs.models.schedule_queryset import ScheduleQuerySet

# What the audit calls one, and how many a list shows.
TARGET = "schedule"
MAX_SHOWN = 5000


class CronView(ForgeView):
    verbs = {
        "list": "schedules.read",
        "enabled": "schedules.change",
        "expr": "schedules.reschedule",
        "dedupe": "schedules.change",
        "trigger": "schedules.trigger",
    }

    def list(self, request: Request, **_: Any) -> HttpResponse:
        rows = shown().order_by(Lower("name"), "pk")[:MAX_SHOWN]
        return reply([schedule_to_wire(schedule) for schedule in rows])

    def enabled(self, request: Request, name: str, **_: Any) -> HttpResponse:
        wanted = self.body().boolean("enabled")
        schedule = find(name)
        actor = self.principal.actor
        with self.deed(TARGET, schedule.pk) as trace:
            # One switch here, where we have two: who turns it on means that it runs.
            if wanted and schedule.is_paused:
                schedules.resume(schedule.pk, by=actor)
            changed = schedules.change(schedule.pk, {"is_enabled": wanted}, by=actor)
            trace.before, trace.after = differences(*map(schedule_to_wire, (schedule, changed)))
        return empty()

    def expr(self, request: Request, name: str, **_: Any) -> HttpResponse:
        timing = timing_from_wire(self.body())
        return self._change(find(name), timing)

    def dedupe(self, request: Request, name: str, **_: Any) -> HttpResponse:
        overlap = Overlap.SKIP if self.body().boolean("dedupe") else Overlap.ALLOW
        return self._change(find(name), {"overlap": overlap.value})

    def trigger(self, request: Request, name: str, **_: Any) -> HttpResponse:
        schedule = find(name)
        with self.deed(TARGET, schedule.pk) as trace:
            made = fires.trigger(schedule.pk, by=self.principal.actor, even_disabled=True)
            trace.after = {"job_id": str(made.job_id)}
        return reply(str(made.job_id))

    def _change(self, schedule: Schedule, values: dict[str, Any]) -> HttpResponse:
        with self.deed(TARGET, schedule.pk) as trace:
            changed = schedules.change(schedule.pk, values, by=self.principal.actor)
            trace.before, trace.after = differences(*map(schedule_to_wire, (schedule, changed)))
        return empty()


def shown() -> QuerySet[Schedule]:
    """Schedules that repeat; those that run once, or run a workflow, have no word here."""
    rows: ScheduleQuerySet = Schedule.objects.all()
    return rows.kept().filter(timing__in=(Timing.CRON, Timing.INTERVAL), workflow=None)


def find(name: str) -> Schedule:
    # Names are unique in any case.
    schedule = None if "\0" in name else shown().filter(name__iexact=name[:300]).first()
    if schedule is None:
        raise ScheduleNotFound(f"there is no schedule {name[:100]!r}")
    return schedule
