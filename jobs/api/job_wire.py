"""Jobs, their attempts and their lines in JSON, as they are given out.

The classes make the OpenAPI document only: rows become JSON in the flat functions beside them, and a
test holds the two together.
"""

from __future__ import annotations

import base64
from typing import Any

from rest_framework import serializers

from clusters.api.fields import (
    format_time,
)
from jobs.api.items import LISTED_ERROR_LENGTH
from jobs.executors import KINDS
from jobs.models import Job
from jobs.models.job_queryset import HIGHEST_PRIORITY, LOWEST_PRIORITY
from jobs.models.log import Stream
from jobs.secrets import shown_payload
from jobs.states import OnLost, Outcome, Reason, State, Trigger, WaitsFor


class JobItem(serializers.Serializer[Any]):
    """A job as lists show it."""

    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=sorted(KINDS))
    type = serializers.CharField()
    queue = serializers.CharField()
    state = serializers.ChoiceField(choices=State.values)
    reason = serializers.ChoiceField(
        choices=Reason.values, allow_null=True, help_text="Why it failed."
    )
    is_held = serializers.BooleanField(help_text="Failed, and kept for a person to decide.")
    priority = serializers.IntegerField(min_value=HIGHEST_PRIORITY, max_value=LOWEST_PRIORITY)
    tags = serializers.ListField(child=serializers.CharField())
    metadata = serializers.DictField(help_text="Keys to strings, numbers and booleans.")
    unique_key = serializers.CharField(
        allow_null=True, help_text="Only one job that has not ended may carry it."
    )
    enqueued_by = serializers.CharField()
    on_lost = serializers.ChoiceField(choices=OnLost.values)
    timeout_seconds = serializers.FloatField()
    progress_timeout_seconds = serializers.FloatField(
        allow_null=True, help_text="How long an attempt may go on without a word of progress."
    )
    retry_base_seconds = serializers.FloatField(
        allow_null=True, help_text="Null: as the cluster's settings say."
    )
    retry_cap_seconds = serializers.FloatField(
        allow_null=True, help_text="Null: as the cluster's settings say."
    )
    max_attempts = serializers.IntegerField()
    attempts = serializers.IntegerField()
    crashes = serializers.IntegerField(help_text="How often it took its process down.")
    fence = serializers.IntegerField(help_text="Grows by one with each claim.")
    node_id = serializers.UUIDField(allow_null=True)
    pending_dependencies = serializers.IntegerField(help_text="Of how many jobs it still waits.")
    copy_of = serializers.UUIDField(allow_null=True, help_text="The job it was requeued from.")
    schedule_id = serializers.UUIDField(allow_null=True, help_text="The schedule that made it.")
    due_at = serializers.DateTimeField(
        allow_null=True, help_text="The instant that its schedule made it for."
    )
    trigger = serializers.ChoiceField(
        choices=Trigger.values, allow_null=True, help_text="What made its schedule run."
    )
    progress_percent = serializers.FloatField(allow_null=True)
    progress_note = serializers.CharField(allow_null=True)
    error = serializers.CharField(
        allow_null=True,
        help_text=f"In lists the first {LISTED_ERROR_LENGTH} characters.",
    )
    fingerprint = serializers.CharField(
        allow_null=True, help_text="Of the failure it ended with; see the failures."
    )
    run_at = serializers.DateTimeField()
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    cancel_requested_at = serializers.DateTimeField(allow_null=True)
    expires_at = serializers.DateTimeField(
        allow_null=True, help_text="Not started by then, it fails."
    )
    deadline_at = serializers.DateTimeField(
        allow_null=True, help_text="Not finished by then, it fails, whatever attempts are left."
    )


class JobDetail(JobItem):
    """A job with its payload and its result, which lists leave out."""

    payload = serializers.JSONField(allow_null=True)
    payload_base64 = serializers.CharField(allow_null=True)
    result = serializers.JSONField(allow_null=True)
    retry_curve = serializers.CharField(allow_null=True)
    workflow_run_id = serializers.UUIDField(allow_null=True)
    waits_for = serializers.ChoiceField(
        choices=WaitsFor.values,
        allow_null=True,
        help_text="What its schedule holds it back for; see `why`.",
    )


class EnqueuedJob(JobDetail):
    created = serializers.BooleanField(help_text="False where this job had been enqueued before.")


