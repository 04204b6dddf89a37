"""One verb over all jobs that match a filter, carried out in the background."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models
from django.db.models import F
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from clusters.deeds import verb_of_rows


class BulkAction(models.TextChoices):
    CANCEL = "cancel"
    RETRY = "retry"
    RUN_NOW = "run_now"
    MOVE = "move"
    SET_PRIORITY = "set_priority"
    DELETE = "delete"


class BulkStatus(models.TextChoices):
    PENDING = "pending"
    RUNNING = "running"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"


OPEN = (BulkStatus.PENDING, BulkStatus.RUNNING)
MAX_ERROR = 1000


class BulkOperationQuerySet(models.QuerySet["BulkOperation"]):
    def open(self) -> BulkOperationQuerySet:
        """Operations that are not over."""
        return self.filter(status__in=OPEN)

    def begin(self, *, expected: int | None) -> int:
        """Note that work has begun, and on about how many jobs."""
        return self.filter(status=BulkStatus.PENDING).update(
            status=BulkStatus.RUNNING, started_at=Now(), expected=expected
        )

    def go_on(
        self, *, seen: int, outcomes: dict[str, int], cursor: Any, is_finished: bool = False
    ) -> int:
        """Write down a batch; the caller holds the row, and these are the sums up to now."""
        ending: dict[str, Any] = {}
        if is_finished:
            ending = {"status": BulkStatus.FINISHED, "finished_at": Now()}
        return self.open().update(seen=F("seen") + seen, outcomes=outcomes, cursor=cursor, **ending)

    @verb_of_rows("bulk_operations.stop", "bulk_operation")
    def cancel(self, *, by: str) -> int:
        """Stop operations. A batch that runs is waited for; there is none after it."""
        return self.open().update(
            status=BulkStatus.CANCELLED,
            finished_at=Now(),
            cancel_requested_at=Now(),
            cancelled_by=by,
        )

    def park(self, error: str) -> int:
        """End operations that cannot go on."""
        return self.open().update(
            status=BulkStatus.FAILED, finished_at=Now(), error=error[:MAX_ERROR]
        )


class BulkOperation(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    action = models.CharField(max_length=12, choices=BulkAction)
    filter = models.JSONField(default=dict)
    # What the action needs besides: the queue to move to, the priority, the time to spread retries over.
    arguments = models.JSONField(default=dict)
    reason = models.CharField(max_length=500)
    requested_by = models.CharField(max_length=200)
    status = models.CharField(max_length=9, choices=BulkStatus, default=BulkStatus.PENDING)
    # Only jobs that were there when it was asked for.
    covers_until = models.DateTimeField(db_default=Now())
    # Counted when it began, or what the planner guessed where counting took too long.
    expected = models.PositiveBigIntegerField(null=True)
    seen = models.PositiveBigIntegerField(default=0)
    # {outcome: count}
    outcomes = models.JSONField(default=dict)
    # Where the next batch begins; null: at the beginning.
    cursor = models.JSONField(null=True)
    error = models.TextField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)
    cancel_requested_at = models.DateTimeField(null=True)
    cancelled_by = models.CharField(max_length=200, null=True)

    objects: ClassVar[models.Manager[BulkOperation]] = BulkOperationQuerySet.as_manager()

    class Meta:
        db_table = "bulk_operation"
        constraints = [
            models.CheckConstraint(
                name="bulk_operation_status_known",
                condition=models.Q(status__in=BulkStatus.values),
            ),
            models.CheckConstraint(
                name="bulk_operation_finished_at_tells_the_end",
                condition=models.Q(status__in=OPEN, finished_at=None)
                | (~models.Q(status__in=OPEN) & models.Q(finished_at__isnull=False)),
            ),
        ]
        indexes = [
            models.Index(
                name="bulk_operation_open",
                fields=["created_at"],
                condition=models.Q(status__in=OPEN),
            ),
            models.Index(name="bulk_operation_newest", fields=["-created_at", "-id"]),
        ]

    def __str__(self) -> str:
        return f"{self.action} {self.pk}"
