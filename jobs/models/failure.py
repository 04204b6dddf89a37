"""Failures that look the same, as one row with a count."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class FailureSighting(models.Model):
    """One failed attempt that upkeep has yet to add to its group; written with the attempt."""

    id = models.BigAutoField(primary_key=True)
    fingerprint = models.CharField(max_length=16)
    job = models.ForeignKey(
        "jobs.Job",
        on_delete=models.DO_NOTHING,
        db_constraint=False,
        db_index=False,
        related_name="+",
    )
    fence = models.BigIntegerField()
    seen_at = models.DateTimeField()

    objects: ClassVar[models.Manager[FailureSighting]] = models.Manager()

    class Meta:
        db_table = "failure_sighting"

    def __str__(self) -> str:
        return self.fingerprint


class Failure(models.Model):
    """A group of failures: one exception type, message without its numbers and names, and place."""

    fingerprint = models.CharField(max_length=16, primary_key=True)
    error_type = models.CharField(max_length=200)
    # Normalised: what differs from job to job is replaced by a mark.
    message = models.CharField(max_length=500)
    # The innermost line of the handler's own code, or empty.
    frame = models.CharField(max_length=300)
    # The latest that was seen, as an example.
    type = models.CharField(max_length=200)
    queue = models.CharField(max_length=100)
    job_id = models.UUIDField()
    example = models.TextField()
    count = models.PositiveBigIntegerField(default=0)
    first_seen_at = models.DateTimeField()
    last_seen_at = models.DateTimeField()

    objects: ClassVar[models.Manager[Failure]] = models.Manager()

    class Meta:
        db_table = "failure"
        indexes = [models.Index(name="failure_newest", fields=["-last_seen_at", "-fingerprint"])]

    def __str__(self) -> str:
        return f"{self.error_type}: {self.message}"


class FailureHour(models.Model):
    """How often a group was seen in one hour."""

    pk = models.CompositePrimaryKey("fingerprint", "starts_at")
    fingerprint = models.CharField(max_length=16)
    starts_at = models.DateTimeField()
    count = models.PositiveBigIntegerField(default=0)

    objects: ClassVar[models.Manager[FailureHour]] = models.Manager()

    class Meta:
        db_table = "failure_hour"

    def __str__(self) -> str:
        return f"{self.fingerprint} {self.count}"