class EnqueuedItem(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    created = serializers.BooleanField()


class EnqueuedJobs(serializers.Serializer[Any]):
    items = EnqueuedItem(many=True)
    count = serializers.IntegerField()


class JobPage(serializers.Serializer[Any]):
    items = JobItem(many=True)
    next = serializers.CharField(allow_null=True, help_text="Relative address of older jobs.")
    previous = serializers.CharField(allow_null=True, help_text="Relative address of newer jobs.")
    searched_to = serializers.DateTimeField(
        required=False,
        allow_null=True,
        help_text="With `attempt`, `error` or `args`, which no index knows: how far the search got "
        "before it paused, and `next` goes on from there; null where it is over.",
    )
    count = serializers.IntegerField(required=False)
    is_exact = serializers.BooleanField(required=False)


class Count(serializers.Serializer[Any]):
    count = serializers.IntegerField()
    is_exact = serializers.BooleanField(help_text="False where counting stopped, or was a guess.")


class AttemptItem(serializers.Serializer[Any]):
    """One try of a job; the one that runs now has no outcome yet."""

    number = serializers.IntegerField()
    fence = serializers.IntegerField()
    node_id = serializers.UUIDField(allow_null=True)
    outcome = serializers.ChoiceField(choices=Outcome.values, allow_null=True)
    error_type = serializers.CharField(allow_null=True)
    error = serializers.CharField(allow_null=True)
    effect_unknown = serializers.BooleanField(help_text="The work may or may not have happened.")
    started_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)


class AttemptList(serializers.Serializer[Any]):
    items = AttemptItem(many=True)
    next = serializers.CharField(allow_null=True)


class LogItem(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    job_id = serializers.UUIDField(help_text="The job, or the step of it, that wrote the line.")
    step = serializers.CharField(
        allow_null=True, help_text="The name of that step, where those of steps were asked for."
    )
    fence = serializers.IntegerField()
    stream = serializers.ChoiceField(choices=Stream.values)
    level = serializers.CharField(allow_null=True)
    message = serializers.CharField()
    logged_at = serializers.DateTimeField()


class LogList(serializers.Serializer[Any]):
    items = LogItem(many=True)
    next = serializers.CharField(allow_null=True)


def job_to_json(job: Job) -> dict[str, Any]:
    """What lists show of a job, with the whole error; in lists the database writes it, see ``items``."""
    return {
        "id": str(job.id),
        "kind": job.kind,
        "type": job.type,
        "queue": job.queue,
        "state": str(job.state),
        "reason": job.reason,
        "is_held": job.is_held,
        "priority": job.priority,
        "tags": job.tags,
        "metadata": job.metadata,
        "unique_key": job.unique_key,
        "enqueued_by": job.enqueued_by,
        "on_lost": str(job.on_lost),
        "timeout_seconds": float(job.timeout_seconds),
        "progress_timeout_seconds": job.progress_timeout_seconds,
        "retry_base_seconds": job.retry_base_seconds,
        "retry_cap_seconds": job.retry_cap_seconds,
        "max_attempts": job.max_attempts,
        "attempts": job.attempts,
        "crashes": job.crashes,
        "fence": job.fence,
        "node_id": None if job.node_id is None else str(job.node_id),
        "pending_dependencies": job.pending_dependencies,
        "copy_of": None if job.copy_of is None else str(job.copy_of),
        "schedule_id": None if job.schedule_id is None else str(job.schedule_id),
        "due_at": format_time(job.due_at),
        "trigger": job.trigger,
        "progress_percent": job.progress_percent,
        "progress_note": job.progress_note,
        "error": job.error,
        "fingerprint": job.fingerprint,
        "run_at": format_time(job.run_at),
        "created_at": format_time(job.created_at),
        "started_at": format_time(job.started_at),
        "finished_at": format_time(job.finished_at),
        "cancel_requested_at": format_time(job.cancel_requested_at),
        "expires_at": format_time(job.expires_at),
        "deadline_at": format_time(job.deadline_at),
    }


def job_detail_to_json(job: Job) -> dict[str, Any]:
    data = job.payload_bytes
    return {
        **job_to_json(job),
        "payload": shown_payload(job.kind, job.payload),
        "payload_base64": None if data is None else base64.b64encode(data).decode(),
        "result": job.result,
        "retry_curve": job.retry_curve,
        "workflow_run_id": None if job.workflow_run_id is None else str(job.workflow_run_id),
        "waits_for": job.waits_for,
    }


def attempt_to_json(attempt: Any) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "fence": attempt.fence,
        "node_id": str(attempt.node_id),
        "outcome": attempt.outcome,
        "error_type": attempt.error_type,
        "error": attempt.error,
        "effect_unknown": attempt.effect_unknown,
        "started_at": format_time(attempt.started_at),
        "finished_at": format_time(attempt.finished_at),
    }


def running_attempt_to_json(job: Any) -> dict[str, Any]:
    """The try that a node is at; it has no row of its own before it ends."""
    return {
        "number": job.attempts,
        "fence": job.fence,
        "node_id": None if job.node_id is None else str(job.node_id),
        "outcome": None,
        "error_type": None,
        "error": None,
        "effect_unknown": False,
        "started_at": format_time(job.started_at),
        "finished_at": None,
    }


def log_to_json(line: Any) -> dict[str, Any]:
    return {
        "id": line.id,
        "job_id": str(line.job_id),
        "step": getattr(line, "step_name", None),
        "fence": line.fence,
        "stream": line.stream,
        "level": line.level,
        "message": line.message,
        "logged_at": format_time(line.logged_at),
    }
