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
from clusters import refusals
from clusters.models import REFUSED, AuditEntry, settings_version
from jobs.engine.edit import version_of
from jobs.models import Calendar, Job, Queue
from tests.deeds import world
from tests.refusals import the_refusal
from tests.ui.conftest import _forget_health, sign_in, superuser  # noqa: F401  fixtures
from ui.pages import ROUTES
from ui.sites import cluster_sites

pytestmark = pytest.mark.usefixtures("alpha")
REASON = {"reason": "x"}
# The version is that of the job.
CHANGE = {"queue": "slow", "priority": "3", "payload": "", "version": ""}
QUEUE_LIMITS = {"rate_period_seconds": "1", "overflow": "refuse"}
QUEUE = {"description": "y", **QUEUE_LIMITS}
SCHEDULE = {
    **{"name": "new", "description": "", "is_enabled": "on", "kind": "python", "type": "demo:noop"},
    **{"queue": "default", "payload": "{}", "tags": "", "timing": "cron", "misfire": "latest"},
    **{"expression": "0 4 * * *", "timezone": "UTC", "overlap": "skip"},
}
# By the name of the page, or the model and what is done to it: verb, address, form.
DEEDS: dict[str, tuple[str, str, dict[str, str]]] = {
    "job-retry": ("jobs.retry", "jobs/{failed}/retry/", {}),
    "job-run-now": ("jobs.run_now", "jobs/{scheduled}/run-now/", {}),
    "job-cancel": ("jobs.cancel", "jobs/{ready}/cancel/", REASON),
    "job-delete": ("jobs.delete", "jobs/{succeeded}/delete/", REASON),
    "job-change": ("jobs.change", "jobs/{ready}/change/", CHANGE),
    "job-copy": ("jobs.requeue", "jobs/{failed}/copy/", {}),
    "job-copy-changed": (
        "jobs.requeue",
        "jobs/{failed}/copy-changed/",
        {"queue": "slow", "priority": "3", "payload": ""},
    ),
    "bulk-operation-new": (
        "bulk_operations.request",
        "bulk-operations/new/?action=retry&state=failed",
        {**REASON, "size": "3"},
    ),
    "bulk-operation-stop": ("bulk_operations.stop", "bulk-operations/{operation}/stop/", {}),
    "alert-new": (
        "alerts.create",
        "alerts/new/?kind=dead_nodes",
        {
            **{"name": "n", "severity": "warning", "at_least": "1", "window_seconds": "15m"},
            **{"for_seconds": "1m", "clear_after_seconds": "1m", "quiet_seconds": "5m"},
        },
    ),
    "alert-edit": (
        "alerts.change",
        "alerts/{alert}/edit/",
        {
            **{"name": "n", "severity": "warning", "limit_seconds": "9m"},
            **{"for_seconds": "1m", "clear_after_seconds": "1m", "quiet_seconds": "5m"},
        },
    ),
    "alert-delete": ("alerts.delete", "alerts/{alert}/delete/", REASON),
    "alert-test": ("alerts.test", "alerts/{alert}/test/", {}),
    "alert-acknowledge": ("alerts.acknowledge", "alerts/{alert}/acknowledge/", REASON),
    "alert-mute": ("alerts.mute", "alerts/{alert}/mute/", {**REASON, "lasts": "900"}),
    "alert-unmute": ("alerts.mute", "alerts/{alert}/unmute/", {}),
    "held-retry": ("jobs.retry", "failures/held/{held}/retry/", REASON),
    "held-close": ("jobs.close", "failures/held/{held}/close/", REASON),
    "failure-known": ("failures.change", "failures/{failure}/known/", {}),
    "failure-mute": ("failures.change", "failures/{failure}/mute/", REASON),
    "failure-own": ("failures.change", "failures/{failure}/own/", {"owner": "ann"}),
    "node-drain": ("nodes.drain", "nodes/{node}/drain/", REASON),
    "node-undrain": ("nodes.undrain", "nodes/{drained}/undrain/", {}),
    "queue-limits": (
        "queues.change",
        "queues/mail/limits/",
        {**QUEUE_LIMITS, "max_concurrency": "3", **REASON},
    ),
    "queue-purge": ("queues.purge", "queues/mail/purge/", {"seen": "0", **REASON}),
    "queue-pause": ("queues.pause", "queues/mail/pause/", REASON),
    "queue-resume": ("queues.resume", "queues/slow/resume/", {}),
    "schedule-pause": ("schedules.pause", "schedules/{nightly}/pause/", REASON),
    "schedule-resume": ("schedules.resume", "schedules/{paused}/resume/", {}),
    "schedule-trigger": ("schedules.trigger", "schedules/{nightly}/trigger/", {}),
    "schedule-new": ("schedules.create", "schedules/new/", SCHEDULE),
    "schedule-edit": (
        "schedules.change",
        "schedules/{nightly}/edit/",
        {**SCHEDULE, "version": "1"},
    ),
    "schedule-skip-next": ("schedules.skip_next", "schedules/{nightly}/skip-next/", REASON),
    "schedule-run-missed": (
        "schedules.run_missed",
        "schedules/{nightly}/missed/{gap}/latest/",
        REASON,
    ),
    "setting": (
        "settings.change",
        "governance/settings/max_crashes/",
        {"value": "5", "version": str(settings_version({})), **REASON},
    ),
    "secret-new": ("secrets.write", "governance/secrets/new/", {"name": "api", "value": "hushed"}),
    "secret": ("secrets.write", "governance/secrets/named/token/", {"value": "hushed"}),
    "secret-delete": ("secrets.write", "governance/secrets/named/token/delete/", REASON),
    "workflow-trigger": ("workflows.trigger", "workflows/{flow}/trigger/", {}),
    "workflow-start": ("workflows.trigger", "workflows/{flow}/start/", {}),
    "workflow-run-cancel": ("workflows.cancel", "workflows/{flow}/runs/{going}/cancel/", REASON),
    "workflow-run-rerun": ("workflows.trigger", "workflows/{flow}/runs/{ended}/rerun/", {}),
    "queue add": ("queues.create", "jobs/queue/add/", {"name": "new", **QUEUE}),
    "queue change": ("queues.change", "jobs/queue/{queue}/change/", QUEUE),
    "queue delete": ("queues.delete", "jobs/queue/{queue}/delete/", REASON),
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
        *("index", "series", "card", "jobs", "jobs-export", "job", "job-log", "job-log-file"),
        *("bulk-operations", "bulk-operation", "failures", "failure", "alerts", "alert"),
        *("queues", "queue", "queue-series", "nodes"),
        *("schedules", "schedule", "schedule-preview", "schedule-edit-preview", "schedule-load"),
        *("workflows", "workflow", "workflow-run", "documentation"),
        *("governance", "audit-csv", "settings", "secrets"),
    }
    # Lists of one's own, told in the audit of access; and a new job, which tells itself who made it.
    looks |= {name for _, _, name in ROUTES if name.startswith("job-view-")} | {"job-new"}
    pages = {name for _, _, name in ROUTES} - looks
    site = next(site for site in cluster_sites if site.cluster.id == "alpha")
    models = {
        f"{model._meta.model_name} {deed}"
        for model, admin in site._registry.items()
        for deed in admin.verbs
        if deed != "view"
    }
    assert pages | models == DEEDS.keys()


