"""Users of the screen as callers: their roles are read anew at each request, as those of a key are."""

from __future__ import annotations

from typing import Any

from authn.models import ALL_CLUSTERS, Role, UserRole
from authn.principal import Principal


def principal_of(user: Any) -> Principal | None:
    """The caller a user stands for; None for nobody, and for somebody who may no longer sign in."""
    if user is None or not user.is_active:
        return None
    name = user.get_username()
    rows = [*UserRole.objects.filter(user_id=user.pk)]
    roles = {row.cluster_id: row.role for row in rows}
    if user.is_superuser:
        roles = {ALL_CLUSTERS: str(Role.ADMIN)}
    return Principal(
        name=name,
        actor=f"user:{name}",
        roles=roles,
        granted_kinds={row.cluster_id: frozenset(row.granted_kinds) for row in rows},
    )
