"""What lists of jobs made of steps are found by: the words of their names and descriptions."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from jobs.step_words import MAX_STEPS_NAME_LENGTH


class StepsListing(models.Model):
    """One row for each job of kind ``steps``, written with it and never changed.

    The words are in an index of the database's own: on PostgreSQL a column ``search`` that it fills
    itself, on SQLite the table ``steps_search``, which has these ids and which triggers keep in step.
    """

    id = models.BigAutoField(primary_key=True)
    job = models.OneToOneField(
        "jobs.Job", on_delete=models.DO_NOTHING, db_constraint=False, related_name="steps_listing"
    )
    created_at = models.DateTimeField()
    name = models.CharField(max_length=MAX_STEPS_NAME_LENGTH)
    description = models.TextField()
    # Whom lists show it to, as `user:<name>` and `role:<name>`; null: everybody.
    audience = models.JSONField(null=True)
    # So long after its success the job is deleted, whatever is said of others; null: as they are.
    delete_after_seconds = models.FloatField(null=True)

    objects: ClassVar[models.Manager[StepsListing]] = models.Manager()

    class Meta:
        db_table = "steps_listing"
        indexes = [
            models.Index(name="steps_listing_newest", fields=["created_at", "job"]),
            # retention
            models.Index(
                name="steps_listing_delete_after",
                fields=["id"],
                condition=models.Q(delete_after_seconds__isnull=False),
            ),
        ]

    def __str__(self) -> str:
        return self.name or str(self.job_id)
