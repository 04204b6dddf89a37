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
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request

from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import Choice, Text, Time, format_time, refuse
from clusters.api.paging import Order, PageQuery, read_page
from clusters.api.schema import BODY, answers
from jobs import failure_figures
from jobs.api.job_wire import Count
from jobs.engine.clock import database_now
from jobs.errors import FailureNotFound
from jobs.models import Failure, FailureHour, Mark
from jobs.models.failure import (
    MAX_OWNER_LENGTH,
    MAX_REASON_LENGTH,
    MAX_TICKET_LENGTH,
    SAID_VALUES,
)

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
    mark = Choice(choices=Mark.values, required=False, help_text="What the group is said to be.")


@extend_schema_serializer(component_name="FailureChange")
class FailureChangeInput(serializers.Serializer[Any]):
    """What is left out stays as it is."""

    mark = Choice(
        choices=SAID_VALUES,
        required=False,
        help_text="`muted`: it makes no alert, and the cluster is well all the same.",
    )
    muted_until = Time(
        required=False, help_text="Goes with `muted`; without it, until somebody says otherwise."
    )
    owner = Text(max_length=MAX_OWNER_LENGTH, allow_blank=True, required=False)
    ticket = Text(
        max_length=MAX_TICKET_LENGTH,
        allow_blank=True,
        required=False,
        help_text="An address, https or http.",
    )
    reason = Text(
        max_length=MAX_REASON_LENGTH,
        allow_blank=True,
        required=False,
        help_text="Kept in the audit, and beside the mark.",
    )


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
    count_1h = serializers.IntegerField(help_text="By whole minutes.")
    count_24h = serializers.IntegerField(help_text="By whole hours.")
    count_7d = serializers.IntegerField(help_text="By whole hours.")
    first_seen_at = serializers.DateTimeField()
    last_seen_at = serializers.DateTimeField()
    mark = serializers.ChoiceField(
        choices=Mark.values,
        help_text="`new`: nobody has said anything of it; `returned`: not seen for 7 days, and back.",
    )
    muted_until = serializers.DateTimeField(allow_null=True)
    owner = serializers.CharField()
    ticket = serializers.CharField()
    jobs = serializers.CharField(help_text="Address of the list of jobs that ended so.")


class FailureHourItem(serializers.Serializer[Any]):
    at = serializers.DateTimeField()
    count = serializers.IntegerField()


class FailureDetail(FailureItem):
    example = serializers.CharField(help_text="Error text and trace of the latest.")
    marked_by = serializers.CharField()
    marked_at = serializers.DateTimeField(allow_null=True)
    mark_reason = serializers.CharField()
    returned_at = serializers.DateTimeField(allow_null=True)
    types = serializers.ListField(child=serializers.CharField(), help_text="The latest last.")
    nodes = serializers.ListField(child=serializers.CharField(), help_text="The latest last.")
    versions = serializers.ListField(child=serializers.CharField(), help_text="The latest last.")
    hours = FailureHourItem(many=True, help_text=f"The last {DETAIL_HOURS}, oldest first.")


class FailurePage(serializers.Serializer[Any]):
    items = FailureItem(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


def failure_to_json(
    failure: Failure, recent: failure_figures.RecentFailures, cluster_id: str
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
        "count_1h": recent.in_1_hour,
        "count_24h": recent.in_24_hours,
        "count_7d": recent.in_7_days,
        "first_seen_at": format_time(failure.first_seen_at),
        "last_seen_at": format_time(failure.last_seen_at),
        "mark": failure.mark,
        "muted_until": format_time(failure.muted_until),
        "owner": failure.owner,
        "ticket": failure.ticket,
        "jobs": f"{settings.BASE_PATH}/{cluster_id}/jobs?failure={failure.fingerprint}",
    }


def failure_detail_to_json(
    failure: Failure,
    recent: failure_figures.RecentFailures,
    hours: Sequence[tuple[datetime, int]],
    cluster_id: str,
) -> dict[str, Any]:
    return {
        **failure_to_json(failure, recent, cluster_id),
        "example": failure.example,
        "marked_by": failure.marked_by,
        "marked_at": format_time(failure.marked_at),
        "mark_reason": failure.mark_reason,
        "returned_at": format_time(failure.returned_at),
        **{what: failure.was_seen_on(what) for what in ("types", "nodes", "versions")},
        "hours": [{"at": format_time(at), "count": count} for at, count in hours],
    }


# -- Views -----------------------------------------------------------------------------------------


class FailureViewSet(NativeViewSet):
    verbs = {
        "list": "failures.read",
        "count": "failures.read",
        "retrieve": "failures.read",
        "partial_update": "failures.change",
    }

    @extend_schema(
        operation_id="failures_list",
        summary="List groups of failures",
        parameters=[FailureListQuery],
        responses=answers({200: FailurePage}),
    )
    def list(self, request: Request, cluster_id: str) -> HttpResponse:
        asked = self.query(FailureListQuery)
        groups = filtered(asked)
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
        return reply({"count": filtered(self.query(FailureFilter)).count(), "is_exact": True})

    @extend_schema(
        operation_id="failures_get",
        summary="Get a group of failures",
        responses=answers({200: FailureDetail}),
    )
    def retrieve(self, request: Request, cluster_id: str, fingerprint: str) -> HttpResponse:
        self.query()
        group = Failure.objects.filter(pk=_sound(fingerprint)).first()
        if group is None:
            raise FailureNotFound
        return _detail(group, cluster_id)

    @extend_schema(
        operation_id="failures_change",
        summary="Say what a group is",
        description="Known, muted, whose it is and where that is written down. The jobs stay as they "
        "are: retry or cancel them by a bulk operation with the filter `failure`.",
        request=FailureChangeInput,
        responses=answers({200: FailureDetail}, *BODY),
    )
    def partial_update(self, request: Request, cluster_id: str, fingerprint: str) -> HttpResponse:
        self.query()
        values = self.body(FailureChangeInput)
        if not values.keys() - {"reason"}:
            refuse("body", "Names nothing to change.", "required")
        values["until"] = values.pop("muted_until", None)
        groups = Failure.objects.all()
        by = self.principal.actor
        return _detail(groups.annotate_group(_sound(fingerprint), by=by, **values), cluster_id)


def _sound(fingerprint: str) -> str:
    """What a group can be called; of anything else there is none."""
    if not _FINGERPRINT.match(fingerprint):
        raise FailureNotFound
    return fingerprint


def _detail(group: Failure, cluster_id: str) -> HttpResponse:
    using, fingerprint = Failure.objects.all().db, group.fingerprint
    hours = failure_figures.failure_hours(using, fingerprint, DETAIL_HOURS)
    return reply(
        failure_detail_to_json(group, _recent([fingerprint])[fingerprint], hours, cluster_id)
    )


def filtered(asked: dict[str, Any]) -> QuerySet[Failure]:
    """Groups by the words of the list."""
    groups: QuerySet[Failure] = Failure.objects.all()
    for word in ("queue", "type", "mark"):
        if word in asked:
            groups = groups.filter(**{word: asked[word]})
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


def _recent(fingerprints: Iterable[str]) -> dict[str, failure_figures.RecentFailures]:
    return failure_figures.recent_failures(Failure.objects.all().db, fingerprints)