@pytest.mark.once
@pytest.mark.parametrize("name", DEEDS)
def test_a_deed_is_told_once_and_refused_to_a_viewer(
    name: str,
    things: dict[str, str],
    sign_in: Callable[..., Any],  # noqa: F811
) -> None:
    verb, address, form = DEEDS[name]
    if form is CHANGE:
        form = {**form, "version": version_of(Job.objects.get(pk=things["ready"]))}
    path = f"/admin/alpha/{address.format(**things)}"
    before = world.rows_of_jobs()
    refused = sign_in("viewer", "alpha").post(path, form)
    assert refused.status_code == 403
    row = the_refusal(refused, verb, "user:viewer-1")
    assert (row.surface, row.credential) == ("admin", "session")
    assert world.rows_of_jobs() == before and [*AuditEntry.objects.all()] == [row]
    response = sign_in(str(LEAST_ROLE[verb]), "alpha").post(path, form)
    assert response.status_code == 302, response.content[-3000:]
    entry = AuditEntry.objects.exclude(pk=row.pk).get()
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
    user = get_user_model().objects.get()
    wanted = {
        "auth/group/add/": "groups.create",
        "auth/user/add/": "users.create",
        f"auth/user/{user.pk}/change/": "users.change",
        f"auth/user/{user.pk}/delete/": "users.delete",
        f"auth/user/{user.pk}/password/": "users.change",
        "authn/apikey/": "keys.change",
    }
    for path, verb in wanted.items():
        refusals.told.forget()
        response = admin.post(f"/admin/{path}", {"name": "mine"})
        assert response.status_code == 403
        row = AccessAuditEntry.objects.order_by("-at", "-id")[0]
        assert (row.verb, row.after) == (REFUSED, {"verb": verb}), path
        assert (row.actor, row.surface) == ("user:admin-1", "admin")
        assert row.request_id == response["X-Request-ID"]
    assert AccessAuditEntry.objects.count() == len(wanted)
    assert not Group.objects.exists() and not AuditEntry.objects.exists()
