"""Roles: who may do what on which cluster; given to users, to groups of them, and to API keys."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.db.models import Model, Q, QuerySet

from authn.errors import RoleNotFound
from authn.models import ApiKey, GroupRole, RoleBinding, UserRole
from authn.reach import check_clusters, check_gift, check_role, keys_seen, roles_seen
from clusters.acting import who_acts
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
_ID = re.compile(rf"({'|'.join(_SORTS)})-([0-9]{{1,18}})\Z")


def find(sort: str, name: str) -> Holder | None:
    """The user, the group or the key of this name."""
    models: dict[str, type[Model]] = {"user": get_user_model(), "group": Group, "key": ApiKey}
    if "\0" in name:
        return None
    if sort == "key":
        # Whose key it is, is nobody else's business; users and groups are of no cluster.
        key = keys_seen("keys.read").filter(name=name).first()
        return None if key is None else Holder(sort, key)
    row = models[sort]._default_manager.filter(**{_name_of(sort): name}).first()
    return None if row is None else Holder(sort, row)


def give(
    holder: Holder, cluster_id: str, role: str, grants: Iterable[str] = (), *, reason: str = ""
) -> bool:
    """Let him have this role on a cluster, or on all (`*`), with grants of kinds; False: he has that.

    It takes the place of the one he had there.
    """
    _, column, audit_type = _SORTS[holder.sort]
    wanted = {"role": str(role), "granted_kinds": sorted({*grants})}
    check_clusters([cluster_id], "cluster")
    check_role(role)
    on = [cluster_id]
    with access_deed("roles.give", audit_type, holder.name, on=on, reason=reason) as trace:
        rows = holder.roles().filter(cluster_id=cluster_id)
        before = rows.values("role", "granted_kinds").first() or {}
        check_gift(cluster_id, {*wanted["granted_kinds"]} - {*before.get("granted_kinds", ())})
        changed_before, changed = differences(before, wanted)
        trace.is_done = bool(changed)
        trace.filter = {"cluster": cluster_id}
        trace.before, trace.after = changed_before, changed
        if changed:
            keys = {column: holder.row, "cluster_id": cluster_id}
            holder.roles().update_or_create(**keys, defaults=wanted)
    return bool(changed)


def take(holder: Holder, cluster_id: str, *, reason: str = "") -> bool:
    """Take away the role that was given for this cluster, or for all (`*`); False: he had none."""
    audit_type = _SORTS[holder.sort].audit_type
    on = [cluster_id]
    with access_deed("roles.take", audit_type, holder.name, on=on, reason=reason) as trace:
        rows = holder.roles().filter(cluster_id=cluster_id)
        trace.filter = {"cluster": cluster_id}
        trace.before = rows.values("role", "granted_kinds").first()
        trace.is_done = trace.before is not None
        rows.delete()
    return trace.is_done


def holders_seen(sort: str) -> QuerySet[Any]:
    """The users, groups or keys that whoever acts may see: with a role where he rules, or all."""
    if sort == "key":
        return keys_seen("roles.read").defer("digest", "previous_digest")
    somebody = who_acts()
    model: type[Model] = get_user_model() if sort == "user" else Group
    if somebody is None or somebody.is_superuser:
        return model._default_manager.all()
    column = _SORTS[sort].column
    return model._default_manager.filter(pk__in=seen(sort).order_by().values(column))


def of_holders(sort: str, holders: Iterable[Any]) -> list[Any]:
    """The roles of these, as far as whoever acts may see them."""
    return [*seen(sort).filter(**{f"{_SORTS[sort].column}__in": [one.pk for one in holders]})]


def name_of(sort: str) -> str:
    """The column of the names of such holders, which are unique."""
    return _name_of(sort)


class Given(NamedTuple):
    """A role that somebody has."""

    holder: Holder
    row: Any

    @property
    def id(self) -> str:
        return f"{self.holder.sort}-{self.row.pk}"


def seen(sort: str) -> QuerySet[Any]:
    """The roles of all users, groups or keys, as far as whoever acts may see them."""
    model, column, _ = _SORTS[sort]
    return model._default_manager.filter(roles_seen("roles.read")).select_related(column)


def of_holders_named(sort: str, name: str) -> Q:
    """Those of one of them."""
    return Q(**{f"{_SORTS[sort].column}__{_name_of(sort)}": name})


def given(sort: str, row: Any) -> Given:
    return Given(Holder(sort, getattr(row, _SORTS[sort].column)), row)


def find_given(role_id: str) -> Given:
    """The role of this id."""
    match = _ID.match(role_id)
    row = seen(match[1]).filter(pk=int(match[2])).first() if match else None
    if match is None or row is None:
        raise RoleNotFound
    return given(match[1], row)


def _name_of(sort: str) -> str:
    return str(get_user_model().USERNAME_FIELD) if sort == "user" else "name"
