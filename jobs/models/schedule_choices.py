"""The words that a schedule is described with."""

from __future__ import annotations

from django.db import models


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
