"""What was done to users, groups, keys and roles, and who was turned away; also as CSV."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request

from authn.models import AccessAuditEntry
from clusters.api.audit import (
    CSV,
    LATEST_FIRST,
    AuditFilter,
    AuditListQuery,
    AuditPage,
    checked,
    pieces,
)
from clusters.api.base import NativeViewSet, reply
from clusters.api.paging import read_page
from clusters.api.schema import answers
from clusters.audit import MAX_EXPORTED, entry_to_json
from clusters.models import TraceQuerySet


class AccessAuditViewSet(NativeViewSet):
    verbs = {"list": "access_audit.read", "export": "access_audit.read"}

    @extend_schema(
        operation_id="access_audit_list",
        summary="List what was done to keys, roles and users, newest first",
        description="And whose credentials were refused: `credentials.refuse` stands for all tries of "
        "one identity from one address within a minute, which `count` has. `deeds.refuse` is who asked "
        "for a change that he may not make, with the verb in `after`. For admins of all clusters.",
        parameters=[AuditListQuery],
        responses=answers({200: AuditPage}),
    )
    def list(self, request: Request) -> HttpResponse:
        asked = self.query(AuditListQuery)
        page = read_page(request, _entries(asked), LATEST_FIRST, asked)
        return reply(page.to_json(entry_to_json))

    @extend_schema(
        operation_id="access_audit_export",
        summary="Export what was done to keys, roles and users as CSV",
        description=f"The newest first, {MAX_EXPORTED} rows at most. What a spreadsheet would take "
        "for a formula begins with an apostrophe.",
        parameters=[AuditFilter],
        responses=answers({(200, "text/csv"): OpenApiTypes.STR}, 429),
    )
    def export(self, request: Request) -> HttpResponseBase:
        answer = self.streamed(pieces(_entries(self.query(AuditFilter))), CSV)
        answer.headers["Content-Disposition"] = 'attachment; filename="access-audit.csv"'
        return answer


def _entries(asked: Mapping[str, Any]) -> TraceQuerySet:
    rows: TraceQuerySet = AccessAuditEntry.objects.all()
    return rows.matching(checked(asked))
