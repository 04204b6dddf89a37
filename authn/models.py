"""API keys and users, and what they may do on which cluster. All of it is in the control database."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar

from django.conf import settings
from django.db import models, transaction
from django.db.models import F, Q, Value
from django.db.models.functions import Now
from django.utils import timezone

from clusters.deeds import access_deed
from clusters.models import Trace, TraceQuerySet

ALL_CLUSTERS = "*"
# What the audit calls credentials that were not good; of these rows, and no others, the count goes up.
REFUSED = "credentials.refuse"
USE_NOTED_EVERY = timedelta(minutes=1)


class Role(models.TextChoices):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


# By the word, which is asked for at every verb; a word that is no role has none.
RANK: dict[str, int] = {Role.VIEWER.value: 1, Role.OPERATOR.value: 2, Role.ADMIN.value: 3}


class KeyState(models.TextChoices):
    VALID = "valid"
    EXPIRED = "expired"
    REVOKED = "revoked"


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def valid(self) -> ApiKeyQuerySet:
        """Keys that are neither revoked nor expired."""
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=Now()), revoked_at=None)

    def in_state(self, state: str) -> ApiKeyQuerySet:
        """Those that are `valid`, `expired` or `revoked`."""
        if state == KeyState.REVOKED:
            return self.filter(revoked_at__isnull=False)
        return (
            self.valid()
            if state == KeyState.VALID
            else self.filter(expires_at__lte=Now(), revoked_at=None)
        )

    def revoke(self, *, reason: str = "") -> int:
        """Refuse these keys from now on."""
        with transaction.atomic(using=self.db):
            valid = self.filter(revoked_at=None).select_for_update(of=("self",))
            keys = [*valid.prefetch_related("role_bindings")]
            for key in keys:
                on = [binding.cluster_id for binding in key.role_bindings.all()]
                with access_deed("keys.revoke", "api_key", key.name, on=on, reason=reason) as trace:
                    trace.after = {"public_id": key.public_id, "is_revoked": True}
                    ApiKey.objects.filter(pk=key.pk).update(revoked_at=Now())
        return len(keys)

    def replace_secret(self, digest: bytes, *, keep_old: timedelta) -> int:
        """Give valid keys another secret; the one they had is good for so much longer."""
        return self.valid().update(
            previous_digest=F("digest"),
            previous_until=Now() + keep_old,
            digest=digest,
            rotated_at=Now(),
        )

    def say_used(self) -> int:
        """Note that keys were used just now; of several processes that notice one writes."""
        stale = Q(last_used_at=None) | Q(last_used_at__lt=Now() - USE_NOTED_EVERY)
        return self.filter(stale).update(last_used_at=Now())


class ApiKey(models.Model):
    """A named caller. Only a SHA-256 of the secret is kept: it holds 256 random bits, so no salt."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=100, unique=True)
    # Who answers for it, where its name does not say.
    owner = models.CharField(max_length=100, default="", db_default="", blank=True)
    public_id = models.CharField(max_length=16, unique=True)
    digest = models.BinaryField()
    # After a rotation the secret from before, as long as it is good.
    previous_digest = models.BinaryField(null=True)
    previous_until = models.DateTimeField(null=True)
    # Networks its callers must come from; none: any.
    addresses = models.JSONField(default=list, db_default=Value([], models.JSONField()), blank=True)
    created_at = models.DateTimeField(db_default=Now())
    rotated_at = models.DateTimeField(null=True)
    # To the minute: requests that find it fresh write nothing.
    last_used_at = models.DateTimeField(null=True)
    expires_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    objects: ClassVar[models.Manager[ApiKey]] = ApiKeyQuerySet.as_manager()

    class Meta:
        verbose_name = "API key"

    def __str__(self) -> str:
        return self.name

    @property
    def state(self) -> KeyState:
        """As ``ApiKeyQuerySet.in_state`` finds it."""
        if self.revoked_at is not None:
            return KeyState.REVOKED
        is_over = self.expires_at is not None and self.expires_at <= timezone.now()
        return KeyState.EXPIRED if is_over else KeyState.VALID


