"""Kinds that need a grant, wherever a request would start one."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from authn.permissions import check_kinds
from authn.principal import Principal
from jobs.errors import JobError
from jobs.models import Schedule, WorkflowNode


def check_grant(principal: Principal, cluster_id: str, *kinds: str | None) -> None:
    """Refuse what would start jobs of a kind that the caller may not start."""
    try:
        check_kinds(principal, cluster_id, [kind for kind in kinds if kind is not None])
    except JobError as error:
        error.index = None
        raise


def kinds_of(workflow_id: UUID | None) -> list[str]:
    """What the nodes of a workflow start."""
    if workflow_id is None:
        return []
    nodes = WorkflowNode.objects.filter(workflow_id=workflow_id)
    return sorted(set(nodes.values_list("schedule__kind", flat=True)))


def kinds_of_schedules(ids: Collection[UUID]) -> list[str]:
    """What these schedules start."""
    rows = Schedule.objects.filter(pk__in=ids)
    return sorted(set(rows.values_list("kind", flat=True)))
