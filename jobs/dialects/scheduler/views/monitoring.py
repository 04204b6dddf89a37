"""What has happened and what is to come: endpoints 17 and 19, and what is upcoming, and histories."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from rest_framework.request import Request

from clusters.surfaces import reply
from jobs import schedule_figures, schedule_history
from jobs.dialects.scheduler.views.base import PageAsked, SchedulerView
from jobs.dialects.scheduler.views.jobs import find, shown
from jobs.dialects.scheduler.wire.history import deed_to_wire
from jobs.dialects.scheduler.wire.words import KINDS, number_to_wire, time_to_wire

UPCOMING_SHOWN = 10
MAX_UPCOMING = 200
DEFAULT_HOURS, MAX_HOURS = 24, 720
BUCKET_MINUTES = (5, 10, 15, 30, 60, 120, 180, 240, 360, 720, 1440)
MAX_POINTS = 1500


class MonitoringView(SchedulerView):
    verbs = {
        "stats": "stats.read",
        "timeline": "stats.read",
        "upcoming": "schedules.read",
        "history": "audit.read",
    }

    def stats(self, request: Request, **_: Any) -> HttpResponse:
        found = schedule_figures.dashboard(shown().db, KINDS)
        rate = 100.0 * found.succeeded / found.judged if found.judged else 100.0
        average = found.average_seconds
        return reply(
            {
                "totalJobs": found.total,
                "enabledJobs": found.enabled,
                "successRate": number_to_wire(round(rate, 2)),
                "upcomingExecutions": found.upcoming,
                "recentFailureCount": found.failed,
                "activeJobs": found.active,
                "pausedJobs": found.paused,
                "failedJobs": found.failing,
                "executionsToday": found.made_today,
                "averageDurationSeconds": None if average is None else round(average, 3),
                "upcoming": _upcoming(UPCOMING_SHOWN),
            }
        )

    def timeline(self, request: Request, **_: Any) -> HttpResponse:
        query = self.query()
        hours = query.integer("hours", DEFAULT_HOURS, 1, MAX_HOURS)
        words = {str(minutes): minutes for minutes in BUCKET_MINUTES}
        minutes = query.choice("bucketMinutes", words) or 60
        if hours * 60 // minutes > MAX_POINTS:
            query.refuse("bucketMinutes", f"Makes more than {MAX_POINTS} points.")
        job_id = query.guid("jobId")
        query.done()
        points = schedule_figures.timeline(
            shown().db, KINDS, timedelta(hours=hours), minutes * 60, schedule_id=job_id
        )
        return reply(
            [
                {
                    "bucket": time_to_wire(point.starts_at),
                    "successCount": point.succeeded,
                    "failedCount": point.failed,
                    "runningCount": point.running,
                    "cancelledCount": point.cancelled,
                }
                for point in points
            ]
        )

    def upcoming(self, request: Request, **_: Any) -> HttpResponse:
        query = self.query()
        take = query.integer("take", UPCOMING_SHOWN, 1, MAX_UPCOMING)
        query.done()
        return reply(_upcoming(take))

    def history(self, request: Request, job_id: UUID, **_: Any) -> HttpResponse:
        query = self.query()
        page = PageAsked.of(query)
        query.done()
        deeds = schedule_history.deeds_of(find(job_id, with_deleted=True))
        return page.read_list(deeds, lambda found: [deed_to_wire(job_id, one) for one in found])


def _upcoming(count: int) -> list[dict[str, Any]]:
    rows = shown().filter(next_run_at__isnull=False).order_by("next_run_at", "id")[:count]
    return [
        {"jobId": str(one.pk), "jobName": one.name, "nextRun": time_to_wire(one.next_run_at)}
        for one in rows
    ]
