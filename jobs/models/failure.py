"""Failures that look the same, as one row with a count."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, ClassVar
from urllib.parse import urlsplit

from django.db import models
from django.db.models import F, Q, Value
from django.db.models.functions import Now
from django.db.models.lookups import GreaterThan, LessThan

from clusters.deeds import deed, differences
from jobs.errors import FailureNotFound, InvalidFailure
from jobs.models.queue_policies import text_problem

MAX_OWNER_LENGTH, MAX_TICKET_LENGTH, MAX_REASON_LENGTH = 200, 500, 500
LONGEST_MUTE = timedelta(days=3653)
# A group that was not seen for so long and comes again has returned.
RETURNS_AFTER = timedelta(days=7)
# So many types, nodes and versions of a group are kept by name, the latest.
MOST_SEEN_ON = 20


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


class Mark(models.TextChoices):
    """What people think of a group, or that nobody has thought of it yet."""

    NEW = "new"
    KNOWN = "known"
    MUTED = "muted"  # makes no alert and is no trouble of the cluster
    RETURNED = "returned"  # was away for a while, and is back


# What a person may say; that a group has returned is for upkeep to see.
SAID = (Mark.NEW, Mark.KNOWN, Mark.MUTED)
SAID_VALUES = [mark.value for mark in SAID]


class FailureQuerySet(models.QuerySet["Failure"]):
    def muted(self) -> FailureQuerySet:
        """Groups that are not to trouble anybody now."""
        return self.filter(Q(muted_until=None) | Q(muted_until__gt=Now()), mark=Mark.MUTED)

    def annotate_group(
        self,
        fingerprint: str,
        *,
        by: str,
        mark: str | None = None,
        until: datetime | None = None,
        owner: str | None = None,
        ticket: str | None = None,
        reason: str = "",
    ) -> Failure:
        """Say what a group is, whose it is, and where that is written down; what is None stays."""
        _check(mark, until, owner, ticket, reason)
        with deed("failures.change", "failure", fingerprint, using=self.db, reason=reason) as trace:
            group = self.select_for_update(no_key=True).filter(pk=fingerprint).first()
            if group is None:
                raise FailureNotFound
            before = group.annotations()
            rows = self.filter(pk=fingerprint)
            if mark is not None:
                group.mark, group.muted_until = mark, until
                group.marked_by, group.mark_reason = by[:200], reason
            if until is not None:
                # By the database's clock, whatever time it is here.
                moment = Value(until, models.DateTimeField())
                ahead = (GreaterThan(moment, Now()), LessThan(moment, Now() + LONGEST_MUTE))
                rows = rows.filter(*ahead)
            group.owner = group.owner if owner is None else owner
            group.ticket = group.ticket if ticket is None else ticket
            columns = {name: getattr(group, name) for name in ANNOTATIONS}
            if not rows.update(**columns, **({} if mark is None else {"marked_at": Now()})):
                raise InvalidFailure("must lie ahead, at most ten years", field="muted_until")
            trace.before, trace.after = differences(before, group.annotations())
        return self.get(pk=fingerprint)

    def end_mutes(self) -> int:
        """Groups whose mute was to last until now are known again."""
        over = self.filter(mark=Mark.MUTED, muted_until__lte=Now())
        return over.update(mark=Mark.KNOWN, muted_until=None) if over.exists() else 0

    def say_returned(self, fingerprints: Collection[str]) -> int:
        """These groups came again after a while; whoever muted one does not want to know."""
        back = self.filter(pk__in=fingerprints).exclude(pk__in=self.muted().values("pk"))
        return back.update(mark=Mark.RETURNED, returned_at=F("last_seen_at"), muted_until=None)


def _check(
    mark: str | None, until: datetime | None, owner: str | None, ticket: str | None, reason: str
) -> None:
    if mark is not None and mark not in SAID:
        raise InvalidFailure(f"must be one of {', '.join(SAID)}", field="mark")
    if until is not None and mark != Mark.MUTED:
        raise InvalidFailure("goes with the mark muted only", field="muted_until")
    for field, value, longest in (
        ("owner", owner, MAX_OWNER_LENGTH),
        ("ticket", ticket, MAX_TICKET_LENGTH),
        ("reason", reason, MAX_REASON_LENGTH),
    ):
        if value is not None and (problem := text_problem(value, longest)):
            raise InvalidFailure(problem, field=field)
    if ticket and not _leads_somewhere(ticket):
        raise InvalidFailure(
            "must be an address that begins with https:// or http://", field="ticket"
        )


def _leads_somewhere(ticket: str) -> bool:
    """Whether a browser may be led there: to a page, and not into a script."""
    try:
        parts = urlsplit(ticket)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and ticket.isprintable()


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
    # Where it was seen, the latest last: {"types": [...], "nodes": [...], "versions": [...]}.
    seen_on = models.JSONField(default=dict, db_default=Value({}, models.JSONField()))

    # What people say of it. The database has defaults too: nodes of an older version add groups.
    mark = models.CharField(max_length=8, choices=Mark, default=Mark.NEW, db_default=Mark.NEW.value)
    muted_until = models.DateTimeField(null=True)
    marked_by = models.CharField(max_length=200, default="", db_default="")
    marked_at = models.DateTimeField(null=True)
    mark_reason = models.CharField(max_length=MAX_REASON_LENGTH, default="", db_default="")
    returned_at = models.DateTimeField(null=True)
    owner = models.CharField(max_length=MAX_OWNER_LENGTH, default="", db_default="")
    ticket = models.CharField(max_length=MAX_TICKET_LENGTH, default="", db_default="")

    objects: ClassVar[models.Manager[Failure]] = FailureQuerySet.as_manager()

    class Meta:
        db_table = "failure"
        constraints = [
            models.CheckConstraint(name="failure_mark_known", condition=Q(mark__in=Mark.values)),
            models.CheckConstraint(
                name="failure_muted_until_goes_with_mute",
                condition=Q(muted_until=None) | Q(mark=Mark.MUTED),
            ),
        ]
        indexes = [
            models.Index(name="failure_newest", fields=["-last_seen_at", "-fingerprint"]),
            # what troubles nobody; alerts and the screen leave it out
            models.Index(
                name="failure_muted", fields=["muted_until"], condition=Q(mark=Mark.MUTED)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.error_type}: {self.message}"

    def annotations(self) -> dict[str, Any]:
        """What people have said of it, for the audit."""
        return {name: getattr(self, name) for name in ("mark", "muted_until", "owner", "ticket")}

    def was_seen_on(self, what: str) -> list[str]:
        """Its latest types, nodes or versions."""
        return [*self.seen_on.get(what, ())]


ANNOTATIONS = ("mark", "muted_until", "marked_by", "mark_reason", "owner", "ticket")


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


class FailureMinute(models.Model):
    """How often a group was seen in one minute, by queue and type; kept for a day.

    Alerts leave out what is muted by it, and the screen tells the last hour.
    """

    pk = models.CompositePrimaryKey("fingerprint", "starts_at", "queue", "type")
    fingerprint = models.CharField(max_length=16)
    starts_at = models.DateTimeField()
    queue = models.CharField(max_length=100)
    type = models.CharField(max_length=200)
    count = models.PositiveBigIntegerField(default=0)
    # Of those, how many were the end of their job.
    failed = models.PositiveBigIntegerField(default=0)

    objects: ClassVar[models.Manager[FailureMinute]] = models.Manager()

    class Meta:
        db_table = "failure_minute"
        # the latest of all groups; what is too old
        indexes = [models.Index(name="failure_minute_latest", fields=["starts_at"])]

    def __str__(self) -> str:
        return f"{self.fingerprint} {self.count}"
