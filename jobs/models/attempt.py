"""One finished try of a job."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from django.db import models

from jobs.states import Outcome


class AttemptQuerySet(models.QuerySet["Attempt"]):
    def of_job(self, job_id: UUID | str) -> AttemptQuerySet:
        """The attempts of one job, oldest first."""
        return self.filter(job_id=job_id).order_by("fence")


class Attempt(models.Model):
    """Written in the transaction of the move that ended the try: one row per job and fence."""

    pk = models.CompositePrimaryKey("job_id", "fence")
    # No database constraint: the row is written by the statement that just moved the job.
    job = models.ForeignKey(
        "jobs.Job", on_delete=models.DO_NOTHING, db_constraint=False, db_index=False
    )
    fence = models.BigIntegerField()
    number = models.PositiveIntegerField()
    node = models.ForeignKey(
        "clusters.Node", on_delete=models.DO_NOTHING, db_constraint=False, db_index=False
    )
    outcome = models.CharField(max_length=10, choices=Outcome)
    error_type = models.CharField(max_length=200, null=True)
    error = models.TextField(null=True)
    effect_unknown = models.BooleanField(default=False)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField()

    objects: ClassVar[models.Manager[Attempt]] = AttemptQuerySet.as_manager()

    class Meta:
        db_table = "attempt"
        constraints = [
            models.CheckConstraint(
                name="attempt_outcome_known", condition=models.Q(outcome__in=Outcome.values)
            )
        ]

    def __str__(self) -> str:
        return f"attempt {self.number}: {self.outcome}"
