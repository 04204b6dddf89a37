"""What people keep of the screen: filters of the list of jobs, under names of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from clusters.deeds import access_deed, differences
from jobs.errors import Conflict

MAX_NAME = 60
MAX_LINE = 2000
# Of one person on one cluster.
MAX_VIEWS = 50


# What the audit of access calls them: these rows are in the control database, and so is their trace.
_TARGET = "saved_view"


class SavedViewQuerySet(models.QuerySet["SavedView"]):
    def of_cluster(self, cluster_id: str) -> SavedViewQuerySet:
        return self.filter(cluster_id=cluster_id)

    def seen_by(self, user: Any) -> SavedViewQuerySet:
        """His own, and those that others share."""
        return self.filter(Q(owner=user) | Q(is_shared=True))

    def keep(
        self,
        owner: Any,
        cluster_id: str,
        name: str,
        line: str,
        columns: Sequence[str],
        *,
        is_shared: bool,
    ) -> SavedView:
        """Keep a view under this name; one of the owner's that has it already becomes this one."""
        told = (_TARGET, _named(cluster_id, name))
        with access_deed("views.keep", *told, on=[cluster_id]) as trace:
            own = self.filter(owner=owner, cluster_id=cluster_id)
            if not own.filter(name=name).exists() and own.count() >= MAX_VIEWS:
                raise Conflict(f"{MAX_VIEWS} views are enough; delete one of them", field="name")
            wanted = {"line": line, "columns": [*columns], "is_shared": is_shared}
            before = own.filter(name=name).values(*wanted).first()
            view, _ = self.update_or_create(
                owner=owner, cluster_id=cluster_id, name=name, defaults=wanted
            )
            if not is_shared:
                # Nobody begins with what he may no longer see.
                DefaultView.objects.filter(view=view).exclude(user=owner).delete()
            trace.before, trace.after = differences(before, wanted) if before else (None, wanted)
            # What others see; what somebody keeps for himself is no deed.
            is_seen = is_shared or bool(before and before["is_shared"])
            trace.is_done = is_seen and bool(trace.after)
        return view

    def drop(self, view: SavedView) -> None:
        """Delete this view; whoever began with it begins with all jobs."""
        told = (_TARGET, _named(view.cluster_id, view.name))
        with access_deed("views.delete", *told, on=[view.cluster_id]) as trace:
            kept = ("line", "columns", "is_shared")
            trace.before = {name: getattr(view, name) for name in kept}
            trace.is_done = view.is_shared
            view.delete()

    def first_of(self, user: Any, cluster_id: str) -> SavedView | None:
        """The view with which his list begins, if he chose one."""
        chosen = DefaultView.objects.filter(user=user, cluster_id=cluster_id).values("view")
        return self.filter(pk__in=chosen).seen_by(user).first()

    def begin_with(self, user: Any, view: SavedView | None, cluster_id: str) -> None:
        """Let his list begin with this view, or with no filter."""
        chosen = DefaultView.objects.filter(user=user, cluster_id=cluster_id)
        if view is None:
            chosen.delete()
        else:
            chosen.update_or_create(user=user, cluster_id=cluster_id, defaults={"view": view})


def _named(cluster_id: str, name: str) -> str:
    return f"{cluster_id}/{name}"


class SavedView(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    owner = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    cluster_id = models.CharField(max_length=25)
    name = models.CharField(max_length=MAX_NAME)
    # The words of the filter, as they were written.
    line = models.CharField(max_length=MAX_LINE, blank=True)
    columns = models.JSONField(default=list)
    is_shared = models.BooleanField(default=False)
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[models.Manager[SavedView]] = SavedViewQuerySet.as_manager()

    class Meta:
        db_table = "saved_view"
        constraints = [
            models.UniqueConstraint(
                name="saved_view_name_of_owner", fields=["owner", "cluster_id", "name"]
            )
        ]
        indexes = [models.Index(name="saved_view_cluster", fields=["cluster_id", "name"])]

    def __str__(self) -> str:
        return self.name


class DefaultView(models.Model):
    """The view with which somebody's list of jobs begins."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE)
    cluster_id = models.CharField(max_length=25)
    view = models.ForeignKey(SavedView, on_delete=models.CASCADE)

    class Meta:
        db_table = "default_view"
        constraints = [
            models.UniqueConstraint(name="default_view_of_user", fields=["user", "cluster_id"])
        ]

    def __str__(self) -> str:
        return f"{self.user_id} on {self.cluster_id}"
