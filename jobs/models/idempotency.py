"""Replies kept so that a client which lost one may ask again."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models.functions import Now


class IdempotencyKey(models.Model):
    """Written in the transaction of the effect; the reply is replayed for the same request only."""

    id = models.BigAutoField(primary_key=True)
    principal = models.CharField(max_length=200)
    key = models.CharField(max_length=255)
    request_hash = models.CharField(max_length=64)
    status = models.PositiveSmallIntegerField(null=True)
    reply = models.JSONField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[IdempotencyKey]] = models.Manager()

    class Meta:
        db_table = "idempotency_key"
        constraints = [
            models.UniqueConstraint(name="idempotency_key_once", fields=["principal", "key"])
        ]
        indexes = [
            # retention
            models.Index(name="idempotency_key_age", fields=["created_at"])
        ]

    def __str__(self) -> str:
        return self.key
