"""Time series: what happened, and how hosts and database were doing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request

from clusters.models import current_policy
from clusters.surfaces import reply
from jobs.dialects.forge.views.base import ForgeView, find_queue
from jobs.dialects.forge.wire.series import (
    Range,
    database_to_wire,
    metrics_to_wire,
    resources_to_wire,
    timeline_to_wire,
)
from jobs.host_series import host_series
from jobs.series import series

MINUTE = 60
ToWire = Callable[[str | None, Any], dict[str, Any]]


class SeriesView(ForgeView):
    verbs = {
        "timeline": "stats.read",
        "metric_series": "stats.read",
        "resource_series": "nodes.read",
        "db_series": "nodes.read",
    }

    def timeline(self, request: Request, **_: Any) -> HttpResponse:
        return self._of_jobs(Range.of(self.query()), None, timeline_to_wire)

    def metric_series(self, request: Request, **_: Any) -> HttpResponse:
        query = self.query()
        name = query.needed("queue")
        asked = Range.of(query, shortest=MINUTE)
        return self._of_jobs(asked, find_queue(name).name, metrics_to_wire)

    def resource_series(self, request: Request, **_: Any) -> HttpResponse:
        return self._of_hosts(resources_to_wire)

    def db_series(self, request: Request, **_: Any) -> HttpResponse:
        return self._of_hosts(database_to_wire)

    def _of_jobs(self, asked: Range | None, queue: str | None, to_wire: ToWire) -> HttpResponse:
        if asked is None:
            return reply([])
        policy = current_policy()
        points = series(
            self.using, policy, asked.start, asked.step_seconds, asked.number, queue=queue
        )
        return reply([to_wire(at, one) for at, one in zip(asked.moments, points, strict=True)])

    def _of_hosts(self, to_wire: ToWire) -> HttpResponse:
        asked = Range.of(self.query(), shortest=MINUTE)
        if asked is None:
            return reply([])
        found = host_series(self.using, asked.start, asked.step_seconds, asked.number)
        moments = asked.moments
        return reply(
            [
                {"host": host, "buckets": [to_wire(moments[one["step"]], one) for one in steps]}
                for host, steps in found.items()
            ]
        )
