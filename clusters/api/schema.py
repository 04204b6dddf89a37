"""Words for the OpenAPI document: problems, and what many operations share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from drf_spectacular.openapi import AutoSchema
from drf_spectacular.plumbing import get_lib_doc_excludes
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse
from rest_framework import serializers
from rest_framework.viewsets import ViewSetMixin

from config.problems import CONTENT_TYPE

ABOUT = {
    400: "The request is not valid; `errors` says where.",
    401: "No credentials, or bad ones.",
    403: "The role on this cluster, or a grant, does not cover this.",
    404: "No such thing, or not visible to the caller.",
    409: "Not possible in the present state.",
    411: "A body needs a length.",
    412: "Changed since it was read.",
    413: "The body is too large.",
    414: "The address with its query is too long.",
    415: "The body is not `application/json`.",
    422: "The Idempotency-Key belongs to another request.",
    429: "Too many requests, streams, tries or jobs; try again later.",
    431: "A header is too large, or there are too many.",
    503: "The cluster's database does not answer, or not in time.",
}
# What every operation may answer; and those that may read a body.
ALWAYS = (400, 401, 403, 404, 414, 429, 431, 503)
BODY = (411, 413, 415)


class NativeSchema(AutoSchema):
    """What is named is what is answered: a list is an object with `items`, never a bare array."""

    def _is_list_view(self, serializer: Any = None) -> bool:
        return False


class ProblemError(serializers.Serializer[Any]):
    field = serializers.CharField(help_text="A path such as `jobs[3].payload.a[0]`.")
    code = serializers.CharField()
    message = serializers.CharField()


class Problem(serializers.Serializer[Any]):
    type = serializers.CharField()
    title = serializers.CharField()
    status = serializers.IntegerField()
    code = serializers.CharField(help_text="Stable; the texts are not.")
    detail = serializers.CharField()
    request_id = serializers.CharField(allow_null=True)
    errors = ProblemError(many=True)  # type: ignore[assignment]


def foreign_docstrings() -> list[type]:
    """Classes whose docstrings say nothing about an operation."""
    return [*get_lib_doc_excludes(), ViewSetMixin]  # type: ignore[no-untyped-call]


def answers(good: Mapping[Any, Any], *statuses: int) -> dict[Any, Any]:
    """Responses of an operation: the good ones, and the problems all or this one may have."""
    problems = {
        (status, CONTENT_TYPE): OpenApiResponse(Problem, description=ABOUT[status])
        for status in sorted({*ALWAYS, *statuses})
    }
    return {**good, **problems}


JOB_ID = OpenApiParameter("job_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
OPERATION_ID = OpenApiParameter("operation_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
NODE_ID = OpenApiParameter("node_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
SCHEDULE_ID = OpenApiParameter("schedule_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
WORKFLOW_ID = OpenApiParameter("workflow_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
RUN_ID = OpenApiParameter("run_id", OpenApiTypes.UUID, OpenApiParameter.PATH)
IDEMPOTENCY_KEY = OpenApiParameter(
    "Idempotency-Key",
    {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
    OpenApiParameter.HEADER,
    description="1 to 255 printable characters. A repeat of the same request within 24 hours gets "
    "the first reply, with `Idempotent-Replayed: true`, and has no second effect.",
)
IF_MATCH = OpenApiParameter(
    "If-Match",
    {"type": "string", "pattern": r'^(\*|"[0-9]{1,9}"(, ?"[0-9]{1,9}"){0,9})$'},
    OpenApiParameter.HEADER,
    description="The ETag of the version that was read; 412 where it has changed since.",
)
