"""Bulk operations in JSON."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from clusters.api.fields import AnyValue, Choice, Flag, Number, Text, WholeNumber, format_time
from clusters.api.paging import PageQuery
from jobs.api.filters import JobLine
from jobs.engine.bulk import OUTCOMES, DryRun
from jobs.engine.bulk_asking import SAMPLE
from jobs.engine.bulk_terms import MAX_LIMIT, MAX_REASON, MAX_SPREAD_SECONDS
from jobs.models import BulkAction, BulkOperation, BulkStatus
from jobs.models.job_queryset import HIGHEST_PRIORITY, LOWEST_PRIORITY
from jobs.states import State


class BulkFilter(JobLine):
    """The search words of the job list; or `all` alone, for every job."""

    all = Flag(required=False, help_text="Every job of the cluster; instead of conditions.")


class BulkArguments(serializers.Serializer[Any]):
    queue = Text(max_length=100, required=False, help_text="For `move`: where to.")
    priority = WholeNumber(
        min_value=HIGHEST_PRIORITY,
        max_value=LOWEST_PRIORITY,
        required=False,
        help_text="For `set_priority`.",
    )
    spread_seconds = Number(
        min_value=0,
        max_value=MAX_SPREAD_SECONDS,
        required=False,
        help_text="For `retry`: each job at a moment of its own within so many seconds.",
    )
    limit = WholeNumber(
        min_value=1,
        max_value=MAX_LIMIT,
        required=False,
        help_text="Only so many, the oldest of those that the action is for.",
    )


@extend_schema_field(BulkFilter)
class FilterValue(AnyValue):
    """Checked by a form of its own, which says what it does not know."""


@extend_schema_field(BulkArguments)
class ArgumentsValue(AnyValue):
    """Checked by a form of its own."""


@extend_schema_serializer(component_name="NewBulkOperation")
class BulkOperationInput(serializers.Serializer[Any]):
    """One action on all jobs that meet all conditions of the filter."""

    action = Choice(choices=BulkAction.values)
    filter = FilterValue()
    arguments = ArgumentsValue(required=False)
    reason = Text(
        max_length=MAX_REASON,
        required=False,
        help_text="Why; kept with the operation. May be left out of a dry run only.",
    )
    dry_run = Flag(required=False, help_text="Only say what the operation would be about.")


class BulkOperationQuery(serializers.Serializer[Any]):
    status = Choice(choices=BulkStatus.values, required=False)
    action = Choice(choices=BulkAction.values, required=False)


class BulkOperationListQuery(PageQuery, BulkOperationQuery):
    pass


class BulkOperationItem(serializers.Serializer[Any]):
    """An operation and how far it has got."""

    id = serializers.UUIDField()
    action = serializers.ChoiceField(choices=BulkAction.values)
    filter = BulkFilter()
    arguments = BulkArguments()
    reason = serializers.CharField()
    requested_by = serializers.CharField()
    status = serializers.ChoiceField(choices=BulkStatus.values)
    covers_until = serializers.DateTimeField(help_text="Jobs made later are left alone.")
    expected = serializers.IntegerField(
        allow_null=True, help_text="About how many jobs; null: not begun, or not known."
    )
    seen = serializers.IntegerField()
    percent = serializers.FloatField(allow_null=True, help_text="Of `expected`.")
    outcomes = serializers.DictField(
        child=serializers.IntegerField(),
        help_text="Jobs by what became of them. "
        + " ".join(f"`{name}`: {about}" for name, about in OUTCOMES.items()),
    )
    error = serializers.CharField(allow_null=True, help_text="Why it failed.")
    created_at = serializers.DateTimeField()
    started_at = serializers.DateTimeField(allow_null=True)
    finished_at = serializers.DateTimeField(allow_null=True)
    cancel_requested_at = serializers.DateTimeField(allow_null=True)
    cancelled_by = serializers.CharField(allow_null=True)


class BulkOperationPage(serializers.Serializer[Any]):
    items = BulkOperationItem(many=True)
    next = serializers.CharField(allow_null=True)
    previous = serializers.CharField(allow_null=True)


class SampledJob(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    type = serializers.CharField()
    queue = serializers.CharField()
    state = serializers.ChoiceField(choices=State.values)


class BulkDryRun(serializers.Serializer[Any]):
    """What an operation would be about."""

    count = serializers.IntegerField(
        allow_null=True, help_text="Null: too many or too scattered to be counted in time."
    )
    eligible = serializers.IntegerField(
        allow_null=True,
        help_text="How many of them are in a state that the action is for, and no more than `limit`. "
        "Null: not known.",
    )
    is_exact = serializers.BooleanField(help_text="False where counting stopped.")
    by_state = serializers.DictField(
        child=serializers.IntegerField(), help_text="Empty where `count` is not exact."
    )
    sample = SampledJob(many=True, help_text=f"The first {SAMPLE} of them, the oldest first.")


def operation_to_json(operation: BulkOperation) -> dict[str, Any]:
    return {
        "id": str(operation.id),
        "action": operation.action,
        "filter": operation.filter,
        "arguments": operation.arguments,
        "reason": operation.reason,
        "requested_by": operation.requested_by,
        "status": operation.status,
        "covers_until": format_time(operation.covers_until),
        "expected": operation.expected,
        "seen": operation.seen,
        "percent": percent(operation),
        "outcomes": operation.outcomes,
        "error": operation.error,
        "created_at": format_time(operation.created_at),
        "started_at": format_time(operation.started_at),
        "finished_at": format_time(operation.finished_at),
        "cancel_requested_at": format_time(operation.cancel_requested_at),
        "cancelled_by": operation.cancelled_by,
    }


def percent(operation: BulkOperation) -> float | None:
    """How much is done; it is all done when the operation says so, whatever was expected."""
    if operation.status == BulkStatus.FINISHED:
        return 100.0
    if operation.expected is None:
        return None
    share = 100.0 * int(operation.seen) / max(int(operation.expected), 1)
    return round(min(99.0, share), 1)


def dry_run_to_json(found: DryRun) -> dict[str, Any]:
    return {
        "count": found.count,
        "eligible": found.eligible,
        "is_exact": found.is_exact,
        "by_state": found.by_state,
        "sample": [
            {"id": str(job.pk), "type": job.type, "queue": job.queue, "state": job.state}
            for job in found.sample
        ],
    }
