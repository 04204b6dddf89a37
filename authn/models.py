"""API keys and users, and what they may do on which cluster. All of it is in the control database."""

from __future__ import annotations

from typing import ClassVar

from django.conf import settings
from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Now

from clusters.deeds import access_deed
from clusters.models import Trace, TraceQuerySet

ALL_CLUSTERS = "*"


class Role(models.TextChoices):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


RANK = {Role.VIEWER: 1, Role.OPERATOR: 2, Role.ADMIN: 3}


class ApiKeyQuerySet(models.QuerySet["ApiKey"]):
    def valid(self) -> ApiKeyQuerySet:
        """Keys that are neither revoked nor expired."""
        return self.filter(Q(expires_at=None) | Q(expires_at__gt=Now()), revoked_at=None)

    def revoke(self) -> int:
        """Refuse these keys from now on."""
        with transaction.atomic(using=self.db):
            valid = self.filter(revoked_at=None).select_for_update(of=("self",))
            keys = [*valid.prefetch_related("role_bindings")]
            for key in keys:
                on = [binding.cluster_id for binding in key.role_bindings.all()]
                with access_deed("keys.revoke", "api_key", key.name, on=on) as trace:
                    trace.after = {"public_id": key.public_id, "is_revoked": True}
                    ApiKey.objects.filter(pk=key.pk).update(revoked_at=Now())
        return len(keys)


class ApiKey(models.Model):
    """A named caller. Only a SHA-256 of the secret is kept: it holds 256 random bits, so no salt."""

    id = models.BigAutoField(primary_key=True)
    name = models.CharField(max_length=100, unique=True)
    public_id = models.CharField(max_length=16, unique=True)
    digest = models.BinaryField()
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True)
    revoked_at = models.DateTimeField(null=True)

    objects: ClassVar[models.Manager[ApiKey]] = ApiKeyQuerySet.as_manager()

    class Meta:
        verbose_name = "API key"

    def __str__(self) -> str:
        return self.name


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


class UserRole(models.Model):
    """The role of a user on one cluster, or on all of them (`*`). A superuser is admin everywhere."""

    id = models.BigAutoField(primary_key=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="cluster_roles"
    )
    cluster_id = models.CharField("cluster", max_length=25)
    role = models.CharField(max_length=8, choices=Role)
    granted_kinds = models.JSONField(default=list, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="user_role_once_per_cluster", fields=["user", "cluster_id"]
            ),
            models.CheckConstraint(name="user_role_known", condition=Q(role__in=Role.values)),
        ]

    def __str__(self) -> str:
        return f"{self.role} on {self.cluster_id}"


class GroupRole(models.Model):
    """The role of all users of a group on one cluster, or on all of them (`*`)."""

    id = models.BigAutoField(primary_key=True)
    group = models.ForeignKey("auth.Group", on_delete=models.CASCADE, related_name="cluster_roles")
    cluster_id = models.CharField("cluster", max_length=25)
    role = models.CharField(max_length=8, choices=Role)
    granted_kinds = models.JSONField(default=list, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                name="group_role_once_per_cluster", fields=["group", "cluster_id"]
            ),
            models.CheckConstraint(name="group_role_known", condition=Q(role__in=Role.values)),
        ]

    def __str__(self) -> str:
        return f"{self.role} on {self.cluster_id}"


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
