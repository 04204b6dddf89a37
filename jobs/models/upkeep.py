"""Who does which upkeep of a cluster, and how it went."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class UpkeepDuty(models.Model):
    """A lease on one duty. It saves work and decides nothing: every duty is safe to do twice."""

    name = models.CharField(max_length=40, primary_key=True)
    node_id = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)
    # Not again before; null: at once.
    next_at = models.DateTimeField(null=True)
    last_started_at = models.DateTimeField(null=True)
    last_finished_at = models.DateTimeField(null=True)
    # How much the last round did, and what went wrong in it.
    last_count = models.BigIntegerField(null=True)
    last_error = models.TextField(null=True)

    objects: ClassVar[models.Manager[UpkeepDuty]] = models.Manager()

    class Meta:
        db_table = "upkeep_duty"

    def __str__(self) -> str:
        return self.name
