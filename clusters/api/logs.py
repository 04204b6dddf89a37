"""The log of a cluster: of late, who asked it for what."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.http import HttpResponse
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import NotFound
from rest_framework.request import Request

from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import Choice, QueryNumber, Text, Time, format_time
from clusters.api.paging import Order, PageQuery, read_page
from clusters.api.schema import answers
from clusters.api.serializers import ExactCount
from clusters.log import Category, Level, LogEntry, LogEntryQuerySet

NEWEST_LINE_FIRST = Order(("logged_at", "id"), (datetime.fromisoformat, int))
# So many lines are counted, and no more.
COUNT_LIMIT = 10_000
LARGEST_ID = 2**63 - 1
LINE_ID = OpenApiParameter("line_id", OpenApiTypes.INT64, OpenApiParameter.PATH)
METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")


class LogFilter(serializers.Serializer[Any]):
    category = Choice(choices=Category.values, required=False)
    level = Choice(choices=Level.values, required=False)
    actor = Text(max_length=200, required=False, help_text="As `whoami` says it: `key:importer`.")
    request_id = Text(max_length=128, required=False)
    method = Choice(choices=METHODS, required=False)
    status = QueryNumber(min_value=100, max_value=599, required=False)
    min_status = QueryNumber(
        min_value=100, max_value=599, required=False, help_text="This status and those above."
    )
    logged_after = Time(required=False, help_text="This moment or later.")
    logged_before = Time(required=False, help_text="Earlier than this moment.")


class LogListQuery(PageQuery, LogFilter):
    pass


class LogEntryItem(serializers.Serializer[Any]):
    """One line; of a request the path without its query, and never a body."""

    id = serializers.IntegerField()
    logged_at = serializers.DateTimeField()
    category = serializers.ChoiceField(choices=Category.values)
    level = serializers.ChoiceField(choices=Level.values)
    message = serializers.CharField()
    actor = serializers.CharField(
        allow_null=True, help_text="Null: the credentials were missing or bad."
    )
    address = serializers.CharField(help_text="Where the request came from.")
    request_id = serializers.CharField()
    surface = serializers.CharField(help_text="The API that was asked: `native`, `tork`, …")
    method = serializers.CharField()
    path = serializers.CharField()
    status = serializers.IntegerField(allow_null=True)
    duration_ms = serializers.FloatField(
        allow_null=True, help_text="From its arrival to the head of the answer."
    )


class LogPage(serializers.Serializer[Any]):
    items = LogEntryItem(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


class LogViewSet(NativeViewSet):
    verbs = {"list": "logs.read", "count": "logs.read", "retrieve": "logs.read"}

    @extend_schema(
        operation_id="logs_list",
        summary="Read the cluster's log, newest lines first",
        description="A line for each request to this cluster over any API, where the server is told "
        "to keep them; it is written within seconds, and kept as long as other log lines are.",
        parameters=[LogListQuery],
        responses=answers({200: LogPage}),
    )
    def list(self, request: Request, cluster_id: str) -> HttpResponse:
        asked = self.query(LogListQuery)
        page = read_page(request, _filtered(asked), NEWEST_LINE_FIRST, asked)
        return reply(page.to_json(_line_to_json))

    @extend_schema(
        operation_id="logs_count",
        summary="Count lines of the cluster's log",
        description=f"Up to {COUNT_LIMIT}; where there are more, `is_exact` is false.",
        parameters=[LogFilter],
        responses=answers({200: ExactCount}),
    )
    def count(self, request: Request, cluster_id: str) -> HttpResponse:
        counted = _filtered(self.query(LogFilter))[: COUNT_LIMIT + 1].count()
        return reply({"count": min(counted, COUNT_LIMIT), "is_exact": counted <= COUNT_LIMIT})

    @extend_schema(
        operation_id="logs_get",
        summary="Get a line of the cluster's log",
        parameters=[LINE_ID],
        responses=answers({200: LogEntryItem}),
    )
    def retrieve(self, request: Request, cluster_id: str, line_id: str) -> HttpResponse:
        self.query()
        is_id = line_id.isascii() and line_id.isdigit() and len(line_id) < 20
        key = int(line_id) if is_id else 0
        line = LogEntry.objects.filter(pk=key).first() if 0 < key <= LARGEST_ID else None
        if line is None:
            raise NotFound
        return reply(_line_to_json(line))


def _filtered(asked: dict[str, Any]) -> LogEntryQuerySet:
    lines: LogEntryQuerySet = LogEntry.objects.all()
    lines = lines.between(asked.get("logged_after"), asked.get("logged_before"))
    same = ("category", "level", "actor", "request_id", "method", "status")
    lines = lines.filter(**{name: asked[name] for name in same if name in asked})
    return lines.filter(status__gte=asked["min_status"]) if "min_status" in asked else lines


def _line_to_json(line: LogEntry) -> dict[str, Any]:
    return {
        "id": line.pk,
        "logged_at": format_time(line.logged_at),
        "category": line.category,
        "level": line.level,
        "message": line.message,
        "actor": line.actor or None,
        "address": line.address,
        "request_id": line.request_id,
        "surface": line.surface,
        "method": line.method,
        "path": line.path,
        "status": line.status,
        "duration_ms": line.duration_ms,
    }
