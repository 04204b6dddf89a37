"""The table of verbs, and what is not in it."""

from __future__ import annotations

from typing import Any

import pytest
from rest_framework.exceptions import NotAuthenticated, NotFound
from rest_framework.test import APIRequestFactory

from authn.models import Role
from authn.permissions import (
    ANY_CALLER,
    EVERYWHERE,
    LEAST_ROLE,
    SOMEWHERE,
    RolePermission,
    is_allowed,
)
from authn.principal import Principal
from clusters.api.base import NativeViewSet, reply
from clusters.errors import NotAllowed

ADMIN = Principal("x", "key:x", {"alpha": Role.ADMIN})
EVERY_VERB = {
    "clusters.read": "viewer",
    "jobs.read": "viewer",
    "jobs.enqueue": "operator",
    "jobs.cancel": "operator",
    "jobs.retry": "operator",
    "jobs.run_now": "operator",
    "jobs.requeue": "operator",
    "jobs.change": "operator",
    "jobs.delete": "admin",
    "bulk_operations.read": "viewer",
    "bulk_operations.request": "operator",
    "bulk_operations.stop": "operator",
    "bulk_operations.cancel": "operator",
    "bulk_operations.retry": "operator",
    "bulk_operations.run_now": "operator",
    "bulk_operations.move": "operator",
    "bulk_operations.set_priority": "operator",
    "bulk_operations.delete": "admin",
    "queues.read": "viewer",
    "queues.create": "admin",
    "queues.change": "admin",
    "queues.delete": "admin",
    "queues.purge": "admin",
    "queues.pause": "operator",
    "queues.resume": "operator",
    "schedules.read": "viewer",
    "schedules.create": "operator",
    "schedules.change": "operator",
    "schedules.delete": "operator",
    "schedules.delete_for_good": "admin",
    "schedules.pause": "operator",
    "schedules.resume": "operator",
    "schedules.trigger": "operator",
    "schedules.reschedule": "operator",
    "schedules.restore": "operator",
    "schedules.run_missed": "operator",
    "schedules.skip_next": "operator",
    "schedules.export": "admin",
    "schedules.import": "admin",
    "schedules.pause_all": "admin",
    "schedules.resume_all": "admin",
    "calendars.read": "viewer",
    "calendars.create": "operator",
    "calendars.change": "operator",
    "calendars.delete": "operator",
    "workflows.read": "viewer",
    "workflows.create": "operator",
    "workflows.change": "operator",
    "workflows.delete": "operator",
    "workflows.trigger": "operator",
    "workflows.cancel": "operator",
    "stats.read": "viewer",
    "failures.read": "viewer",
    "failures.change": "operator",
    "alerts.read": "viewer",
    "alerts.create": "operator",
    "alerts.change": "operator",
    "alerts.delete": "operator",
    "alerts.acknowledge": "operator",
    "alerts.mute": "operator",
    "alerts.test": "operator",
    "jobs.close": "operator",
    "metrics.read": "viewer",
    "logs.read": "operator",
    "audit.read": "operator",
    "nodes.read": "viewer",
    "nodes.drain": "operator",
    "nodes.undrain": "operator",
    "views.keep": "viewer",
    "views.delete": "viewer",
    "settings.read": "viewer",
    "settings.change": "admin",
    "secrets.read": "operator",
    "secrets.write": "admin",
    "restored.mark": "admin",
    "restored.confirm": "admin",
    "keys.read": "admin",
    "roles.read": "admin",
    "access_audit.read": "admin",
    "keys.create": "admin",
    "keys.change": "admin",
    "keys.revoke": "admin",
    "roles.give": "admin",
    "roles.take": "admin",
    "users.create": "admin",
    "users.change": "admin",
    "users.delete": "admin",
    "groups.create": "admin",
    "groups.change": "admin",
    "groups.delete": "admin",
}


