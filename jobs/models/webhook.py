"""What the webhooks of a job made of steps have been told of."""

from __future__ import annotations

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

MAX_EVENT_LENGTH, MAX_WORD_LENGTH = 32, 32


class WebhookEvent(models.Model):
    """Something that happened to a job or to one of its steps, told once."""

    id = models.BigAutoField(primary_key=True)
    job = models.ForeignKey(
        "jobs.Job", on_delete=models.DO_NOTHING, db_constraint=False, db_index=False
    )
    event = models.CharField(max_length=MAX_EVENT_LENGTH)
    # The state it came into, or how far it was.
    word = models.CharField(max_length=MAX_WORD_LENGTH)
    # Of which try.
    fence = models.BigIntegerField()
    # With this try nothing else can happen.
    is_last = models.BooleanField(default=False)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "webhook_event"
        constraints = [
            models.UniqueConstraint(
                name="webhook_event_told_once", fields=["job", "event", "word", "fence"]
            ),
        ]
        indexes = [
            models.Index(
                name="webhook_event_last", fields=["job", "fence"], condition=Q(is_last=True)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.event} {self.word} of {self.job_id}"
