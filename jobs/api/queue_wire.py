"""Queues in JSON: what is taken in, field by field, and what is given out."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_serializer
from rest_framework import serializers

from clusters.api.fields import (
    Boolean,
    Choice,
    Number,
    Text,
    Texts,
    Time,
    WholeNumber,
    format_time,
)
from jobs.models.queue import LONGEST_PAUSE, MAX_REASON_LENGTH
from jobs.models.queue_policies import POLICIES, Overflow
from jobs.queue_load import COUNT_LIMIT, Load
from jobs.states import UNSTARTED


def _policy(name: str) -> dict[str, Any]:
    """What a field of a queue's policy says, from the one table of them."""
    policy = POLICIES[name]
    said = {
        "min_value": policy.minimum,
        "max_value": policy.maximum,
        "max_length": policy.max_length,
        "choices": policy.choices,
        "allow_null": policy.is_nullable or None,
        "help_text": policy.about,
    }
    return {"required": False} | {word: value for word, value in said.items() if value is not None}


@extend_schema_serializer(component_name="QueueChange")
class QueueChangeInput(serializers.Serializer[Any]):
    """What is left out stays as it is; a limit that is null is none."""

    description = Text(allow_blank=True, **_policy("description"))
    max_concurrency = WholeNumber(**_policy("max_concurrency"))
    rate_limit = WholeNumber(**_policy("rate_limit"))
    rate_period_seconds = Number(**_policy("rate_period_seconds"))
    default_priority = WholeNumber(**_policy("default_priority"))
    default_timeout_seconds = Number(**_policy("default_timeout_seconds"))
    default_max_attempts = WholeNumber(**_policy("default_max_attempts"))
    is_backoff_enabled = Boolean(**_policy("is_backoff_enabled"))
    retry_base_seconds = Number(**_policy("retry_base_seconds"))
    retry_cap_seconds = Number(**_policy("retry_cap_seconds"))
    max_age_seconds = Number(**_policy("max_age_seconds"))
    max_entries = WholeNumber(**_policy("max_entries"))
    overflow = Choice(**_policy("overflow"))
    retain_succeeded_seconds = Number(**_policy("retain_succeeded_seconds"))
    retain_failed_seconds = Number(**_policy("retain_failed_seconds"))


@extend_schema_serializer(component_name="NewQueue")
class NewQueueInput(QueueChangeInput):
    """A queue to be made. What is left out is as the cluster's settings say."""

    name = Text(max_length=100, help_text="Letters, digits and _ . : -")


@extend_schema_serializer(component_name="Pause")
class PauseInput(serializers.Serializer[Any]):
    reason = Text(max_length=MAX_REASON_LENGTH, allow_blank=True, required=False, default="")
    resume_at = Time(
        required=False, allow_null=True, help_text="When the pause ends by itself; null: never."
    )
    resume_in_seconds = Number(
        min_value=0,
        max_value=LONGEST_PAUSE.total_seconds(),
        required=False,
        allow_null=True,
        help_text="The pause ends so many seconds from now; instead of `resume_at`.",
    )


@extend_schema_serializer(component_name="Purge")
class PurgeInput(serializers.Serializer[Any]):
    """Which of the jobs that have not started are to be cancelled."""

    states = Texts(
        child=Choice(choices=[state.value for state in UNSTARTED]),
        required=False,
        min_length=1,
        max_length=len(UNSTARTED),
        help_text="Unless told, all of these.",
    )
    reason = Text(
        max_length=MAX_REASON_LENGTH,
        required=False,
        help_text="Why; kept with the operation. May be left out of a dry run only.",
    )
    dry_run = Boolean(required=False, help_text="Only say what the purge would be about.")


