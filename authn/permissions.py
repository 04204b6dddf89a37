"""Who may do what: the one table of verbs and the least role each of them needs.

A view names the verb of each of its actions in ``verbs``. An action without a verb, and a verb without
an entry here, are denied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from rest_framework.exceptions import NotAuthenticated, NotFound
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from authn.models import RANK, Role
from authn.principal import Principal
from authn.providers import permits
from jobs.errors import KindNotGranted
from jobs.executors import KINDS

LEAST_ROLE: Mapping[str, Role] = {
    "clusters.read": Role.VIEWER,
    "jobs.read": Role.VIEWER,
    "jobs.enqueue": Role.OPERATOR,
    "jobs.cancel": Role.OPERATOR,
    "jobs.retry": Role.OPERATOR,
    "jobs.run_now": Role.OPERATOR,
    "jobs.requeue": Role.OPERATOR,
    "jobs.change": Role.OPERATOR,
    "jobs.delete": Role.ADMIN,
    "bulk_operations.read": Role.VIEWER,
    # The request as such; then the verb of its action, now and when each batch runs.
    "bulk_operations.request": Role.OPERATOR,
    "bulk_operations.stop": Role.OPERATOR,
    "bulk_operations.cancel": Role.OPERATOR,
    "bulk_operations.retry": Role.OPERATOR,
    "bulk_operations.run_now": Role.OPERATOR,
    "bulk_operations.move": Role.OPERATOR,
    "bulk_operations.set_priority": Role.OPERATOR,
    "bulk_operations.delete": Role.ADMIN,
    "queues.read": Role.VIEWER,
    "queues.create": Role.ADMIN,
    "queues.change": Role.ADMIN,
    "queues.delete": Role.ADMIN,
    "queues.purge": Role.ADMIN,
    "queues.pause": Role.OPERATOR,
    "queues.resume": Role.OPERATOR,
    "schedules.read": Role.VIEWER,
    "schedules.create": Role.OPERATOR,
    "schedules.change": Role.OPERATOR,
    "schedules.delete": Role.OPERATOR,
    # With all of its runs.
    "schedules.delete_for_good": Role.ADMIN,
    "schedules.pause": Role.OPERATOR,
    "schedules.resume": Role.OPERATOR,
    "schedules.trigger": Role.OPERATOR,
    "schedules.reschedule": Role.OPERATOR,
    "schedules.restore": Role.OPERATOR,
    "schedules.export": Role.ADMIN,
    "schedules.import": Role.ADMIN,
    "schedules.pause_all": Role.ADMIN,
    "schedules.resume_all": Role.ADMIN,
    "calendars.read": Role.VIEWER,
    "calendars.create": Role.OPERATOR,
    "calendars.change": Role.OPERATOR,
    "calendars.delete": Role.OPERATOR,
    "workflows.read": Role.VIEWER,
    "workflows.create": Role.OPERATOR,
    "workflows.change": Role.OPERATOR,
    "workflows.delete": Role.OPERATOR,
    "workflows.trigger": Role.OPERATOR,
    "workflows.cancel": Role.OPERATOR,
    "nodes.read": Role.VIEWER,
    "nodes.drain": Role.OPERATOR,
    "stats.read": Role.VIEWER,
    "failures.read": Role.VIEWER,
    "metrics.read": Role.VIEWER,
    # Who asked for what, and from where.
    "logs.read": Role.OPERATOR,
    "settings.read": Role.VIEWER,
    "settings.change": Role.ADMIN,
    # Their names; values are read by nobody.
    "secrets.read": Role.OPERATOR,
    "secrets.write": Role.ADMIN,
    "restored.mark": Role.ADMIN,
    "restored.confirm": Role.ADMIN,
    "audit.read": Role.OPERATOR,
    # On the clusters of the key or the role; for those of all clusters, a role on all of them.
    "keys.create": Role.ADMIN,
    "keys.change": Role.ADMIN,
    "keys.revoke": Role.ADMIN,
    "roles.give": Role.ADMIN,
    "roles.take": Role.ADMIN,
    # Without any role: those are given by whoever administers all of it.
    "users.create": Role.ADMIN,
    # Of those who administer all clusters; the screen asks for a superuser besides.
    "users.change": Role.ADMIN,
    "users.delete": Role.ADMIN,
    "groups.create": Role.ADMIN,
    "groups.change": Role.ADMIN,
    "groups.delete": Role.ADMIN,
}
# What every caller with good credentials may ask, whatever his roles; the answer holds only what is his.
ANY_CALLER = frozenset(
    {"whoami.read", "documentation.read", "clusters.list", "metrics.list", "tokens.issue"}
)


def is_allowed(principal: Principal, verb: str, cluster_id: str) -> bool:
    """Whether the caller's role on this cluster covers the verb."""
    role, least = principal.role_on(cluster_id), LEAST_ROLE.get(verb)
    if role is None or least is None or RANK.get(role, 0) < RANK[least]:
        return False
    return permits(principal, verb, cluster_id)


def barred_kinds(principal: Principal, cluster_id: str) -> frozenset[str]:
    """Kinds of work that need a grant which the caller does not have."""
    granted = principal.kinds_granted_on(cluster_id)
    return frozenset(name for name, kind in KINDS.items() if kind.needs_grant) - granted


def check_kinds(
    principal: Principal, cluster_id: str, kinds: Iterable[str | Collection[str]]
) -> None:
    """Refuse jobs of kinds that need a grant which the caller does not have; say which job.

    Of each job its kind, or all those that it starts: ``jobs.executors.kinds_started``.
    """
    barred = barred_kinds(principal, cluster_id)
    for index, started in enumerate(kinds):
        for name in sorted(barred.intersection([started] if isinstance(started, str) else started)):
            error = KindNotGranted(f"jobs of kind {name!r} need a grant of their own", field="kind")
            error.index = index
            raise error


class RolePermission(BasePermission):
    """Authenticate, then find the cluster, then ask the table; in this order and no other."""

    def has_permission(self, request: Request, view: Any) -> bool:
        principal = request.user
        if not isinstance(principal, Principal):
            raise NotAuthenticated
        cluster_id = view.kwargs.get("cluster_id")
        if cluster_id is not None and not principal.may_see(cluster_id):
            # What one may not see does not exist.
            raise NotFound
        if _is_unanswered(request, view):
            return True
        verb = _verb(request, view)
        if verb is None:
            return False
        if cluster_id is None:
            return verb in ANY_CALLER and permits(principal, verb, None)
        return is_allowed(principal, verb, cluster_id)


def _verb(request: Request, view: Any) -> str | None:
    action = getattr(view, "action", None) or (request.method or "").lower()
    verb: str | None = getattr(view, "verbs", {}).get(action)
    return verb


def _is_unanswered(request: Request, view: Any) -> bool:
    """The view has no handler for this method: it goes on to its 405, where nothing can happen."""
    method = (request.method or "").lower()
    return method not in view.http_method_names or not hasattr(view, method)
