"""Who does which upkeep of a cluster, and how it went."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import ClassVar
from uuid import UUID

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class UpkeepDutyQuerySet(models.QuerySet["UpkeepDuty"]):
    def ensure(self, names: Iterable[str]) -> None:
        """Make the rows that are missing."""
        missing = {*names} - {*self.values_list("name", flat=True)}
        self.bulk_create([UpkeepDuty(name=name) for name in sorted(missing)], ignore_conflicts=True)

    def open_to(self, node_id: UUID | str) -> UpkeepDutyQuerySet:
        """What a node may do now: its own duties, and those that are due and nobody holds."""
        is_free = Q(lease_until=None) | Q(lease_until__lt=Now())
        is_due = Q(next_at=None) | Q(next_at__lte=Now())
        return self.filter(Q(node_id=node_id, lease_until__gte=Now()) | (is_free & is_due))

    def take(self, node_id: UUID | str, lease_seconds: float) -> int:
        """Begin what is open to the node; 0 where another was faster."""
        return self.open_to(node_id).update(
            node_id=node_id,
            lease_until=Now() + timedelta(seconds=lease_seconds),
            last_started_at=Now(),
        )

    def keep(
        self, node_id: UUID | str, lease_seconds: float, *, count: int, error: str | None
    ) -> int:
        """The holder goes on, and tells how it went so far."""
        return self.filter(node_id=node_id, lease_until__gte=Now()).update(
            lease_until=Now() + timedelta(seconds=lease_seconds),
            last_finished_at=Now(),
            last_count=count,
            last_error=error,
        )

    def give_back(
        self, node_id: UUID | str, next_in_seconds: float, *, count: int, error: str | None
    ) -> int:
        """The holder is done until it is time again, for whoever comes first then."""
        return self.filter(node_id=node_id).update(
            node_id=None,
            lease_until=None,
            next_at=Now() + timedelta(seconds=next_in_seconds),
            last_finished_at=Now(),
            last_count=count,
            last_error=error,
        )

    def drop(self, node_id: UUID | str) -> int:
        """A node ends: others may go on at once with all that it held."""
        return self.filter(node_id=node_id).update(node_id=None, lease_until=None)


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

    objects: ClassVar[models.Manager[UpkeepDuty]] = UpkeepDutyQuerySet.as_manager()

    class Meta:
        db_table = "upkeep_duty"

    def __str__(self) -> str:
        return self.name
