"""Who may do what: the one table of verbs and the least role each of them needs.

A view names the verb of each of its actions in ``verbs``. An action without a verb, and a verb without
an entry here, are denied.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from rest_framework.exceptions import NotAuthenticated, NotFound
from rest_framework.permissions import BasePermission
from rest_framework.request import Request

from authn.models import ALL_CLUSTERS, RANK, Role
from authn.principal import Principal
from authn.providers import permits
from clusters.errors import NotAllowed

LEAST_ROLE: Mapping[str, Role] = {
    "clusters.read": Role.VIEWER,
    "jobs.read": Role.VIEWER,
    "jobs.enqueue": Role.OPERATOR,
    "jobs.cancel": Role.OPERATOR,
    "jobs.retry": Role.OPERATOR,
    "jobs.run_now": Role.OPERATOR,
    # One that was held for a decision stays failed.
    "jobs.close": Role.OPERATOR,
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
    "schedules.skip_next": Role.OPERATOR,
    "schedules.run_missed": Role.OPERATOR,
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
    "nodes.undrain": Role.OPERATOR,
    "stats.read": Role.VIEWER,
    "failures.read": Role.VIEWER,
    # What people say of a group: known, muted, whose it is.
    "failures.change": Role.OPERATOR,
    "alerts.read": Role.VIEWER,
    "alerts.create": Role.OPERATOR,
    "alerts.change": Role.OPERATOR,
    "alerts.delete": Role.OPERATOR,
    "alerts.acknowledge": Role.OPERATOR,
    "alerts.mute": Role.OPERATOR,
    "alerts.test": Role.OPERATOR,
    "metrics.read": Role.VIEWER,
    # Who asked for what, and from where.
    "logs.read": Role.OPERATOR,
    # Filters of the list of jobs, which everybody keeps for himself or shares.
    "views.keep": Role.VIEWER,
    "views.delete": Role.VIEWER,
    "settings.read": Role.VIEWER,
    "settings.change": Role.ADMIN,
    # Their names; values are read by nobody.
    "secrets.read": Role.OPERATOR,
    "secrets.write": Role.ADMIN,
    "restored.mark": Role.ADMIN,
    "restored.confirm": Role.ADMIN,
    "audit.read": Role.OPERATOR,
    # On the clusters of the key or the role; for those of all clusters, a role on all of them.
    "keys.read": Role.ADMIN,
    "roles.read": Role.ADMIN,
    "keys.create": Role.ADMIN,
    "keys.change": Role.ADMIN,
    "keys.revoke": Role.ADMIN,
    "roles.give": Role.ADMIN,
    "roles.take": Role.ADMIN,
    # What was done to keys, roles and users, and who was turned away; on all clusters.
    "access_audit.read": Role.ADMIN,
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
# At addresses that name no cluster: whoever may do it on one of them comes in, and the domain asks for
# those that are meant.
SOMEWHERE = frozenset(
    {"keys.read", "keys.create", "keys.change", "keys.revoke"}
    | {"roles.read", "roles.give", "roles.take"}
)
# The same, of those who may do it on all.
EVERYWHERE = frozenset({"access_audit.read"})


def is_allowed(principal: Principal, verb: str, cluster_id: str) -> bool:
    """Whether the caller's role on this cluster covers the verb."""
    role, least = principal.role_on(cluster_id), LEAST_ROLE.get(verb)
    if role is None or least is None or RANK.get(role, 0) < RANK[least]:
        return False
    return permits(principal, verb, cluster_id)


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
        verb = verb_of(request, view)
        if verb is None:
            return False
        if cluster_id is None:
            may = is_allowed_without_cluster(principal, verb)
        else:
            may = is_allowed(principal, verb, cluster_id)
        if not may:
            raise NotAllowed(verb)
        return True


def is_allowed_without_cluster(principal: Principal, verb: str) -> bool:
    if verb in ANY_CALLER:
        return permits(principal, verb, None)
    clusters = [ALL_CLUSTERS, *settings.CLUSTERS]
    if verb in EVERYWHERE:
        return all(is_allowed(principal, verb, cluster_id) for cluster_id in clusters)
    return verb in SOMEWHERE and any(
        is_allowed(principal, verb, cluster_id) for cluster_id in clusters
    )


def verb_of(request: Request, view: Any) -> str | None:
    """What the action that was asked for needs."""
    action = getattr(view, "action", None) or (request.method or "").lower()
    verb: str | None = getattr(view, "verbs", {}).get(action)
    return verb


def _is_unanswered(request: Request, view: Any) -> bool:
    """The view has no handler for this method: it goes on to its 405, where nothing can happen."""
    method = (request.method or "").lower()
    return method not in view.http_method_names or not hasattr(view, method)
