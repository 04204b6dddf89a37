"""When the schedules of a cluster will run in the next seven days, and who crowds an hour."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import ceil, sqrt
from typing import Any

from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from rest_framework import serializers

from clusters.api.fields import Time
from clusters.binding import current_cluster
from jobs import schedule_load
from jobs.engine.clock import database_now
from jobs.schedule_load import DAYS, HOUR, Load
from ui.asking import Asked
from ui.callers import require

# Shades of an hour, and schedules that are named of one.
LEVELS = 5
SHOWN_BUSIEST = 50


class Query(serializers.Serializer[Any]):
    hour = Time(required=False, help_text="Who runs in the hour that begins then.")


def page(site: Any, request: HttpRequest) -> HttpResponse:
    require(request, "schedules.read")
    asked = Asked(request, Query)
    using = current_cluster().alias
    hour: datetime | None = asked.words.get("hour")
    load = schedule_load.read(using, database_now(connections[using]), hour=hour)
    context = {
        **site.each_context(request),
        "title": "When schedules run",
        "subtitle": None,
        "errors": asked.errors,
        "load": load,
        "days": [load.begins_at + timedelta(days=day) for day in range(DAYS)],
        "totals": [sum(load.hours[day * 24 : day * 24 + 24]) for day in range(DAYS)],
        "lines": _lines(load, hour),
        "hour": hour,
        "hour_ends_at": None if hour is None else hour + HOUR,
        "busiest": load.busiest[:SHOWN_BUSIEST],
        "more": max(len(load.busiest) - SHOWN_BUSIEST, 0),
    }
    return TemplateResponse(request, "ui/schedule_load/page.html", context, status=asked.status)


def _lines(load: Load, asked: datetime | None) -> list[tuple[int, list[dict[str, Any]]]]:
    """A line for each hour of the day, with a cell for each day."""
    highest = max(load.hours, default=0)
    return [
        (clock, [_cell(load, day * 24 + clock, highest, asked) for day in range(DAYS)])
        for clock in range(24)
    ]


def _cell(load: Load, place: int, highest: int, asked: datetime | None) -> dict[str, Any]:
    at = load.begins_at + place * HOUR
    runs = load.hours[place]
    return {
        "at": at,
        "runs": runs,
        "is_over": at + HOUR <= load.now,
        "is_asked": at == asked,
        # By its root: one hour with very many leaves the others their differences.
        "level": ceil(LEVELS * sqrt(runs / highest)) if runs else 0,
    }


ROUTES = (("schedules/load/", page, "schedule-load"),)
