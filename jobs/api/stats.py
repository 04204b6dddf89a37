"""Counts, rates and times of one cluster: summed up, and step by step."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import connections
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request

from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import Choice, Text, Time, format_time, refuse
from clusters.api.schema import answers
from clusters.models import current_policy
from jobs import metrics
from jobs.engine.clock import database_now
from jobs.metrics import EVENTS, Figures
from jobs.models import Rollup

DEFAULT_SPAN = timedelta(hours=24)
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
SHARES = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
_ROUNDED = "Rounded outwards to what is kept: minutes for 48 hours, then hours, then days."

# -- In --------------------------------------------------------------------------------------------


class SpanQuery(serializers.Serializer[Any]):
    queue = Text(max_length=100, required=False, help_text="This queue only.")
    type = Text(max_length=200, required=False, help_text="This type only.")

    def get_fields(self) -> dict[str, Any]:
        days = metrics.LONGEST.days
        return {
            "from": Time(required=False, help_text="24 hours before `to` unless told."),
            "to": Time(
                required=False,
                help_text=f"Before this moment; now unless told. {days} days at most.",
            ),
            **super().get_fields(),
        }


class StatsQuery(SpanQuery):
    group_by = Choice(
        choices=("queue", "type", "none"),
        required=False,
        help_text=f"Figures of each, the busiest {metrics.MAX_GROUPS}.",
    )


class TimelineQuery(SpanQuery):
    step = Choice(
        choices=[str(step) for step in metrics.STEPS],
        required=False,
        help_text="Seconds; unless told the shortest that makes 500 points at most. "
        f"{metrics.MAX_POINTS} points at most; below 3600 only for the last 48 hours.",
    )


# -- Out -------------------------------------------------------------------------------------------


class Counts(serializers.Serializer[Any]):
    enqueued = serializers.IntegerField()
    started = serializers.IntegerField(help_text="Attempts.")
    succeeded = serializers.IntegerField()
    failed = serializers.IntegerField()
    cancelled = serializers.IntegerField()
    skipped = serializers.IntegerField()
    retried = serializers.IntegerField(help_text="Attempts that another followed.")
    released = serializers.IntegerField(help_text="Attempts that a stopping node gave back.")


class Times(serializers.Serializer[Any]):
    """In seconds, from histograms: at most 19 % off; null where nothing was measured."""

    p50 = serializers.FloatField(allow_null=True)
    p90 = serializers.FloatField(allow_null=True)
    p99 = serializers.FloatField(allow_null=True)
    mean = serializers.FloatField(allow_null=True)


class StatsItem(Counts):
    queue = serializers.CharField(required=False, help_text="With `group_by=queue`.")
    type = serializers.CharField(required=False, help_text="With `group_by=type`.")
    failure_rate = serializers.FloatField(
        allow_null=True, help_text="Failed of those that succeeded or failed, 0 to 1."
    )
    finished_per_second = serializers.FloatField(help_text="Jobs that reached a final state.")
    wait_seconds = Times(help_text="From when it was due until its start.")
    run_seconds = Times(help_text="Of attempts, however they ended.")


class SpanAnswer(serializers.Serializer[Any]):
    def get_fields(self) -> dict[str, Any]:
        return {
            "from": serializers.DateTimeField(help_text=_ROUNDED),
            "to": serializers.DateTimeField(),
            "as_of": serializers.DateTimeField(
                help_text="Everything before this moment is counted; now, unless upkeep has stopped."
            ),
            **super().get_fields(),
        }


class StatsAnswer(SpanAnswer):
    items = StatsItem(many=True)


class TimelinePoint(Counts):
    at = serializers.DateTimeField(help_text="When the step begins.")
    wait_p50_seconds = serializers.FloatField(allow_null=True)
    wait_p99_seconds = serializers.FloatField(allow_null=True)
    run_p50_seconds = serializers.FloatField(allow_null=True)
    run_p99_seconds = serializers.FloatField(allow_null=True)


class TimelineAnswer(SpanAnswer):
    step_seconds = serializers.IntegerField()
    points = TimelinePoint(many=True)


def figures_to_json(figures: Figures, seconds: float) -> dict[str, Any]:
    waits, runs = figures.percentiles(*SHARES.values())
    mean_wait, mean_run = figures.means()
    return {
        **{event: figures.counts[event] for event in EVENTS},
        "failure_rate": figures.failure_rate,
        "finished_per_second": figures.finished / seconds,
        "wait_seconds": {**dict(zip(SHARES, waits, strict=True)), "mean": mean_wait},
        "run_seconds": {**dict(zip(SHARES, runs, strict=True)), "mean": mean_run},
    }


def stats_to_json(stats: metrics.Stats, group_by: str | None) -> dict[str, Any]:
    return {
        "from": format_time(stats.start),
        "to": format_time(stats.end),
        "as_of": format_time(stats.as_of),
        "items": [
            {
                **({group_by: name} if group_by else {}),
                **figures_to_json(figures, stats.seconds),
            }
            for name, figures in stats.groups
        ],
    }


def timeline_to_json(timeline: metrics.Timeline) -> dict[str, Any]:
    return {
        "from": format_time(timeline.start),
        "to": format_time(timeline.end),
        "as_of": format_time(timeline.as_of),
        "step_seconds": timeline.step_seconds,
        "points": [_point_to_json(at, figures) for at, figures in timeline.points],
    }


def _point_to_json(at: datetime, figures: Figures) -> dict[str, Any]:
    (wait_p50, wait_p99), (run_p50, run_p99) = figures.percentiles(0.5, 0.99)
    return {
        "at": format_time(at),
        **{event: figures.counts[event] for event in EVENTS},
        "wait_p50_seconds": wait_p50,
        "wait_p99_seconds": wait_p99,
        "run_p50_seconds": run_p50,
        "run_p99_seconds": run_p99,
    }


# -- Views -----------------------------------------------------------------------------------------


class StatsViewSet(NativeViewSet):
    verbs = {"stats": "stats.read", "timeline": "stats.read"}

    @extend_schema(
        operation_id="stats",
        summary="Counts, rates and times",
        description=f"What is counted but not yet rolled up is included. {_ROUNDED}",
        parameters=[StatsQuery],
        responses=answers({200: StatsAnswer}),
    )
    def stats(self, request: Request, cluster_id: str) -> HttpResponse:
        asked = self.query(StatsQuery)
        using = Rollup.objects.all().db
        start, end = _span(using, asked)
        group_by = asked.get("group_by", "none")
        by = None if group_by == "none" else group_by
        found = metrics.stats(
            using,
            current_policy(),
            start,
            end,
            queue=asked.get("queue"),
            type=asked.get("type"),
            group_by=by,
        )
        return reply(stats_to_json(found, by))

    @extend_schema(
        operation_id="timeline",
        summary="Counts and times step by step",
        description="Steps in which nothing happened are there, with zeros.",
        parameters=[TimelineQuery],
        responses=answers({200: TimelineAnswer}),
    )
    def timeline(self, request: Request, cluster_id: str) -> HttpResponse:
        asked = self.query(TimelineQuery)
        using = Rollup.objects.all().db
        start, end = _span(using, asked)
        try:
            found = metrics.timeline(
                using,
                current_policy(),
                start,
                end,
                step_seconds=int(asked["step"]) if "step" in asked else None,
                queue=asked.get("queue"),
                type=asked.get("type"),
            )
        except metrics.TooFine:
            refuse("step", "So long ago figures are kept by longer steps only.", "too_fine")
        except metrics.TooManyPoints:
            refuse(
                "step",
                f"This would make more than {metrics.MAX_POINTS} points; ask for a longer step.",
                "too_many_points",
            )
        return reply(timeline_to_json(found))


def _span(using: str, asked: dict[str, Any]) -> tuple[datetime, datetime]:
    now = database_now(connections[using])
    start, end = asked.get("from"), asked.get("to")
    if end is None:
        # What is asked for from a moment on goes on until now.
        end = now if start is None or start < now else start
    if end < EARLIEST:
        refuse("to", "Lies too long ago.")
    if start is None:
        start = end - DEFAULT_SPAN
    if start > now:
        refuse("from", "Must not lie in the future.")
    if start >= end:
        refuse("to" if "to" in asked else "from", "`from` must be earlier than `to`.")
    if end - start > metrics.LONGEST:
        refuse("from", f"Must be {metrics.LONGEST.days} days before `to` at most.")
    return start, end
