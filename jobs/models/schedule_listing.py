"""The columns of a schedule that only lists read, in a table of their own."""

from __future__ import annotations

from django.db import models

from jobs.models.schedule import Schedule


class ScheduleListing(models.Model):
    """What lists are filtered by and fires must not touch: the columns of a schedule that rarely change.

    A fire renews the entries of its schedule in every index of that table, so indexes that only lists
    read are here, and a look through all texts reads no wide rows. Triggers of the database keep the rows
    in step with ``schedule``, whoever writes there.
    """

    schedule = models.OneToOneField(
        Schedule, on_delete=models.CASCADE, primary_key=True, related_name="listing"
    )
    created_at = models.DateTimeField()
    kind = models.CharField(max_length=16)
    type = models.CharField(max_length=200)
    queue = models.CharField(max_length=100)
    timing = models.CharField(max_length=8)
    source = models.CharField(max_length=6)
    created_by = models.CharField(max_length=200)
    tags = models.JSONField()
    # Name and description, in small letters.
    text = models.TextField()

    class Meta:
        db_table = "schedule_listing"
        indexes = [
            models.Index(name=f"schedule_listing_{name}", fields=[name, "-created_at"])
            for name in ("kind", "type", "queue", "timing", "source", "created_by")
        ]

    def __str__(self) -> str:
        return self.text.partition("\n")[0]
