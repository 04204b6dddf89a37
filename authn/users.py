"""Users of the screen as callers: their roles are read anew at each request, as those of a key are."""

from __future__ import annotations

import json
from typing import Any

from django.contrib.auth.models import Group

from authn.models import ALL_CLUSTERS, RANK, GroupRole, Role, UserRole
from authn.principal import Principal

_WORDS = ("cluster_id", "role", "granted_kinds")


def principal_of(user: Any) -> Principal | None:
    """The caller a user stands for; None for nobody, and for somebody who may no longer sign in.

    He has the roles that are his own and those of his groups: on each cluster, and on all of them, the
    highest; and every grant.
    """
    if user is None or not user.is_active:
        return None
    name = user.get_username()
    roles: dict[str, str] = {}
    grants: dict[str, frozenset[str]] = {}
    for cluster_id, role, kinds in _given_to(user):
        known = roles.get(cluster_id)
        if known is None or RANK[role] > RANK[known]:
            roles[cluster_id] = role
        grants[cluster_id] = grants.get(cluster_id, frozenset()) | frozenset(kinds)
    if user.is_superuser:
        roles = {ALL_CLUSTERS: str(Role.ADMIN)}
    return Principal(name, f"user:{name}", roles, grants, is_superuser=bool(user.is_superuser))


def _given_to(user: Any) -> list[tuple[str, str, list[str]]]:
    """His own roles and those of his groups, in one question."""
    own = UserRole.objects.filter(user_id=user.pk).values_list(*_WORDS)
    groups = Group.objects.filter(user=user.pk).values("pk")
    of_groups = GroupRole.objects.filter(group_id__in=groups).values_list(*_WORDS)
    rows = own.union(of_groups, all=True)
    return [(cluster_id, role, _read(kinds)) for cluster_id, role, kinds in rows]


def _read(kinds: Any) -> list[str]:
    return json.loads(kinds) if isinstance(kinds, str) else list(kinds)
