"""What was done to a cluster, by whom and why: the newest first, and as CSV."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request

from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import Text, Time, refuse
from clusters.api.paging import Order, PageQuery, read_page
from clusters.api.schema import answers
from clusters.audit import MAX_EXPORTED, csv_lines, entry_to_json
from clusters.models import AuditEntry, TraceQuerySet
from clusters.registry import alias_of

LATEST_FIRST = Order(("at", "id"), (datetime.fromisoformat, uuid.UUID))
CSV = "text/csv; charset=utf-8"
# Lines of one piece of an export.
AT_ONCE = 200


class AuditFilter(serializers.Serializer[Any]):
    actor = Text(max_length=200, required=False, help_text="Such as `key:ci` or `user:anna`.")
    verb = Text(max_length=60, required=False, help_text="Such as `jobs.cancel`.")
    surface = Text(
        max_length=20,
        required=False,
        help_text="`native`, `admin`, `command`, or the name of a dialect.",
    )
    credential = Text(max_length=40, required=False, help_text="Such as `api_key` or `session`.")
    address = Text(max_length=45, required=False, help_text="Where the request came from.")
    target_type = Text(max_length=40, required=False)
    target_id = Text(max_length=200, required=False)
    request_id = Text(max_length=128, required=False)
    reason = Text(max_length=500, required=False, help_text="A part of it, in any case.")
    since = Time(required=False, help_text="Done at this time or later.")
    until = Time(required=False, help_text="Done before this time.")


class AuditListQuery(PageQuery, AuditFilter):
    pass


class AuditItem(serializers.Serializer[Any]):
    """One deed. It was done with this row or not at all, and the row never changes."""

    id = serializers.UUIDField()
    at = serializers.DateTimeField()
    actor = serializers.CharField()
    credential = serializers.CharField(help_text="How the actor showed who he is; may be empty.")
    surface = serializers.CharField()
    address = serializers.CharField()
    request_id = serializers.CharField()
    verb = serializers.CharField()
    target_type = serializers.CharField()
    target_id = serializers.CharField(help_text="Empty where it was about many.")
    filter = serializers.JSONField(allow_null=True, help_text="Which things were meant.")
    count = serializers.IntegerField(allow_null=True, help_text="How many were changed.")
    reason = serializers.CharField()
    before = serializers.JSONField(allow_null=True, help_text="What differs, as it was.")
    after = serializers.JSONField(allow_null=True, help_text="What differs, as it is now.")


class AuditPage(serializers.Serializer[Any]):
    items = AuditItem(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


class AuditViewSet(NativeViewSet):
    verbs = {"list": "audit.read", "export": "audit.read"}

    @extend_schema(
        operation_id="audit_list",
        summary="List what was done, newest first",
        description="Plain enqueues are told by the jobs themselves; the audit has them where the "
        "cluster's setting `audit_enqueues` is 1. Who asked for a change that he may not make is told as "
        "`deeds.refuse`, with the verb in `after`; `count` is how many there were since the row before.",
        parameters=[AuditListQuery],
        responses=answers({200: AuditPage}),
    )
    def list(self, request: Request, cluster_id: str) -> HttpResponse:
        asked = self.query(AuditListQuery)
        page = read_page(request, _entries(cluster_id, asked), LATEST_FIRST, asked)
        return reply(page.to_json(entry_to_json))

    @extend_schema(
        operation_id="audit_export",
        summary="Export what was done as CSV",
        description=f"The newest first, {MAX_EXPORTED} rows at most. What a spreadsheet would take "
        "for a formula begins with an apostrophe.",
        parameters=[AuditFilter],
        responses=answers({(200, "text/csv"): OpenApiTypes.STR}, 429),
    )
    def export(self, request: Request, cluster_id: str) -> HttpResponseBase:
        rows = _entries(cluster_id, self.query(AuditFilter))
        answer = self.streamed(pieces(rows), CSV)
        answer.headers["Content-Disposition"] = f'attachment; filename="audit-{cluster_id}.csv"'
        return answer


def _entries(cluster_id: str, asked: Mapping[str, Any]) -> TraceQuerySet:
    # Of this cluster by name: a stream is read when no cluster is bound any more.
    rows: TraceQuerySet = AuditEntry.objects.using(alias_of(cluster_id)).all()
    return rows.matching(checked(asked))


def checked(asked: Mapping[str, Any]) -> Mapping[str, Any]:
    """Search words that a database takes."""
    for name, value in asked.items():
        if isinstance(value, str) and "\0" in value:
            refuse(name, "Must not hold a NUL character.")
    return asked


def pieces(rows: TraceQuerySet) -> Iterator[bytes]:
    """An export, many lines at a time."""
    piece: list[str] = []
    for line in csv_lines(rows):
        piece.append(line)
        if len(piece) == AT_ONCE:
            yield "".join(piece).encode("utf-8", "replace")
            piece.clear()
    yield "".join(piece).encode("utf-8", "replace")
