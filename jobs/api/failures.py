"""Failures of one cluster, in groups of those that are alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connections
from django.db.models import OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.http import HttpResponse
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request

from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import Choice, Text, Time, format_time
from clusters.api.paging import Order, PageQuery, read_page
from clusters.api.schema import answers
from jobs import metrics
from jobs.api.serializers import Count
from jobs.engine.clock import database_now
from jobs.errors import FailureNotFound
from jobs.models import Failure, FailureHour

NEWEST = Order(("last_seen_at", "fingerprint"), (datetime.fromisoformat, str))
MOST = Order(("window_count", "fingerprint"), (int, str))
DEFAULT_WINDOW = timedelta(hours=24)
DETAIL_HOURS = 168
_FINGERPRINT = re.compile(r"[0-9a-f]{16}\Z")

# -- In and out ------------------------------------------------------------------------------------


class FailureFilter(serializers.Serializer[Any]):
    queue = Text(max_length=100, required=False, help_text="The latest was of a job of this queue.")
    type = Text(max_length=200, required=False, help_text="The latest was of a job of this type.")
    since = Time(required=False, help_text="Seen at this moment or later.")


class FailureListQuery(PageQuery, FailureFilter):
    order = Choice(
        choices=("newest", "most"),
        required=False,
        help_text="`newest` unless told; `most`: by how often since `since`, or in the last 24 "
        "hours, by whole hours.",
    )


class FailureItem(serializers.Serializer[Any]):
    fingerprint = serializers.CharField()
    error_type = serializers.CharField()
    message = serializers.CharField(help_text="With marks in place of numbers, ids and names.")
    frame = serializers.CharField(
        help_text="File and function of the handler's own code, or empty."
    )
    queue = serializers.CharField(help_text="Of the latest.")
    type = serializers.CharField(help_text="Of the latest.")
    job_id = serializers.UUIDField(help_text="The latest.")
    count = serializers.IntegerField()
    count_24h = serializers.IntegerField(help_text="By whole hours.")
    count_7d = serializers.IntegerField(help_text="By whole hours.")
    first_seen_at = serializers.DateTimeField()
    last_seen_at = serializers.DateTimeField()
    jobs = serializers.CharField(help_text="Address of the list of jobs that ended so.")


class FailureHourItem(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    count = serializers.IntegerField()


class FailureDetail(FailureItem):
    example = serializers.CharField(help_text="Error text and trace of the latest.")
    hours = FailureHourItem(many=True, help_text=f"The last {DETAIL_HOURS}, oldest first.")


class FailurePage(serializers.Serializer[Any]):
    items = FailureItem(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


def failure_to_json(
    failure: Failure, recent: metrics.RecentFailures, cluster_id: str
) -> dict[str, Any]:
    return {
        "fingerprint": failure.fingerprint,
        "error_type": failure.error_type,
        "message": failure.message,
        "frame": failure.frame,
        "queue": failure.queue,
        "type": failure.type,
        "job_id": str(failure.job_id),
        "count": failure.count,
        "count_24h": recent.in_24_hours,
        "count_7d": recent.in_7_days,
        "first_seen_at": format_time(failure.first_seen_at),
        "last_seen_at": format_time(failure.last_seen_at),
        "jobs": f"{settings.BASE_PATH}/{cluster_id}/jobs?failure={failure.fingerprint}",
    }


def failure_detail_to_json(
    failure: Failure,
    recent: metrics.RecentFailures,
    hours: Sequence[tuple[datetime, int]],
    cluster_id: str,
) -> dict[str, Any]:
    return {
        **failure_to_json(failure, recent, cluster_id),
        "example": failure.example,
        "hours": [{"at": format_time(at), "count": count} for at, count in hours],
    }


# -- Views -----------------------------------------------------------------------------------------


class FailureViewSet(NativeViewSet):
    verbs = {"list": "failures.read", "count": "failures.read", "retrieve": "failures.read"}

    @extend_schema(
        operation_id="failures_list",
        summary="List groups of failures",
        parameters=[FailureListQuery],
        responses=answers({200: FailurePage}),
    )
    def list(self, request: Request, cluster_id: str) -> HttpResponse:
        asked = self.query(FailureListQuery)
        groups = _filtered(asked)
        if asked.get("order") == "most":
            groups, order = _with_window(groups, asked.get("since")), MOST
        else:
            order = NEWEST
        page = read_page(request, groups, order, asked)
        recent = _recent(row.fingerprint for row in page.rows)
        return reply(
            page.to_json(lambda row: failure_to_json(row, recent[row.fingerprint], cluster_id))
        )

    @extend_schema(
        operation_id="failures_count",
        summary="Count groups of failures",
        parameters=[FailureFilter],
        responses=answers({200: Count}),
    )
    def count(self, request: Request, cluster_id: str) -> HttpResponse:
        return reply({"count": _filtered(self.query(FailureFilter)).count(), "is_exact": True})

    @extend_schema(
        operation_id="failures_get",
        summary="Get a group of failures",
        responses=answers({200: FailureDetail}),
    )
    def retrieve(self, request: Request, cluster_id: str, fingerprint: str) -> HttpResponse:
        self.query()
        group = None
        if _FINGERPRINT.match(fingerprint):
            group = Failure.objects.filter(pk=fingerprint).first()
        if group is None:
            raise FailureNotFound
        hours = metrics.failure_hours(Failure.objects.all().db, fingerprint, DETAIL_HOURS)
        recent = _recent([fingerprint])[fingerprint]
        return reply(failure_detail_to_json(group, recent, hours, cluster_id))


def _filtered(asked: dict[str, Any]) -> QuerySet[Failure]:
    groups = Failure.objects.all()
    if "queue" in asked:
        groups = groups.filter(queue=asked["queue"])
    if "type" in asked:
        groups = groups.filter(type=asked["type"])
    if "since" in asked:
        groups = groups.filter(last_seen_at__gte=asked["since"])
    return groups


def _with_window(groups: QuerySet[Failure], since: datetime | None) -> QuerySet[Failure]:
    """Only groups seen in the window, with how often."""
    using = groups.db
    since = since or database_now(connections[using]) - DEFAULT_WINDOW
    hours = FailureHour.objects.using(using).filter(
        fingerprint=OuterRef("fingerprint"),
        starts_at__gte=since.replace(minute=0, second=0, microsecond=0),
    )
    counted = hours.order_by().values("fingerprint").annotate(n=Sum("count")).values("n")
    return groups.filter(last_seen_at__gte=since).annotate(
        window_count=Coalesce(Subquery(counted), 0)
    )


def _recent(fingerprints: Iterable[str]) -> dict[str, metrics.RecentFailures]:
    return metrics.recent_failures(Failure.objects.all().db, fingerprints)
