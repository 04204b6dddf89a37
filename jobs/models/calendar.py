"""A calendar: named dates on which schedules that name it do not run."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now
from uuid_utils.compat import uuid7


class Calendar(models.Model):
    """Named dates on which schedules that name it do not run."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=100, unique=True)
    description = models.CharField(max_length=500, default="", blank=True)
    # Dates as YYYY-MM-DD, in order.
    dates = models.JSONField(default=list)
    updated_by = models.CharField(max_length=200)
    updated_at = models.DateTimeField(db_default=Now())
    version = models.PositiveIntegerField(default=1)

    objects: ClassVar[models.Manager[Calendar]] = models.Manager()

    class Meta:
        db_table = "calendar"

    def __str__(self) -> str:
        return self.name