def test_the_table_is_the_one_of_the_security_document() -> None:
    assert LEAST_ROLE == EVERY_VERB


@pytest.mark.parametrize("verb", ["", "jobs", "jobs.nonsense", "*", "queues.nonsense"])
def test_a_verb_without_an_entry_is_denied_to_all(verb: str) -> None:
    assert not is_allowed(ADMIN, verb, "alpha")


def test_a_role_on_another_cluster_allows_nothing() -> None:
    assert is_allowed(ADMIN, "jobs.delete", "alpha")
    assert not is_allowed(ADMIN, "jobs.read", "beta")


class View(NativeViewSet):
    verbs = {
        "list": "jobs.read",
        "unknown": "jobs.nonsense",
        "keys": "keys.read",
        "access": "access_audit.read",
    }

    def list(self, request: Any, **kwargs: Any) -> Any:
        return reply({})

    def forgotten(self, request: Any, **kwargs: Any) -> Any:
        return reply({})

    unknown = forgotten


def has_permission(principal: Any, action: str, **kwargs: str) -> bool:
    view = View(kwargs=kwargs, action=action, get=lambda request: None)
    request = APIRequestFactory().get("/")
    request.user = principal
    try:
        return RolePermission().has_permission(request, view)
    except NotAllowed as refusal:
        assert refusal.verb == view.verbs[action]
        return False


def test_an_action_without_a_verb_and_a_verb_without_an_entry_are_denied() -> None:
    assert has_permission(ADMIN, "list", cluster_id="alpha")
    assert not has_permission(ADMIN, "forgotten", cluster_id="alpha")
    assert not has_permission(ADMIN, "unknown", cluster_id="alpha")


def test_a_view_of_no_cluster_is_open_only_for_the_verbs_named_so() -> None:
    assert not has_permission(ADMIN, "list")
    assert not ANY_CALLER & set(LEAST_ROLE)
    assert set(LEAST_ROLE) >= SOMEWHERE | EVERYWHERE


def test_what_is_of_no_cluster_takes_the_role_on_one_or_on_all() -> None:
    lower = Principal("x", "key:x", {"*": Role.ADMIN, "alpha": Role.VIEWER})
    boss = Principal("x", "key:x", {"*": Role.ADMIN})
    nobody = Principal("x", "key:x", {"alpha": Role.OPERATOR})
    for caller, somewhere, everywhere in (
        (ADMIN, True, False),
        (lower, True, False),
        (boss, True, True),
        (nobody, False, False),
    ):
        assert has_permission(caller, "keys") is somewhere
        assert has_permission(caller, "access") is everywhere


def test_first_who_then_where() -> None:
    with pytest.raises(NotAuthenticated):
        has_permission(None, "list", cluster_id="nowhere")
    for cluster in ("beta", "nowhere", "", "default", "cluster-alpha"):
        with pytest.raises(NotFound):
            has_permission(ADMIN, "forgotten", cluster_id=cluster)


def test_every_native_action_has_a_verb_with_an_entry() -> None:
    from clusters.api.views import ClusterViewSet, NodeViewSet
    from jobs.api.queues import QueueViewSet
    from jobs.api.views import JobViewSet

    for view in (ClusterViewSet, NodeViewSet, QueueViewSet, JobViewSet):
        for action, verb in view.verbs.items():
            assert callable(getattr(view, action))
            assert verb in LEAST_ROLE or verb in ANY_CALLER


def test_a_grant_counts_on_its_cluster_or_on_all() -> None:
    shell = frozenset({"shell"})
    for granted in ({"alpha": shell}, {"*": shell}, {"alpha": shell, "*": frozenset({"plugin"})}):
        caller = Principal("x", "key:x", {"*": Role.ADMIN}, granted)
        assert shell <= caller.kinds_granted_on("alpha")
    elsewhere = Principal("x", "key:x", {"*": Role.ADMIN}, {"beta": shell})
    assert not elsewhere.kinds_granted_on("alpha")