class QueueItem(serializers.Serializer[Any]):
    name = serializers.CharField()
    description = serializers.CharField()
    is_paused = serializers.BooleanField()
    paused_by = serializers.CharField(allow_null=True)
    pause_reason = serializers.CharField(allow_null=True)
    paused_at = serializers.DateTimeField(allow_null=True)
    resume_at = serializers.DateTimeField(
        allow_null=True, help_text="When the pause ends by itself."
    )
    max_concurrency = serializers.IntegerField(allow_null=True)
    rate_limit = serializers.IntegerField(allow_null=True)
    rate_period_seconds = serializers.FloatField()
    default_priority = serializers.IntegerField(allow_null=True)
    default_timeout_seconds = serializers.FloatField(allow_null=True)
    default_max_attempts = serializers.IntegerField(allow_null=True)
    is_backoff_enabled = serializers.BooleanField()
    retry_base_seconds = serializers.FloatField(allow_null=True)
    retry_cap_seconds = serializers.FloatField(allow_null=True)
    max_age_seconds = serializers.FloatField(allow_null=True)
    max_entries = serializers.IntegerField(allow_null=True)
    overflow = serializers.ChoiceField(choices=Overflow.values)
    retain_succeeded_seconds = serializers.FloatField(allow_null=True)
    retain_failed_seconds = serializers.FloatField(allow_null=True)
    created_at = serializers.DateTimeField()
    version = serializers.IntegerField(help_text="Counts the edits; the ETag.")


class OpenJobs(serializers.Serializer[Any]):
    blocked = serializers.IntegerField()
    scheduled = serializers.IntegerField()
    ready = serializers.IntegerField()
    running = serializers.IntegerField()
    waiting = serializers.IntegerField()


class QueueLoad(serializers.Serializer[Any]):
    """What is going on in the queue at this moment."""

    jobs = OpenJobs(help_text=f"Jobs that have not ended, counted up to {COUNT_LIMIT} in a state.")
    is_exact = serializers.BooleanField(help_text="False where counting stopped.")
    oldest_ready_seconds = serializers.FloatField(
        allow_null=True, help_text="Since the job that waits longest was due; null: none waits."
    )
    nodes = serializers.IntegerField(help_text="Live nodes that take from this queue.")
    rate_room = serializers.IntegerField(
        allow_null=True, help_text="Starts that the rate limit allows now; null: no such limit."
    )


class QueueDetail(QueueItem):
    load = QueueLoad()


class QueuePage(serializers.Serializer[Any]):
    items = QueueItem(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


def queue_to_json(queue: Any) -> dict[str, Any]:
    return {
        "name": queue.name,
        "description": queue.description,
        "is_paused": queue.is_paused,
        "paused_by": queue.paused_by,
        "pause_reason": queue.pause_reason,
        "paused_at": format_time(queue.paused_at),
        "resume_at": format_time(queue.resume_at),
        "max_concurrency": queue.max_concurrency,
        "rate_limit": queue.rate_limit,
        "rate_period_seconds": queue.rate_period_seconds,
        "default_priority": queue.default_priority,
        "default_timeout_seconds": queue.default_timeout_seconds,
        "default_max_attempts": queue.default_max_attempts,
        "is_backoff_enabled": queue.is_backoff_enabled,
        "retry_base_seconds": queue.retry_base_seconds,
        "retry_cap_seconds": queue.retry_cap_seconds,
        "max_age_seconds": queue.max_age_seconds,
        "max_entries": queue.max_entries,
        "overflow": str(queue.overflow),
        "retain_succeeded_seconds": queue.retain_succeeded_seconds,
        "retain_failed_seconds": queue.retain_failed_seconds,
        "created_at": format_time(queue.created_at),
        "version": queue.version,
    }


def queue_detail_to_json(queue: Any, load: Load) -> dict[str, Any]:
    return {
        **queue_to_json(queue),
        "load": {
            "jobs": load.jobs,
            "is_exact": load.is_exact,
            "oldest_ready_seconds": load.oldest_ready_seconds,
            "nodes": load.nodes,
            "rate_room": load.rate_room,
        },
    }
