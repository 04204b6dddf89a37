"""Every deed of the screen: told once, and refused to a viewer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group

from authn.keys import create_key
from authn.models import AccessAuditEntry, ApiKey, Role
from authn.permissions import LEAST_ROLE
from clusters.models import AuditEntry
from jobs.models import Calendar, Queue
from tests.deeds import world
from tests.ui.conftest import _forget_health, sign_in, superuser  # noqa: F401  fixtures
from ui.pages import ROUTES
from ui.sites import cluster_sites

pytestmark = pytest.mark.usefixtures("alpha")
REASON = {"reason": "x"}
QUEUE = {"description": "y", "rate_period_seconds": "1", "overflow": "refuse"}
SCHEDULE = {
    **{"name": "new", "description": "", "is_enabled": "on", "kind": "python", "type": "demo:noop"},
    **{"queue": "default", "payload": "{}", "tags": "[]", "timing": "cron", "misfire": "latest"},
    **{"expression": "0 4 * * *", "timezone": "UTC", "overlap": "skip"},
}
# By the name of the page, or the model and what is done to it: verb, address, form.
DEEDS: dict[str, tuple[str, str, dict[str, str]]] = {
    "job-retry": ("jobs.retry", "jobs/{failed}/retry/", {}),
    "job-run-now": ("jobs.run_now", "jobs/{scheduled}/run-now/", {}),
    "job-cancel": ("jobs.cancel", "jobs/{ready}/cancel/", REASON),
    "job-delete": ("jobs.delete", "jobs/{succeeded}/delete/", REASON),
    "node-drain": ("nodes.drain", "nodes/{node}/drain/", REASON),
    "queue-pause": ("queues.pause", "queues/mail/pause/", REASON),
    "queue-resume": ("queues.resume", "queues/slow/resume/", {}),
    "schedule-pause": ("schedules.pause", "schedules/{nightly}/pause/", REASON),
    "schedule-resume": ("schedules.resume", "schedules/{paused}/resume/", {}),
    "schedule-trigger": ("schedules.trigger", "schedules/{nightly}/trigger/", {}),
    "workflow-trigger": ("workflows.trigger", "workflows/{flow}/trigger/", {}),
    "workflow-run-cancel": ("workflows.cancel", "workflows/{flow}/runs/{going}/cancel/", REASON),
    "workflow-run-rerun": ("workflows.trigger", "workflows/{flow}/runs/{ended}/rerun/", {}),
    "queue add": ("queues.create", "jobs/queue/add/", {"name": "new", **QUEUE}),
    "queue change": ("queues.change", "jobs/queue/{queue}/change/", QUEUE),
    "queue delete": ("queues.delete", "jobs/queue/{queue}/delete/", REASON),
    "schedule add": ("schedules.create", "jobs/schedule/add/", SCHEDULE),
    "schedule change": ("schedules.change", "jobs/schedule/{nightly}/change/", SCHEDULE),
    "schedule delete": ("schedules.delete", "jobs/schedule/{nightly}/delete/", REASON),
    "calendar add": (
        "calendars.create",
        "jobs/calendar/add/",
        {"name": "new", "description": "", "dates": "2034-01-01"},
    ),
    "calendar change": (
        "calendars.change",
        "jobs/calendar/{calendar}/change/",
        {"description": "z", "dates": "2034-01-01"},
    ),
    "calendar delete": ("calendars.delete", "jobs/calendar/{calendar}/delete/", REASON),
}


@pytest.fixture
def things() -> dict[str, str]:
    made = world.build()
    made["queue"] = str(Queue.objects.get(name="mail").pk)
    made["calendar"] = str(Calendar.objects.get(name="holidays").pk)
    return made


def test_each_deed_of_the_screen_has_a_story() -> None:
    looks = {
        *("index", "jobs", "job", "job-log", "queues", "nodes", "failures", "failure", "card"),
        *("schedules", "schedule", "workflows", "workflow", "workflow-run", "documentation"),
    }
    pages = {name for _, _, name in ROUTES} - looks
    site = next(site for site in cluster_sites if site.cluster.id == "alpha")
    models = {
        f"{model._meta.model_name} {deed}"
        for model, admin in site._registry.items()
        for deed in admin.verbs
        if deed != "view"
    }
    assert pages | models == DEEDS.keys()


@pytest.mark.parametrize("name", DEEDS)
def test_a_deed_is_told_once_and_refused_to_a_viewer(
    name: str,
    things: dict[str, str],
    sign_in: Callable[..., Any],  # noqa: F811
) -> None:
    verb, address, form = DEEDS[name]
    path = f"/admin/alpha/{address.format(**things)}"
    before = world.rows_of_jobs()
    assert sign_in("viewer", "alpha").post(path, form).status_code == 403
    assert world.rows_of_jobs() == before and not AuditEntry.objects.exists()
    response = sign_in(str(LEAST_ROLE[verb]), "alpha").post(path, form)
    assert response.status_code == 302, response.content[-3000:]
    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.surface, entry.credential) == (verb, "admin", "session")
    assert entry.actor.startswith("user:") and entry.target_id
    assert (entry.address, entry.request_id) == ("127.0.0.1", response["X-Request-ID"])
    assert entry.reason == form.get("reason", "")


# -- What belongs to no cluster --------------------------------------------------------------------


def no_inlines(prefix: str, number: int = 0) -> dict[str, str]:
    return {f"{prefix}-TOTAL_FORMS": str(number), f"{prefix}-INITIAL_FORMS": "0"}


def test_roles_of_groups_are_given_on_the_screen_and_told(superuser: Any) -> None:  # noqa: F811
    form = {
        "name": "mailers",
        **no_inlines("cluster_roles", 1),
        "cluster_roles-0-cluster_id": "alpha",
        "cluster_roles-0-role": "operator",
    }
    response = superuser.post("/admin/auth/group/add/", form)
    assert response.status_code == 302, response.content[-3000:]
    entry = AccessAuditEntry.objects.get()
    assert (entry.verb, entry.target_type, entry.target_id) == ("groups.create", "group", "mailers")
    assert entry.after == {"name": "mailers", "roles": {"alpha": ["operator"]}}
    group = Group.objects.get()
    assert [str(role) for role in group.cluster_roles.all()] == ["operator on alpha"]
    history = superuser.get(f"/admin/auth/group/{group.pk}/history/")
    assert b"groups.create" in history.content


def test_a_user_is_put_into_a_group_and_that_is_told(superuser: Any) -> None:  # noqa: F811
    group = Group.objects.create(name="mailers")
    user = get_user_model().objects.create_user("anna", password="x", is_staff=True)
    form = {
        **{"username": "anna", "is_active": "on", "is_staff": "on", "groups": [str(group.pk)]},
        **no_inlines("cluster_roles"),
    }
    response = superuser.post(f"/admin/auth/user/{user.pk}/change/", form)
    assert response.status_code == 302, response.content[-3000:]
    entry = AccessAuditEntry.objects.get()
    assert (entry.verb, entry.target_id) == ("users.change", "anna")
    assert (entry.before, entry.after) == ({"groups": []}, {"groups": ["mailers"]})


def test_keys_are_revoked_on_the_screen_each_with_its_trace(superuser: Any) -> None:  # noqa: F811
    for name in ("a", "b"):
        create_key(name, Role.VIEWER, ["alpha"])
    chosen = {"action": "revoke", "_selected_action": [key.pk for key in ApiKey.objects.all()]}
    assert superuser.post("/admin/authn/apikey/", chosen).status_code == 302
    entries = AccessAuditEntry.objects.order_by("at", "id").values_list("verb", "target_id")
    assert {*entries} == {("keys.revoke", "a"), ("keys.revoke", "b")}
    assert not ApiKey.objects.filter(revoked_at=None).exists()


def test_others_than_superusers_reach_none_of_it(sign_in: Callable[..., Any]) -> None:  # noqa: F811
    admin = sign_in("admin")
    for path in ("auth/group/add/", "auth/user/add/", "authn/apikey/"):
        assert admin.post(f"/admin/{path}", {"name": "mine"}).status_code == 403
    assert not Group.objects.exists() and not AccessAuditEntry.objects.exists()
