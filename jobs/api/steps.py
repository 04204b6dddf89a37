"""The steps of a job, and the log of a job with those of its steps."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.db import DatabaseError, InterfaceError
from django.http import HttpResponse
from django.http.response import HttpResponseBase
from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request

from clusters.api.base import NativeViewSet, reply
from clusters.api.fields import Choice, Flag, Id, QueryNumber, format_time, parse_uuid, refuse
from clusters.api.schema import JOB_ID, answers
from clusters.registry import alias_of
from jobs.api import job_wire as wire
from jobs.errors import JobNotFound
from jobs.models import Job, Step
from jobs.states import Reason, State
from jobs.step_logs import FOLLOW_SECONDS, LAST, POLL_SECONDS, Follower, is_made_of_steps, lines_of
from jobs.step_tree import steps_of

logger = logging.getLogger(__name__)

DEFAULT_LINES, DEFAULT_STEPS, MAX_STEPS = 200, 100, 200
NDJSON = "application/x-ndjson"
OLDEST, NEWEST = "oldest", "newest"
_WITH_STEPS = "Lines of all its steps too; unless told, of a job that is made of steps they are."


class LogQuery(serializers.Serializer[Any]):
    after = QueryNumber(
        min_value=0, required=False, help_text="Lines after the one with this `id`."
    )
    before = QueryNumber(
        min_value=0, required=False, help_text="Lines before the one with this `id`."
    )
    order = Choice(
        choices=[OLDEST, NEWEST], required=False, help_text="Which come first; oldest unless told."
    )
    steps = Flag(required=False, help_text=_WITH_STEPS)
    limit = QueryNumber(min_value=1, max_value=1000, required=False, help_text="200 unless told.")


class LogStreamQuery(serializers.Serializer[Any]):
    after = QueryNumber(
        min_value=0, required=False, help_text="Lines after the one with this `id`."
    )
    tail = QueryNumber(
        min_value=0,
        max_value=1000,
        required=False,
        help_text="Begin with so many of the lines there are; with all unless told.",
    )
    steps = Flag(required=False, help_text=_WITH_STEPS)


class StepQuery(serializers.Serializer[Any]):
    after = Id(required=False, help_text="Steps after the one with this `id`.")
    limit = QueryNumber(
        min_value=1, max_value=MAX_STEPS, required=False, help_text=f"{DEFAULT_STEPS} unless told."
    )


@extend_schema_serializer(component_name="Step")
class StepItem(serializers.Serializer[Any]):
    """A step; its work, payload and result are those of the job with this id."""

    id = serializers.UUIDField()
    parent_id = serializers.UUIDField(help_text="The job that it is directly below.")
    root_id = serializers.UUIDField(help_text="The job whose inputs and results it sees.")
    name = serializers.CharField()
    position = serializers.IntegerField()
    key = serializers.CharField(help_text="Which step of its parent it is.")
    var = serializers.CharField(allow_null=True)
    kind = serializers.CharField()
    type = serializers.CharField()
    form = serializers.CharField(
        allow_null=True, help_text="`parallel`, `each` or `subjob`, where it is made of others."
    )
    queue = serializers.CharField()
    state = serializers.ChoiceField(choices=State.values)
    reason = serializers.ChoiceField(choices=Reason.values, allow_null=True)
    is_tolerated = serializers.BooleanField(help_text="Whether the others go on if it fails.")
    attempts = serializers.IntegerField()
    max_attempts = serializers.IntegerField()
    progress_percent = serializers.FloatField(allow_null=True)
    progress_note = serializers.CharField(allow_null=True)
    error = serializers.CharField(allow_null=True)
    tags = serializers.ListField(child=serializers.CharField())
    created_at = serializers.DateTimeField()
    run_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)


class StepList(serializers.Serializer[Any]):
    items = StepItem(many=True)
    next = serializers.CharField(allow_null=True, help_text="Relative address of more steps.")


class JobStepsViewSet(NativeViewSet):
    verbs = {"steps": "jobs.read", "logs": "jobs.read", "stream": "jobs.read"}

    @extend_schema(
        operation_id="jobs_steps",
        summary="List the steps of a job",
        description="Those of its groups and sub-jobs too, a step always after the one it is below. "
        "A job that is not made of steps has none.",
        parameters=[JOB_ID, StepQuery],
        responses=answers({200: StepList}),
    )
    def steps(self, request: Request, cluster_id: str, job_id: str) -> HttpResponse:
        asked = self.query(StepQuery)
        limit = asked.get("limit", DEFAULT_STEPS)
        job = _job(job_id)
        found = steps_of(alias_of(cluster_id), job.pk, limit=limit + 1, after=asked.get("after"))
        items = [step_to_json(step) for step in found[:limit]]
        more = {"after": items[-1]["id"], "limit": limit} if len(found) > limit else None
        return reply({"items": items, "next": _address(request, more)})

    @extend_schema(
        operation_id="jobs_logs",
        summary="Read the log of a job",
        description="Oldest lines first, or newest first; `next` goes on in the same direction.",
        parameters=[JOB_ID, LogQuery],
        responses=answers({200: wire.LogList}),
    )
    def logs(self, request: Request, cluster_id: str, job_id: str) -> HttpResponse:
        asked = self.query(LogQuery)
        limit, is_newest = asked.get("limit", DEFAULT_LINES), asked.get("order") == NEWEST
        job = _job(job_id)
        found = lines_of(
            alias_of(cluster_id),
            job.pk,
            with_steps=asked.get("steps", is_made_of_steps(job)),
            limit=limit + 1,
            after=asked.get("after", -1),
            before=asked.get("before", LAST),
            is_newest_first=is_newest,
        )
        items = [wire.log_to_json(row) for row in found[:limit]]
        more = None
        if len(found) > limit:
            end = {"before" if is_newest else "after": items[-1]["id"]}
            more = {**_words(asked), **end, "limit": limit}
        return reply({"items": items, "next": _address(request, more)})

    @extend_schema(
        operation_id="jobs_logs_stream",
        summary="Follow the log of a job",
        description="One JSON object a line, as `logs` shows them, while they are written; ends with "
        f"the job, and after {FOLLOW_SECONDS:g} s at the latest. Go on with `after`.",
        parameters=[JOB_ID, LogStreamQuery],
        responses=answers({(200, NDJSON): OpenApiTypes.STR}, 429),
    )
    def stream(self, request: Request, cluster_id: str, job_id: str) -> HttpResponseBase:
        asked = self.query(LogStreamQuery)
        if {"after", "tail"} <= asked.keys():
            refuse("tail", "Give this or after, not both.")
        job, using = _job(job_id), alias_of(cluster_id)
        with_steps = asked.get("steps", is_made_of_steps(job))
        after = asked.get("after", -1)
        if "tail" in asked:
            after = _before_last(using, job.pk, with_steps, asked["tail"])
        follower = Follower(using, job.pk, with_steps=with_steps, after=after)
        return self.streamed(_written(follower), NDJSON)


def _written(follower: Follower) -> Iterator[bytes]:
    ends_at = time.monotonic() + FOLLOW_SECONDS
    try:
        for lines in follower:
            for line in lines:
                yield json.dumps(wire.log_to_json(line), ensure_ascii=False).encode() + b"\n"
            if time.monotonic() >= ends_at:
                return
            if not lines:
                yield b""
                time.sleep(POLL_SECONDS)
    except (DatabaseError, InterfaceError):
        # What was sent is whole; the client comes again.
        logger.warning("a stream of a log ends: its database does not answer", exc_info=True)


def _before_last(using: str, job_id: UUID, with_steps: bool, number: int) -> int:
    """The id before the last lines there are."""
    last = lines_of(
        using, job_id, with_steps=with_steps, limit=max(number, 1), is_newest_first=True
    )
    if not last:
        return -1
    return int(last[-1].pk) - 1 if number else int(last[0].pk)


def _job(job_id: str) -> Job:
    key = parse_uuid(job_id)
    job = Job.objects.only("id", "kind").filter(pk=key).first() if key else None
    if job is None:
        raise JobNotFound
    return job


def _words(asked: dict[str, Any]) -> dict[str, Any]:
    return {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in asked.items()
    }


def _address(request: Request, more: dict[str, Any] | None) -> str | None:
    return None if more is None else f"{request.path}?{urlencode(more)}"


def step_to_json(step: Step) -> dict[str, Any]:
    job = step.job
    return {
        "id": str(step.job_id),
        "parent_id": str(step.parent_id),
        "root_id": str(step.root_id),
        "name": step.name,
        "position": step.position,
        "key": step.key,
        "var": step.var,
        "kind": job.kind,
        "type": job.type,
        "form": (step.definition or {}).get("form"),
        "queue": job.queue,
        "state": job.state,
        "reason": job.reason,
        "is_tolerated": step.is_tolerated,
        "attempts": job.attempts,
        "max_attempts": job.max_attempts,
        "progress_percent": job.progress_percent,
        "progress_note": job.progress_note,
        "error": job.error,
        "tags": job.tags,
        "created_at": format_time(job.created_at),
        "run_at": format_time(job.run_at),
        "started_at": format_time(job.started_at),
        "finished_at": format_time(job.finished_at),
    }
