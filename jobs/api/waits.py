"""What a job waits for, and who waits for it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpResponse
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request

from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import Id, QueryNumber, format_time, parse_uuid
from clusters.api.schema import JOB_ID, answers
from jobs.engine.waiting import Reason, why_waiting
from jobs.errors import JobNotFound
from jobs.models import Job, JobDependency, Needs, OnParentFailure
from jobs.states import State

DEFAULT_LIMIT, MAX_LIMIT = 100, 1000


class DependencyQuery(serializers.Serializer[Any]):
    after = Id(required=False, help_text="Children after the one with this `job_id`.")
    limit = QueryNumber(
        min_value=1,
        max_value=MAX_LIMIT,
        required=False,
        help_text=f"Children a page, {DEFAULT_LIMIT} unless told.",
    )


class WaitReason(serializers.Serializer[Any]):
    code = serializers.CharField(help_text="Stable; the texts are not.")
    message = serializers.CharField()
    data = serializers.DictField(  # type: ignore[assignment]
        help_text="Figures, names and moments; each code has its own."
    )


class WaitReasons(serializers.Serializer[Any]):
    state = serializers.ChoiceField(choices=State.values)
    reasons = WaitReason(many=True)


@extend_schema_serializer(component_name="Dependency")
class DependencyItem(serializers.Serializer[Any]):
    """An edge, and the job at its other end."""

    job_id = serializers.UUIDField()
    type = serializers.CharField(allow_null=True, help_text="Null where the job was deleted.")
    queue = serializers.CharField(allow_null=True)
    state = serializers.ChoiceField(choices=State.values, allow_null=True)
    needs = serializers.ChoiceField(choices=Needs.values)
    on_dependency_failure = serializers.ChoiceField(choices=OnParentFailure.values)
    satisfied_at = serializers.DateTimeField(
        allow_null=True, help_text="When the parent had ended; null while it is waited for."
    )


class Dependencies(serializers.Serializer[Any]):
    parents = DependencyItem(many=True)
    children = DependencyItem(many=True)
    next = serializers.CharField(allow_null=True, help_text="Relative address of more children.")


class JobWaitsViewSet(NativeViewSet):
    verbs = {"why": "jobs.read", "dependencies": "jobs.read"}

    @extend_schema(
        operation_id="jobs_why",
        summary="Why does a job not run now?",
        parameters=[JOB_ID],
        responses=answers({200: WaitReasons}),
    )
    def why(self, request: Request, cluster_id: str, job_id: str) -> HttpResponse:
        self.query()
        return reply(why_to_json(_job(job_id)))

    @extend_schema(
        operation_id="jobs_dependencies",
        summary="List what a job waits for and who waits for it",
        description="All parents, and the children page by page.",
        parameters=[JOB_ID, DependencyQuery],
        responses=answers({200: Dependencies}),
    )
    def dependencies(self, request: Request, cluster_id: str, job_id: str) -> HttpResponse:
        asked = {"limit": DEFAULT_LIMIT, **self.query(DependencyQuery)}
        job = _job(job_id)
        limit: int = asked["limit"]
        edges = JobDependency.objects.all()
        parents = list(edges.filter(child_id=job.pk).order_by("parent_id"))
        below = edges.filter(parent_id=job.pk).order_by("child_id")
        if "after" in asked:
            below = below.filter(child_id__gt=asked["after"])
        children = list(below[: limit + 1])
        goes_on, children = len(children) > limit, children[:limit]
        ends = {edge.parent_id for edge in parents} | {edge.child_id for edge in children}
        jobs = Job.objects.only("id", "type", "queue", "state").in_bulk(ends)
        following = None
        if goes_on:
            page = {"after": children[-1].child_id, "limit": limit}
            following = f"{request.path}?{urlencode(page)}"
        return reply(
            {
                "parents": [edge_to_json(edge, edge.parent_id, jobs) for edge in parents],
                "children": [edge_to_json(edge, edge.child_id, jobs) for edge in children],
                "next": following,
            }
        )


def _job(job_id: str) -> Job:
    key = parse_uuid(job_id)
    rows = Job.objects.defer("payload", "payload_bytes", "result")
    job = rows.filter(pk=key).first() if key else None
    if job is None:
        raise JobNotFound
    return job


def edge_to_json(edge: JobDependency, end: UUID, jobs: Mapping[UUID, Job]) -> dict[str, Any]:
    job = jobs.get(end)
    return {
        "job_id": str(end),
        "type": job.type if job else None,
        "queue": job.queue if job else None,
        "state": str(job.state) if job else None,
        "needs": edge.needs,
        "on_dependency_failure": edge.on_failure,
        "satisfied_at": format_time(edge.satisfied_at),
    }


def why_to_json(job: Job) -> dict[str, Any]:
    reasons = [reason_to_json(reason) for reason in why_waiting(job)]
    return {"state": str(job.state), "reasons": reasons}


def reason_to_json(reason: Reason) -> dict[str, Any]:
    data = {name: _plain(value) for name, value in reason.data.items()}
    return {"code": reason.code, "message": reason.message, "data": data}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return format_time(value)
    if isinstance(value, UUID):
        return str(value)
    return [_plain(one) for one in value] if isinstance(value, list) else value
