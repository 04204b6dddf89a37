"""Roles: who may do what on which cluster; given to users, to groups of them, and to API keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db.models import Model, QuerySet

from authn.models import ApiKey, GroupRole, RoleBinding, UserRole
from clusters.deeds import access_deed, differences


class Holder(NamedTuple):
    """Somebody who has roles: a user, a group or a key."""

    # One of HOLDERS.
    sort: str
    row: Any

    @property
    def name(self) -> str:
        return str(getattr(self.row, _name_of(self.sort)))

    def roles(self) -> QuerySet[Any]:
        """His rows, one for each cluster, and one where he has a role on all of them."""
        model, column, _ = _SORTS[self.sort]
        return model._default_manager.filter(**{column: self.row})


class _Sort(NamedTuple):
    roles: type[Model]
    column: str
    audit_type: str


_SORTS = {
    "user": _Sort(UserRole, "user", "user"),
    "group": _Sort(GroupRole, "group", "group"),
    "key": _Sort(RoleBinding, "api_key", "api_key"),
}
HOLDERS = tuple(_SORTS)


def find(sort: str, name: str) -> Holder | None:
    """The user, the group or the key of this name."""
    models: dict[str, type[Model]] = {"user": get_user_model(), "group": Group, "key": ApiKey}
    if "\0" in name:
        return None
    row = models[sort]._default_manager.filter(**{_name_of(sort): name}).first()
    return None if row is None else Holder(sort, row)


def give(holder: Holder, cluster_id: str, role: str, grants: Iterable[str] = ()) -> bool:
    """Let him have this role on a cluster, or on all (`*`), with grants of kinds; False: he has that.

    It takes the place of the one he had there.
    """
    _, column, audit_type = _SORTS[holder.sort]
    wanted = {"role": str(role), "granted_kinds": sorted(set(grants))}
    with access_deed("roles.give", audit_type, holder.name, on=[cluster_id]) as trace:
        rows = holder.roles().filter(cluster_id=cluster_id)
        before = rows.values("role", "granted_kinds").first() or {}
        changed_before, changed = differences(before, wanted)
        trace.is_done = bool(changed)
        trace.filter = {"cluster": cluster_id}
        trace.before, trace.after = changed_before, changed
        if changed:
            keys = {column: holder.row, "cluster_id": cluster_id}
            holder.roles().update_or_create(**keys, defaults=wanted)
    return bool(changed)


def take(holder: Holder, cluster_id: str) -> bool:
    """Take away the role that was given for this cluster, or for all (`*`); False: he had none."""
    audit_type = _SORTS[holder.sort].audit_type
    with access_deed("roles.take", audit_type, holder.name, on=[cluster_id]) as trace:
        rows = holder.roles().filter(cluster_id=cluster_id)
        trace.filter = {"cluster": cluster_id}
        trace.before = rows.values("role", "granted_kinds").first()
        trace.is_done = trace.before is not None
        rows.delete()
    return trace.is_done


def _name_of(sort: str) -> str:
    return str(get_user_model().USERNAME_FIELD) if sort == "user" else "name"
