"""Alerts: what somebody wants to be told of, how that stands, and what has been told.

A rule moves by guarded UPDATEs on its ``turn``, which grows by one each time: of two nodes that see the
same thing at the same moment one moves it, and tells.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, ClassVar

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

MAX_NAME_LENGTH, MAX_URL_LENGTH, MAX_SENTENCE_LENGTH, MAX_PAGE_LENGTH = 100, 2000, 500, 500


class AlertKind(models.TextChoices):
    """What is watched."""

    FAILURE_RATE = "failure_rate"
    OLDEST_READY = "oldest_ready"
    DEAD_NODES = "dead_nodes"
    LATE_SCHEDULES = "late_schedules"
    HEARTBEAT = "heartbeat"  # a job that should have succeeded by now


class AlertState(models.TextChoices):
    OK = "ok"
    FIRING = "firing"


class AlertSeverity(models.TextChoices):
    WARNING = "warning"
    CRITICAL = "critical"


class AlertStatus(models.TextChoices):
    """How a rule stands, in one word for people."""

    OK = "ok"
    PENDING = "pending"  # wrong, and not for long enough to fire
    FIRING = "firing"
    ACKNOWLEDGED = "acknowledged"
    MUTED = "muted"
    DISABLED = "disabled"


class AlertRuleQuerySet(models.QuerySet["AlertRule"]):
    def take_turn(self, rule: AlertRule, **columns: Any) -> bool:
        """Move a rule on, if it is still as it was read; False where somebody else was faster."""
        mine = self.filter(pk=rule.pk, turn=rule.turn)
        if not mine.update(turn=F("turn") + 1, **columns):
            return False
        for name, value in columns.items():
            setattr(rule, name, value)
        rule.turn += 1
        return True


class AlertRule(models.Model):
    """Something somebody wants to be told of."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=MAX_NAME_LENGTH, unique=True)
    kind = models.CharField(max_length=14, choices=AlertKind)
    severity = models.CharField(
        max_length=8, choices=AlertSeverity, default=AlertSeverity.WARNING.value
    )
    is_enabled = models.BooleanField(default=True)

    # What is watched; which of these a kind has, says ``jobs.engine.alert_rules``.
    queue = models.CharField(max_length=100, null=True)
    type = models.CharField(max_length=200, null=True)
    schedule_id = models.UUIDField(null=True)
    ratio = models.FloatField(null=True)
    at_least = models.PositiveIntegerField(null=True)
    window_seconds = models.PositiveIntegerField(null=True)
    limit_seconds = models.FloatField(null=True)

    # When, how often and whom it tells.
    for_seconds = models.FloatField(default=60.0)
    clear_after_seconds = models.FloatField(default=60.0)
    quiet_seconds = models.FloatField(default=300.0)
    webhook_url = models.CharField(max_length=MAX_URL_LENGTH, default="")

    # How it stands.
    state = models.CharField(max_length=6, choices=AlertState, default=AlertState.OK.value)
    state_since = models.DateTimeField(db_default=Now())
    # Since when it has been wrong, or right again; at most one of them.
    wrong_since = models.DateTimeField(null=True)
    right_since = models.DateTimeField(null=True)
    sentence = models.CharField(max_length=MAX_SENTENCE_LENGTH, default="")
    page = models.CharField(max_length=MAX_PAGE_LENGTH, default="")
    # What was told last, and when; where it differs from the state, that is to be told.
    told_state = models.CharField(max_length=6, choices=AlertState, default=AlertState.OK.value)
    told_at = models.DateTimeField(null=True)
    turn = models.PositiveBigIntegerField(default=0)

    # What people say to it.
    acknowledged_by = models.CharField(max_length=200, default="")
    acknowledged_at = models.DateTimeField(null=True)
    acknowledge_reason = models.CharField(max_length=500, default="")
    muted_by = models.CharField(max_length=200, default="")
    muted_until = models.DateTimeField(null=True)
    mute_reason = models.CharField(max_length=500, default="")

    created_by = models.CharField(max_length=200)
    updated_by = models.CharField(max_length=200)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())
    version = models.PositiveIntegerField(default=1)

    objects: ClassVar[models.Manager[AlertRule]] = AlertRuleQuerySet.as_manager()

    class Meta:
        db_table = "alert_rule"
        constraints = [
            models.CheckConstraint(
                name="alert_rule_is_wrong_or_right",
                condition=Q(wrong_since=None) | Q(right_since=None),
            ),
            models.CheckConstraint(
                name="alert_rule_acknowledged_is_firing",
                condition=Q(acknowledged_at=None) | Q(state=AlertState.FIRING.value),
            ),
        ]

    def __str__(self) -> str:
        return self.name

    def is_muted(self, now: datetime) -> bool:
        return self.muted_until is not None and self.muted_until > now

    def is_to_be_told(self, now: datetime) -> bool:
        """Whether its state is news, and enough time has passed since the last one."""
        if self.state == self.told_state or self.is_muted(now):
            return False
        return self.told_at is None or now - self.told_at >= timedelta(seconds=self.quiet_seconds)

    def status(self, now: datetime) -> AlertStatus:
        if not self.is_enabled:
            return AlertStatus.DISABLED
        if self.is_muted(now):
            return AlertStatus.MUTED
        if self.state == AlertState.FIRING:
            return AlertStatus.ACKNOWLEDGED if self.acknowledged_at else AlertStatus.FIRING
        return AlertStatus.PENDING if self.wrong_since else AlertStatus.OK


class AlertHappened(models.TextChoices):
    """What the history of a rule tells."""

    FIRED = "fired"
    RECOVERED = "recovered"
    TOLD = "told"
    UNTOLD = "untold"  # nobody could be told
    TESTED = "tested"
    ACKNOWLEDGED = "acknowledged"
    MUTED = "muted"
    UNMUTED = "unmuted"


class AlertEvent(models.Model):
    """Something that happened to a rule."""

    id = models.BigAutoField(primary_key=True)
    rule = models.ForeignKey(AlertRule, on_delete=models.CASCADE, db_index=False, related_name="+")
    at = models.DateTimeField(db_default=Now())
    what = models.CharField(max_length=12, choices=AlertHappened)
    sentence = models.CharField(max_length=MAX_SENTENCE_LENGTH, default="")
    by = models.CharField(max_length=200, default="")
    # The delivery, where somebody was told.
    job_id = models.UUIDField(null=True)

    objects: ClassVar[models.Manager[AlertEvent]] = models.Manager()

    class Meta:
        db_table = "alert_event"
        indexes = [
            # the history of a rule; what is too old
            models.Index(name="alert_event_newest", fields=["rule", "-id"]),
            models.Index(name="alert_event_oldest", fields=["at"]),
        ]

    def __str__(self) -> str:
        return f"{self.what}: {self.sentence}"
