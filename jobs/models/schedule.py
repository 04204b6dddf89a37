"""A schedule: what to run and when. It makes jobs, one for each instant that is due.

``next_due_at`` is the next instant as the definition says, and ``next_run_at`` the same with the fixed
offset of the spread window; both are null where nothing is to come. Whoever changes the timing or one
of the flags that stop it writes them anew, see ``jobs.engine.schedules``; nobody else does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import timedelta
from functools import reduce
from operator import or_
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

from django.db import connections, models
from django.db.models import Exists, F, Func, OuterRef, Q, Value
from django.db.models.functions import Lower, Now
from uuid_utils.compat import uuid7

from clusters.deeds import verb_of_rows
from jobs.models.dependency import Needs
from jobs.states import OnLost

MAX_NAME_LENGTH, MAX_DESCRIPTION_LENGTH, MAX_REASON_LENGTH = 200, 2000, 500
# The most instants that a schedule may catch up on.
MAX_MISFIRES = 100
# A run that nobody has started so long after it was due is late; the alert ScheduleLate has it, too.
LATE_AFTER = timedelta(minutes=2)


class Timing(models.TextChoices):
    CRON = "cron"
    INTERVAL = "interval"
    ONCE = "once"


class Misfire(models.TextChoices):
    """What becomes of instants that nobody was there for."""

    LATEST = "latest"  # one job, for the newest of them
    ALL = "all"  # a job for each of the newest, the oldest first
    SKIP = "skip"  # none


class Overlap(models.TextChoices):
    """What happens when a run is due and the one before has not ended."""

    SKIP = "skip"
    ALLOW = "allow"
    QUEUE_ONE = "queue_one"  # it waits; a second one is skipped
    REPLACE = "replace"  # the old one is cancelled, and when it is dead the new one starts


class Gap(models.TextChoices):
    """What a fixed time means on the day when the clock jumps over it."""

    FIRE = "fire"  # at the first moment after the gap
    SKIP = "skip"


class Source(models.TextChoices):
    """Where a definition comes from."""

    PEOPLE = "people"
    CODE = "code"  # declared beside a handler
    FILE = "file"  # applied from a file of definitions


class Status(models.TextChoices):
    """What a schedule is, all in all; of several things the first in this order."""

    DELETED = "deleted"
    PAUSED = "paused"
    DISABLED = "disabled"
    BROKEN = "broken"  # it cannot be worked out
    COMPLETED = "completed"  # nothing of it is to come any more
    ENABLED = "enabled"


class _HasTag(Func):
    """Whether a list in JSON holds a text, looked for as it is written there; SQLite has no operator."""

    template = "instr(%(expressions)s) > 0"
    output_field = models.BooleanField()


_UNSTOPPED = Q(deleted_at=None, is_paused=False, is_enabled=True)
# The same as ``Schedule.status``, for many.
_OF_STATUS = {
    Status.DELETED: Q(deleted_at__isnull=False),
    Status.PAUSED: Q(deleted_at=None, is_paused=True),
    Status.DISABLED: Q(deleted_at=None, is_paused=False, is_enabled=False),
    Status.BROKEN: _UNSTOPPED & Q(error__isnull=False),
    Status.COMPLETED: _UNSTOPPED & Q(error=None, next_due_at=None),
    Status.ENABLED: _UNSTOPPED & Q(error=None, next_due_at__isnull=False),
}


class Named(NamedTuple):
    """A name as this database compares names, which depends on its locale, and who has it."""

    key: str
    id: UUID | None


NAMES_AT_ONCE = 500
_NAMED = {
    "postgresql": "SELECT n.name, lower(n.name), s.id FROM unnest(%s::text[]) AS n(name)"
    " LEFT JOIN schedule s ON lower(s.name) = lower(n.name) AND s.deleted_at IS NULL",
    "sqlite": "SELECT n.value, lower(n.value), s.id FROM json_each(%s) AS n"
    " LEFT JOIN schedule s ON lower(s.name) = lower(n.value) AND s.deleted_at IS NULL",
}
# What a search finds is looked up by its ids as long as it is not more than this.
FEW_FOUND = 500


def _holding(column: str, texts: Iterable[str]) -> Q:
    return reduce(or_, (Q(**{f"{column}__contains": text}) for text in texts))


class ScheduleQuerySet(models.QuerySet["Schedule"]):
    def kept(self) -> ScheduleQuerySet:
        """Schedules that have not been deleted."""
        return self.filter(deleted_at=None)

    def due(self) -> ScheduleQuerySet:
        """Schedules whose next run has come, the latest ones first."""
        return self.filter(next_run_at__lte=Now()).order_by("next_run_at", "id")

    def late(self, is_late: bool = True) -> ScheduleQuerySet:
        """Schedules whose next run should have started some time ago, or the others."""
        late = Q(next_run_at__lt=Now() - LATE_AFTER)
        return self.filter(late) if is_late else self.filter(Q(next_run_at=None) | ~late)

    def with_gaps(self, has_gaps: bool = True) -> ScheduleQuerySet:
        """Schedules with runs that were missed and that nobody has decided about, or the others."""
        from jobs.models.fire import Fire

        gaps = Fire.objects.using(self.db).all().missed()
        missed = Exists(gaps.filter(schedule_id=OuterRef("pk")))
        return self.filter(missed) if has_gaps else self.filter(~missed)

    def active(self) -> ScheduleQuerySet:
        """Schedules that nobody has stopped."""
        return self.filter(_UNSTOPPED)

    def of_status(self, *statuses: str) -> ScheduleQuerySet:
        """Schedules whose ``status`` is one of these."""
        return self.filter(reduce(or_, (_OF_STATUS[Status(status)] for status in statuses)))

    def tagged(self, tag: str) -> ScheduleQuerySet:
        """Schedules that carry this tag."""
        if connections[self.db].vendor == "postgresql":
            return self.filter(listing__tags__contains=[tag])
        return self.filter(_HasTag("listing__tags", Value(json.dumps(tag))))

    def listed_as(self, **words: str) -> ScheduleQuerySet:
        """Schedules of this kind, type, queue, timing, source or author."""
        return self.filter(**{f"listing__{word}": value for word, value in words.items()})

    def failing(self, wanted: bool = True) -> ScheduleQuerySet:
        """Schedules whose last run failed, or the others."""
        return (
            self.filter(consecutive_failures__gt=0)
            if wanted
            else self.filter(consecutive_failures=0)
        )

    def named(self, names: Iterable[str]) -> dict[str, Named]:
        """For each of these names that a schedule can have, whatever its case, the kept one that does."""
        connection = connections[self.db]
        # Others no schedule can have, and some databases refuse the very question.
        asked = [*{name for name in names if name.isprintable()}]
        found: dict[str, Named] = {}
        with connection.cursor() as cursor:
            for start in range(0, len(asked), NAMES_AT_ONCE):
                some = asked[start : start + NAMES_AT_ONCE]
                is_postgresql = connection.vendor == "postgresql"
                cursor.execute(
                    _NAMED[connection.vendor], [some if is_postgresql else json.dumps(some)]
                )
                for name, key, pk in cursor.fetchall():
                    is_id = pk is None or isinstance(pk, UUID)
                    found[name] = Named(key, pk if is_id else UUID(pk))
        return found

    def search(self, text: str) -> ScheduleQuerySet:
        """Schedules with this text in their name or description, in any case."""
        # As it was typed, too: SQLite makes small only what is ASCII.
        texts = {text.lower(), text}
        found = ScheduleListing.objects.using(self.db).filter(_holding("text", texts))
        few = list(found.order_by().values_list("schedule_id", flat=True)[: FEW_FOUND + 1])
        if len(few) <= FEW_FOUND:
            # The planner would walk all schedules in the order of the list, looking each up.
            return self.filter(pk__in=few)
        return self.filter(_holding("listing__text", texts))

    @verb_of_rows("schedules.pause", "schedule")
    def pause(
        self, *, by: str, reason: str = "", resume_at: Any = None, by_all: bool = False
    ) -> int:
        """Stop runs that are due from now on; what runs goes on. Those paused already are left alone."""
        return (
            self.kept()
            .filter(is_paused=False)
            .update(
                is_paused=True,
                paused_by=by[:200],
                pause_reason=reason,
                paused_at=Now(),
                resume_at=resume_at,
                is_paused_by_all=by_all,
                next_due_at=None,
                next_run_at=None,
                version=F("version") + 1,
            )
        )

    def due_to_resume(self) -> ScheduleQuerySet:
        """Schedules whose pause was to last until now."""
        return self.filter(is_paused=True, resume_at__lte=Now(), deleted_at=None)

    def park(self, error: str) -> int:
        """Stop schedules that cannot be worked out, until somebody mends them."""
        return self.update(
            error=error[:1000],
            next_due_at=None,
            next_run_at=None,
            version=F("version") + 1,
            updated_at=Now(),
        )


class Schedule(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=MAX_NAME_LENGTH)
    description = models.CharField(max_length=MAX_DESCRIPTION_LENGTH, default="", blank=True)
    source = models.CharField(max_length=6, choices=Source, default=Source.PEOPLE)

    # What to run; null: as the queue says, else the cluster's settings.
    kind = models.CharField(max_length=16, default="python")
    type = models.CharField(max_length=200)
    payload = models.JSONField(null=True)
    payload_bytes = models.BinaryField(null=True)
    # Whether {{Today}} and the like in the payload are filled in when a run is made.
    has_variables = models.BooleanField(default=False)
    queue = models.CharField(max_length=100, default="default")
    priority = models.SmallIntegerField(null=True)
    timeout_seconds = models.FloatField(null=True)
    # A run that is not started so long after it was due fails as `expired`.
    expires_in_seconds = models.FloatField(null=True)
    max_attempts = models.PositiveSmallIntegerField(null=True)
    retry_base_seconds = models.FloatField(null=True)
    retry_cap_seconds = models.FloatField(null=True)
    retry_curve = models.CharField(max_length=200, null=True)
    on_lost = models.CharField(max_length=5, choices=OnLost, default=OnLost.RETRY)
    tags = models.JSONField(default=list)
    metadata = models.JSONField(default=dict)
    # What a dialect must say again word for word; its runs are given it.
    dialect_notes = models.JSONField(null=True)
    # Instead of a job, a run of this workflow.
    workflow = models.ForeignKey(
        "jobs.Workflow", on_delete=models.DO_NOTHING, db_constraint=False, null=True
    )

    # When.
    timing = models.CharField(max_length=8, choices=Timing)
    expression = models.CharField(max_length=200, null=True)
    interval_seconds = models.FloatField(null=True)
    run_at = models.DateTimeField(null=True)
    timezone = models.CharField(max_length=64, default="UTC")
    # Intervals are counted from here.
    anchor_at = models.DateTimeField(null=True)
    starts_at = models.DateTimeField(null=True)
    ends_at = models.DateTimeField(null=True)
    gap = models.CharField(max_length=4, choices=Gap, default=Gap.FIRE)
    spread_seconds = models.FloatField(default=0.0)
    # As jobs.exclusions writes it.
    exclusions = models.JSONField(default=dict)
    # {timing, expression, interval_seconds, run_at} that counts from `effective_from` on.
    pending = models.JSONField(null=True)
    effective_from = models.DateTimeField(null=True)
    # Of the zone rules that `next_due_at` was worked out with.
    tzdata = models.CharField(max_length=16, default="")

    # How.
    misfire = models.CharField(max_length=6, choices=Misfire, default=Misfire.LATEST)
    misfire_grace_seconds = models.FloatField(default=60.0)
    misfire_limit = models.PositiveSmallIntegerField(default=MAX_MISFIRES)
    overlap = models.CharField(max_length=9, choices=Overlap, default=Overlap.SKIP)
    # How many of the schedules it depends on must have succeeded; see ScheduleDependency.
    needs = models.CharField(max_length=3, choices=Needs, default=Needs.ALL)
    # Only what succeeded after this counts for the next run.
    dependencies_since = models.DateTimeField(null=True)

    # What stops it. Separate, so that ending one does not end the others.
    is_enabled = models.BooleanField(default=True)
    is_paused = models.BooleanField(default=False)
    paused_by = models.CharField(max_length=200, null=True)
    pause_reason = models.CharField(max_length=MAX_REASON_LENGTH, null=True)
    paused_at = models.DateTimeField(null=True)
    resume_at = models.DateTimeField(null=True)
    # Paused with all others, and to be resumed with them.
    is_paused_by_all = models.BooleanField(default=False)
    deleted_at = models.DateTimeField(null=True)
    # Why it cannot be worked out.
    error = models.CharField(max_length=1000, null=True)

    # What has happened.
    next_due_at = models.DateTimeField(null=True)
    next_run_at = models.DateTimeField(null=True)
    # Instants up to here have made a job, were left out, or came before it was watched.
    accounted_until = models.DateTimeField(null=True)
    last_due_at = models.DateTimeField(null=True)
    last_job_id = models.UUIDField(null=True)
    last_run_at = models.DateTimeField(null=True)
    last_ended_at = models.DateTimeField(null=True)
    last_succeeded_at = models.DateTimeField(null=True)
    last_state = models.CharField(max_length=10, null=True)
    consecutive_failures = models.PositiveIntegerField(default=0)
    # Instants that were excluded, skipped or missed.
    left_out = models.PositiveBigIntegerField(default=0)
    # When some node last declared it in code.
    declared_at = models.DateTimeField(null=True)
    created_by = models.CharField(max_length=200)
    updated_by = models.CharField(max_length=200)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    # Counts the edits; the ETag of the row.
    version = models.PositiveIntegerField(default=1)

    objects: ClassVar[models.Manager[Schedule]] = ScheduleQuerySet.as_manager()

    class Meta:
        db_table = "schedule"
        constraints = [
            models.UniqueConstraint(
                Lower("name"), name="schedule_name_unique", condition=Q(deleted_at=None)
            ),
            models.CheckConstraint(
                name="schedule_timing_is_whole",
                condition=Q(timing=Timing.CRON, expression__isnull=False)
                | Q(timing=Timing.INTERVAL, interval_seconds__gt=0, anchor_at__isnull=False)
                | Q(timing=Timing.ONCE, run_at__isnull=False),
            ),
            models.CheckConstraint(
                name="schedule_pause_tells_when_and_who",
                condition=Q(is_paused=True, paused_at__isnull=False, paused_by__isnull=False)
                | Q(is_paused=False, paused_at=None, paused_by=None, is_paused_by_all=False),
            ),
            models.CheckConstraint(
                name="schedule_stopped_is_not_due",
                condition=Q(next_due_at=None, next_run_at=None)
                | Q(
                    next_due_at__isnull=False,
                    next_run_at__isnull=False,
                    is_enabled=True,
                    is_paused=False,
                    deleted_at=None,
                    error=None,
                ),
            ),
            models.CheckConstraint(
                name="schedule_pending_tells_from_when",
                condition=Q(pending=None, effective_from=None)
                | Q(pending__isnull=False, effective_from__isnull=False),
            ),
        ]
        indexes = [
            # ticks: what is due
            models.Index(
                name="schedule_due",
                fields=["next_run_at", "id"],
                condition=Q(next_run_at__isnull=False),
            ),
            # lists
            models.Index(name="schedule_newest", fields=["-created_at", "-id"]),
            models.Index(Lower("name"), "id", name="schedule_by_name"),
            # counts of lists
            models.Index(
                name="schedule_kept", fields=["kind"], condition=Q(deleted_at=None, workflow=None)
            ),
            # pauses that end by themselves; declarations that nobody makes any more
            models.Index(
                name="schedule_resuming",
                fields=["resume_at"],
                condition=Q(resume_at__isnull=False),
            ),
            models.Index(
                name="schedule_declared",
                fields=["declared_at"],
                condition=Q(source=Source.CODE, deleted_at=None),
            ),
            # lists of the states that few are in
            models.Index(
                name="schedule_deleted",
                fields=["-created_at", "-id"],
                condition=Q(deleted_at__isnull=False),
            ),
            models.Index(
                name="schedule_paused",
                fields=["-created_at", "-id"],
                condition=Q(deleted_at=None, is_paused=True),
            ),
            models.Index(
                name="schedule_disabled",
                fields=["-created_at", "-id"],
                condition=Q(deleted_at=None, is_paused=False, is_enabled=False),
            ),
            models.Index(
                name="schedule_broken",
                fields=["-created_at", "-id"],
                condition=Q(deleted_at=None, error__isnull=False),
            ),
            models.Index(
                name="schedule_completed",
                fields=["-created_at", "-id"],
                condition=Q(
                    deleted_at=None,
                    is_paused=False,
                    is_enabled=True,
                    error=None,
                    next_due_at__isnull=True,
                ),
            ),
            # repeated failures
            models.Index(
                name="schedule_failing",
                fields=["-consecutive_failures", "id"],
                condition=Q(consecutive_failures__gt=0),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def status(self) -> Status:
        if self.deleted_at is not None:
            return Status.DELETED
        if self.is_paused:
            return Status.PAUSED
        if not self.is_enabled:
            return Status.DISABLED
        if self.error is not None:
            return Status.BROKEN
        return Status.COMPLETED if self.next_due_at is None else Status.ENABLED

    @property
    def is_completed(self) -> bool:
        """Whether a one-time schedule has had its run."""
        return self.timing == Timing.ONCE and self.last_due_at is not None


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


class ScheduleDependency(models.Model):
    """A schedule runs only after another has succeeded."""

    pk = models.CompositePrimaryKey("schedule_id", "prerequisite_id")
    schedule = models.ForeignKey(
        Schedule, on_delete=models.CASCADE, db_index=False, related_name="dependencies"
    )
    prerequisite = models.ForeignKey(
        Schedule, on_delete=models.PROTECT, db_index=False, related_name="dependants"
    )

    objects: ClassVar[models.Manager[ScheduleDependency]] = models.Manager()

    class Meta:
        db_table = "schedule_dependency"
        indexes = [
            models.Index(
                name="schedule_dependency_dependants", fields=["prerequisite", "schedule"]
            ),
        ]

    def __str__(self) -> str:
        return f"{self.schedule_id} needs {self.prerequisite_id}"
