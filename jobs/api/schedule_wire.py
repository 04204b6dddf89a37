"""Schedules in JSON.

The classes make the OpenAPI document; rows become JSON in the flat functions beside them, and a test
holds the two together.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from rest_framework import serializers

from clusters.api.fields import (
    format_time,
)
from jobs.api.schedule_forms import ALL_KINDS, ExclusionsInput
from jobs.engine.definition import (
    describe,
    local_time,
)
from jobs.engine.missed import Dealt
from jobs.engine.prerequisites import Needed
from jobs.models import (
    Fire,
    FireReason,
    FireState,
    Gap,
    Misfire,
    Needs,
    Overlap,
    Schedule,
    Source,
    Status,
    Timing,
)
from jobs.secrets import shown_payload
from jobs.states import OnLost
from jobs.timing import Occurrence

RULES = ("dates", "days_of_week", "time_ranges", "calendars", "countries")


class ScheduleItem(serializers.Serializer[Any]):
    """A schedule as lists show it."""

    id = serializers.UUIDField()
    name = serializers.CharField()
    description = serializers.CharField()
    source = serializers.ChoiceField(  # type: ignore[assignment]
        choices=Source.values, help_text="Who keeps the definition."
    )
    state = serializers.ChoiceField(choices=Status.values)
    is_enabled = serializers.BooleanField()
    is_paused = serializers.BooleanField()
    paused_by = serializers.CharField(allow_null=True)
    pause_reason = serializers.CharField(allow_null=True)
    paused_at = serializers.DateTimeField(allow_null=True)
    resume_at = serializers.DateTimeField(allow_null=True)
    is_paused_by_all = serializers.BooleanField()
    kind = serializers.ChoiceField(choices=ALL_KINDS)
    type = serializers.CharField()
    workflow_id = serializers.UUIDField(allow_null=True)
    queue = serializers.CharField()
    priority = serializers.IntegerField(allow_null=True)
    tags = serializers.ListField(child=serializers.CharField())
    timing = serializers.ChoiceField(choices=Timing.values)
    expression = serializers.CharField(allow_null=True)
    interval_seconds = serializers.FloatField(allow_null=True)
    run_at = serializers.DateTimeField(allow_null=True)
    timezone = serializers.CharField()
    next_due_at = serializers.DateTimeField(
        allow_null=True, help_text="The next instant as the definition says."
    )
    next_run_at = serializers.DateTimeField(
        allow_null=True, help_text="The same with the schedule's part of `spread_seconds`."
    )
    last_run_at = serializers.DateTimeField(allow_null=True)
    last_job_id = serializers.UUIDField(allow_null=True)
    last_state = serializers.CharField(allow_null=True, help_text="Of the last run that ended.")
    consecutive_failures = serializers.IntegerField()
    error = serializers.CharField(allow_null=True, help_text="Why it cannot be worked out.")
    created_by = serializers.CharField()
    created_at = serializers.DateTimeField()
    updated_by = serializers.CharField()
    updated_at = serializers.DateTimeField()
    deleted_at = serializers.DateTimeField(allow_null=True)
    version = serializers.IntegerField(help_text="Counts the edits; the ETag.")


class PendingTiming(serializers.Serializer[Any]):
    timing = serializers.ChoiceField(choices=Timing.values)
    expression = serializers.CharField(allow_null=True)
    interval_seconds = serializers.FloatField(allow_null=True)
    run_at = serializers.DateTimeField(allow_null=True)


class ScheduleDetail(ScheduleItem):
    """A schedule with all of its definition."""

    sentence = serializers.CharField(allow_null=True, help_text="When it runs, in plain words.")
    run_at_local = serializers.DateTimeField(
        allow_null=True, help_text="`run_at` as a clock in `timezone` shows it."
    )
    anchor_at = serializers.DateTimeField(
        allow_null=True, help_text="From where intervals are counted."
    )
    starts_at = serializers.DateTimeField(allow_null=True)
    ends_at = serializers.DateTimeField(allow_null=True)
    gap = serializers.ChoiceField(choices=Gap.values)
    spread_seconds = serializers.FloatField()
    exclusions = ExclusionsInput()
    pending = PendingTiming(allow_null=True, help_text="What holds from `effective_from` on.")
    effective_from = serializers.DateTimeField(allow_null=True)
    payload = serializers.JSONField(allow_null=True)
    payload_base64 = serializers.CharField(allow_null=True)
    has_variables = serializers.BooleanField()
    timeout_seconds = serializers.FloatField(allow_null=True)
    expires_in_seconds = serializers.FloatField(allow_null=True)
    max_attempts = serializers.IntegerField(allow_null=True)
    retry_base_seconds = serializers.FloatField(allow_null=True)
    retry_cap_seconds = serializers.FloatField(allow_null=True)
    retry_curve = serializers.CharField(allow_null=True)
    on_lost = serializers.ChoiceField(choices=OnLost.values)
    metadata = serializers.DictField()
    misfire = serializers.ChoiceField(choices=Misfire.values)
    misfire_grace_seconds = serializers.FloatField()
    misfire_limit = serializers.IntegerField()
    overlap = serializers.ChoiceField(choices=Overlap.values)
    depends_on = serializers.ListField(child=serializers.UUIDField())
    needs = serializers.ChoiceField(choices=Needs.values)
    last_due_at = serializers.DateTimeField(allow_null=True)
    last_ended_at = serializers.DateTimeField(allow_null=True)
    last_succeeded_at = serializers.DateTimeField(allow_null=True)
    left_out = serializers.IntegerField(
        help_text="Instants that were excluded, skipped or missed; see the fires."
    )


class SchedulePage(serializers.Serializer[Any]):
    items = ScheduleItem(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


class DeletedSchedule(serializers.Serializer[Any]):
    warnings = serializers.ListField(child=serializers.CharField())


class Triggered(serializers.Serializer[Any]):
    job_id = serializers.UUIDField(allow_null=True)
    workflow_run_id = serializers.UUIDField(allow_null=True)


class MissedRuns(serializers.Serializer[Any]):
    job_ids = serializers.ListField(child=serializers.UUIDField())
    workflow_run_ids = serializers.ListField(child=serializers.UUIDField())
    left = serializers.IntegerField(help_text="Instants of the gap that are missed as before.")


class OccurrenceItem(serializers.Serializer[Any]):
    due_at = serializers.DateTimeField()
    local = serializers.DateTimeField(help_text="As a clock in the schedule's zone shows it.")
    is_on_clock_change = serializers.BooleanField(
        help_text="Whether the clock is changed on that day."
    )
    excluded = serializers.CharField(allow_null=True, help_text="Why there is no run then.")


class NextRuns(serializers.Serializer[Any]):
    items = OccurrenceItem(many=True)


class Preview(NextRuns):
    sentence = serializers.CharField(allow_null=True)
    run_at = serializers.DateTimeField(allow_null=True, help_text="What a wall time was taken as.")
    run_at_local = serializers.DateTimeField(allow_null=True)


class FireItem(serializers.Serializer[Any]):
    """An instant, or a stretch of them that made no job."""

    id = serializers.UUIDField()
    due_at = serializers.DateTimeField(help_text="Of a stretch the first.")
    state = serializers.ChoiceField(choices=FireState.values)
    reason = serializers.ChoiceField(choices=FireReason.values, allow_null=True)
    detail = serializers.CharField(allow_null=True)
    job_id = serializers.UUIDField(allow_null=True)
    workflow_run_id = serializers.UUIDField(allow_null=True)
    count = serializers.IntegerField()
    is_at_least = serializers.BooleanField(help_text="Whether there may have been more.")
    last_due_at = serializers.DateTimeField(allow_null=True, help_text="Of a stretch the last.")
    fired_at = serializers.DateTimeField(help_text="When a node looked at it.")


class FirePage(serializers.Serializer[Any]):
    items = FireItem(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


class PrerequisiteItem(serializers.Serializer[Any]):
    schedule_id = serializers.UUIDField()
    name = serializers.CharField()
    state = serializers.ChoiceField(choices=Status.values)
    last_succeeded_at = serializers.DateTimeField(allow_null=True)


class Prerequisites(serializers.Serializer[Any]):
    needs = serializers.ChoiceField(choices=Needs.values)
    items = PrerequisiteItem(many=True)


def schedule_to_json(schedule: Schedule) -> dict[str, Any]:
    return {
        "id": str(schedule.pk),
        "name": schedule.name,
        "description": schedule.description,
        "source": str(schedule.source),
        "state": str(schedule.status),
        "is_enabled": schedule.is_enabled,
        "is_paused": schedule.is_paused,
        "paused_by": schedule.paused_by,
        "pause_reason": schedule.pause_reason,
        "paused_at": format_time(schedule.paused_at),
        "resume_at": format_time(schedule.resume_at),
        "is_paused_by_all": schedule.is_paused_by_all,
        "kind": schedule.kind,
        "type": schedule.type,
        "workflow_id": _id(schedule.workflow_id),
        "queue": schedule.queue,
        "priority": schedule.priority,
        "tags": schedule.tags,
        "timing": str(schedule.timing),
        "expression": schedule.expression,
        "interval_seconds": schedule.interval_seconds,
        "run_at": format_time(schedule.run_at),
        "timezone": schedule.timezone,
        "next_due_at": format_time(schedule.next_due_at),
        "next_run_at": format_time(schedule.next_run_at),
        "last_run_at": format_time(schedule.last_run_at),
        "last_job_id": _id(schedule.last_job_id),
        "last_state": schedule.last_state,
        "consecutive_failures": schedule.consecutive_failures,
        "error": schedule.error,
        "created_by": schedule.created_by,
        "created_at": format_time(schedule.created_at),
        "updated_by": schedule.updated_by,
        "updated_at": format_time(schedule.updated_at),
        "deleted_at": format_time(schedule.deleted_at),
        "version": schedule.version,
    }


def schedule_detail_to_json(
    schedule: Schedule, prerequisites: Sequence[Schedule]
) -> dict[str, Any]:
    data = schedule.payload_bytes
    return {
        **schedule_to_json(schedule),
        "sentence": describe(schedule),
        "run_at_local": _local(local_time(schedule.run_at, schedule.timezone)),
        "anchor_at": format_time(schedule.anchor_at),
        "starts_at": format_time(schedule.starts_at),
        "ends_at": format_time(schedule.ends_at),
        "gap": str(schedule.gap),
        "spread_seconds": schedule.spread_seconds,
        "exclusions": exclusions_to_json(schedule),
        "pending": _pending(schedule.pending),
        "effective_from": format_time(schedule.effective_from),
        "payload": shown_payload(schedule.kind, schedule.payload),
        "payload_base64": None if data is None else base64.b64encode(data).decode(),
        "has_variables": schedule.has_variables,
        "timeout_seconds": schedule.timeout_seconds,
        "expires_in_seconds": schedule.expires_in_seconds,
        "max_attempts": schedule.max_attempts,
        "retry_base_seconds": schedule.retry_base_seconds,
        "retry_cap_seconds": schedule.retry_cap_seconds,
        "retry_curve": schedule.retry_curve,
        "on_lost": str(schedule.on_lost),
        "metadata": schedule.metadata,
        "misfire": str(schedule.misfire),
        "misfire_grace_seconds": schedule.misfire_grace_seconds,
        "misfire_limit": schedule.misfire_limit,
        "overlap": str(schedule.overlap),
        "depends_on": [str(one.pk) for one in prerequisites],
        "needs": str(schedule.needs),
        "last_due_at": format_time(schedule.last_due_at),
        "last_ended_at": format_time(schedule.last_ended_at),
        "last_succeeded_at": format_time(schedule.last_succeeded_at),
        "left_out": schedule.left_out,
    }


def missed_runs_to_json(dealt: Dealt) -> dict[str, Any]:
    return {
        "job_ids": [str(pk) for pk in dealt.job_ids],
        "workflow_run_ids": [str(pk) for pk in dealt.workflow_run_ids],
        "left": dealt.left,
    }


def preview_to_json(schedule: Schedule, found: Sequence[Occurrence]) -> dict[str, Any]:
    return {
        "items": [occurrence_to_json(one) for one in found],
        "sentence": describe(schedule),
        "run_at": format_time(schedule.run_at),
        "run_at_local": _local(local_time(schedule.run_at, schedule.timezone)),
    }


def occurrence_to_json(one: Occurrence) -> dict[str, Any]:
    return {
        "due_at": format_time(one.instant),
        "local": _local(one.local),
        "is_on_clock_change": one.is_on_clock_change,
        "excluded": one.excluded,
    }


def exclusions_to_json(schedule: Schedule) -> dict[str, Any]:
    """All rules, also those that are empty."""
    return {name: schedule.exclusions.get(name, []) for name in RULES}


def fire_to_json(fire: Fire) -> dict[str, Any]:
    return {
        "id": str(fire.pk),
        "due_at": format_time(fire.due_at),
        "state": str(fire.state),
        "reason": fire.reason,
        "detail": fire.detail,
        "job_id": _id(fire.job_id),
        "workflow_run_id": _id(fire.workflow_run_id),
        "count": fire.count,
        "is_at_least": fire.is_at_least,
        "last_due_at": format_time(fire.last_due_at),
        "fired_at": format_time(fire.fired_at),
    }


def prerequisite_to_json(schedule: Schedule) -> dict[str, Any]:
    return {
        "schedule_id": str(schedule.pk),
        "name": schedule.name,
        "state": str(schedule.status),
        "last_succeeded_at": format_time(schedule.last_succeeded_at),
    }


def warnings_of(needed: Needed) -> list[str]:
    """What follows for those who need a schedule that is deleted."""
    return [
        *(
            f"schedule {name!r} depends on it: its runs wait until it is restored or left out there"
            for name in needed.schedules
        ),
        *(
            f"workflow {name!r} has it as a node: it cannot be started until it is restored or left "
            "out there"
            for name in needed.workflows
        ),
    ]


def _pending(pending: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if pending is None:
        return None
    run_at = pending.get("run_at")
    moment = datetime.fromisoformat(run_at) if run_at else None
    return {**pending, "run_at": format_time(moment)}


def _id(value: Any) -> str | None:
    return None if value is None else str(value)


def _local(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat(timespec="seconds")
