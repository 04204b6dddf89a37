"""Kinds that need a grant, wherever a request would start one."""

from __future__ import annotations

from authn.permissions import check_kinds
from authn.principal import Principal
from jobs.errors import JobError


def check_grant(principal: Principal, cluster_id: str, *kinds: str | None) -> None:
    """Refuse what would start jobs of a kind that the caller may not start."""
    try:
        check_kinds(principal, cluster_id, [kind for kind in kinds if kind is not None])
    except JobError as error:
        error.index = None
        raise
