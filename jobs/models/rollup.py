"""What happened per minute, queue and type: written as tallies beside the deed, folded into roll-ups."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from jobs.states import Outcome, Reason


class Event(models.TextChoices):
    """What a tally counts. The later ones are ends of attempts, or of jobs that had none."""

    ENQUEUED = "enqueued"
    STARTED = "started"  # claimed; the bucket is of its wait since it was due
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    RETRIED = "retried"  # an attempt that failed or was lost, and another follows
    RELEASED = "released"  # stopped by its node, and another attempt follows


class Tally(models.Model):
    """Some events of one kind, counted where they happened and in the same transaction.

    Short-lived: upkeep folds tallies into roll-ups and deletes them, so that each is counted once.
    """

    id = models.BigAutoField(primary_key=True)
    minute = models.DateTimeField()
    queue = models.CharField(max_length=100)
    type = models.CharField(max_length=200)
    event = models.CharField(max_length=9, choices=Event)
    # Of the wait (started) or of the run (ends); see jobs.histogram. Null where nothing was measured.
    bucket = models.SmallIntegerField(null=True)
    # Why the job failed, and how the attempt ended: null where the event says it all, as for nearly
    # all rows. They go into running totals only, see jobs.models.total.
    reason = models.CharField(max_length=14, choices=Reason, null=True)
    outcome = models.CharField(max_length=9, choices=Outcome, null=True)
    count = models.PositiveIntegerField()

    objects: ClassVar[models.Manager[Tally]] = models.Manager()

    class Meta:
        db_table = "tally"

    def __str__(self) -> str:
        return f"{self.count} {self.event}"


# Lengths of the stretches of time. They are counted side by side, so a question about 90 days reads
# days and its edges only. TOTAL is all time: per queue, for counters that never go back.
MINUTE, HOUR, DAY, TOTAL = 60, 3600, 86400, 0
# In place of a name: all queues, or all types. No queue and no type has this name.
ALL = ""


class Rollup(models.Model):
    """Counts and histograms of one queue and type over one stretch of time.

    Beside the rows of each queue and type there are those of all types of a queue, of a type in all
    queues, and of all: a question reads as few rows as its answer has.
    """

    pk = models.CompositePrimaryKey("resolution_seconds", "starts_at", "queue", "type")
    resolution_seconds = models.PositiveIntegerField()
    starts_at = models.DateTimeField()
    queue = models.CharField(max_length=100)
    type = models.CharField(max_length=200)
    enqueued = models.PositiveBigIntegerField(default=0)
    started = models.PositiveBigIntegerField(default=0)
    succeeded = models.PositiveBigIntegerField(default=0)
    failed = models.PositiveBigIntegerField(default=0)
    cancelled = models.PositiveBigIntegerField(default=0)
    skipped = models.PositiveBigIntegerField(default=0)
    retried = models.PositiveBigIntegerField(default=0)
    released = models.PositiveBigIntegerField(default=0)
    # {bucket: count}; histograms of one layout are merged by adding.
    wait_histogram = models.JSONField(default=dict)
    run_histogram = models.JSONField(default=dict)

    objects: ClassVar[models.Manager[Rollup]] = models.Manager()

    class Meta:
        db_table = "rollup"
        indexes = [
            # one queue, one type, or all of them, over time; the key serves what is too old
            models.Index(
                name="rollup_series", fields=["resolution_seconds", "queue", "type", "starts_at"]
            )
        ]

    def __str__(self) -> str:
        return f"{self.queue} {self.type} {self.starts_at:%Y-%m-%d %H:%M}"