class RoleBinding(models.Model):
    """The role of a key on one cluster, or on all of them (`*`), with grants for kinds of work."""

    id = models.BigAutoField(primary_key=True)
    api_key = models.ForeignKey(ApiKey, on_delete=models.CASCADE, related_name="role_bindings")
    cluster_id = models.CharField(max_length=25)
    role = models.CharField(max_length=8, choices=Role)
    # Kinds that run foreign programs, such as `shell`; in no role, granted one by one.
    granted_kinds = models.JSONField(default=list)

    class Meta:
        constraints = [
            models.UniqueConstraint(name="role_once_per_cluster", fields=["api_key", "cluster_id"]),
            models.CheckConstraint(name="role_known", condition=Q(role__in=Role.values)),
        ]

    def __str__(self) -> str:
        return f"{self.role} on {self.cluster_id}"


class ClusterRole(models.Model):
    """A role on one cluster, or on all of them (`*`), of whoever the subclass says."""

    id = models.BigAutoField(primary_key=True)
    cluster_id = models.CharField("cluster", max_length=25)
    role = models.CharField(max_length=8, choices=Role)
    granted_kinds = models.JSONField(default=list, blank=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.role} on {self.cluster_id}"


class UserRole(ClusterRole):
    """The role of a user. A superuser is admin everywhere."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="cluster_roles"
    )

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="user_role_once_per_cluster", fields=["user", "cluster_id"]
            ),
            models.CheckConstraint(name="user_role_known", condition=Q(role__in=Role.values)),
        ]


class GroupRole(ClusterRole):
    """The role of all users of a group."""

    group = models.ForeignKey("auth.Group", on_delete=models.CASCADE, related_name="cluster_roles")

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="group_role_once_per_cluster", fields=["group", "cluster_id"]
            ),
            models.CheckConstraint(name="group_role_known", condition=Q(role__in=Role.values)),
        ]


class AccessAuditEntry(Trace):
    """What was done to users, keys and roles, which belong to no cluster."""

    objects: ClassVar[models.Manager[AccessAuditEntry]] = TraceQuerySet.as_manager()

    class Meta:
        db_table = "access_audit"
        indexes = [
            models.Index(name="access_audit_newest", fields=["-at", "-id"]),
            models.Index(
                name="access_audit_target", fields=["target_type", "target_id", "-at", "-id"]
            ),
            models.Index(name="access_audit_actor", fields=["actor", "-at", "-id"]),
            models.Index(name="access_audit_verb", fields=["verb", "-at", "-id"]),
        ]


class TriesQuerySet(models.QuerySet["Tries"]):
    def forgotten(self, after: timedelta) -> TriesQuerySet:
        """What has been quiet for so long that it counts no more."""
        return self.filter(
            Q(blocked_until=None) | Q(blocked_until__lt=Now()), last_failed_at__lt=Now() - after
        )


class Tries(models.Model):
    """Failed tries of one identity, or from one address; ``authn.tries`` tells the rules."""

    # Such as `address:192.0.2.1`; names are hashed, for somebody may type a password there.
    subject = models.CharField(max_length=60, primary_key=True)
    failures = models.PositiveIntegerField(default=0)
    counted_since = models.DateTimeField(db_default=Now())
    last_failed_at = models.DateTimeField(db_default=Now())
    # How often it was blocked without a quiet time between.
    blocks = models.PositiveSmallIntegerField(default=0)
    blocked_until = models.DateTimeField(null=True)

    objects: ClassVar[models.Manager[Tries]] = TriesQuerySet.as_manager()

    class Meta:
        db_table = "failed_tries"
        verbose_name_plural = "tries"
        indexes = [models.Index(name="failed_tries_quiet", fields=["last_failed_at"])]

    def __str__(self) -> str:
        return self.subject

    def is_blocked(self, now: datetime) -> bool:
        return self.blocked_until is not None and self.blocked_until > now


class UsedTokenQuerySet(models.QuerySet["UsedToken"]):
    def over(self, after: timedelta) -> UsedTokenQuerySet:
        """Those whose token could not be used any more in any case."""
        return self.filter(expires_at__lt=Now() - after)


class UsedToken(models.Model):
    """A token that was good once, and was used; kept until it would have expired."""

    # Of its issuer and its id.
    digest = models.CharField(max_length=64, primary_key=True)
    expires_at = models.DateTimeField()

    objects: ClassVar[models.Manager[UsedToken]] = UsedTokenQuerySet.as_manager()

    class Meta:
        db_table = "used_token"
        indexes = [models.Index(name="used_token_over", fields=["expires_at"])]

    def __str__(self) -> str:
        return self.digest
