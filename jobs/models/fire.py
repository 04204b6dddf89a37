"""Fires: what became of the instants of schedules."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, ClassVar
from uuid import UUID

from django.db import connections, models
from django.db.models import Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from jobs.models.schedule import Schedule


class FireState(models.TextChoices):
    FIRED = "fired"
    SKIPPED = "skipped"
    MISSED = "missed"


class FireReason(models.TextChoices):
    """Why an instant made no job."""

    EXCLUSION = "exclusion"
    OVERLAP = "overlap"
    MISFIRE = "misfire"
    NO_RIGHTS = "no_rights"
    REFUSED = "refused"  # the job could not be enqueued


class FireQuerySet(models.QuerySet["Fire"]):
    def missed(self) -> FireQuerySet:
        """Gaps: what nobody was there for, and nobody has decided about since."""
        return self.filter(state=FireState.MISSED)

    def latest_of(self, ids: Collection[UUID], count: int) -> dict[UUID, list[Fire]]:
        """The last fires of each of these schedules, the oldest of them first, by one statement.

        Each has ``outcome``: the state of the job or of the run of a workflow that it made, None where
        that is not kept any more.
        """
        found: dict[UUID, list[Fire]] = {pk: [] for pk in ids}
        if not found:
            return found
        connection = connections[self.db]
        key = Fire._meta.get_field("schedule").target_field
        # A look along the index for each schedule; a window would read all fires there are.
        one = "SELECT * FROM (SELECT * FROM fire WHERE schedule_id = %s ORDER BY due_at DESC LIMIT %s) s"
        values: list[Any] = []
        for pk in found:
            values += [key.get_db_prep_value(pk, connection), count]
        rows = self.raw(
            "SELECT f.*, coalesce(j.state, r.state) AS outcome FROM ("
            + " UNION ALL ".join([one] * len(found))
            + ") f LEFT JOIN job j ON j.id = f.job_id"
            " LEFT JOIN workflow_run r ON r.id = f.workflow_run_id",
            values,
        )
        for fire in sorted(rows, key=lambda row: row.due_at):
            found[fire.schedule_id].append(fire)
        return found


class Fire(models.Model):
    """One due instant of one schedule, or a stretch of them that made no job. Its row is what keeps a
    second job from being made for it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    schedule = models.ForeignKey(
        Schedule, on_delete=models.CASCADE, db_index=False, related_name="fires"
    )
    # The first of a stretch.
    due_at = models.DateTimeField()
    state = models.CharField(max_length=7, choices=FireState)
    reason = models.CharField(max_length=10, choices=FireReason, null=True)
    detail = models.CharField(max_length=500, null=True)
    job_id = models.UUIDField(null=True)
    workflow_run_id = models.UUIDField(null=True)
    # Of a stretch: how many instants, at least, and the last of them.
    count = models.PositiveBigIntegerField(default=1)
    is_at_least = models.BooleanField(default=False)
    last_due_at = models.DateTimeField(null=True)
    # When a node looked at it.
    fired_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[Fire]] = FireQuerySet.as_manager()

    class Meta:
        db_table = "fire"
        constraints = [
            models.UniqueConstraint(name="fire_once", fields=["schedule", "due_at"]),
            models.CheckConstraint(
                name="fire_reason_goes_with_no_job",
                condition=Q(state=FireState.FIRED, reason=None)
                | (~Q(state=FireState.FIRED) & Q(reason__isnull=False)),
            ),
        ]
        indexes = [
            models.Index(name="fire_fired_at", fields=["fired_at"]),
            # gaps that somebody has to decide about, and the schedules that have one
            models.Index(
                name="fire_missed",
                fields=["schedule", "due_at"],
                condition=Q(state=FireState.MISSED),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.schedule_id} {self.due_at:%Y-%m-%d %H:%M:%S} {self.state}"
