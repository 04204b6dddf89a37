"""What each role sees and may do; a forged form is refused as well as a missing button is."""

from __future__ import annotations

import re

import pytest

from clusters.binding import cluster_bound
from clusters.models import AuditEntry, ClusterSetting, Node, settings_version
from jobs.engine import alert_rules, bulk
from jobs.models import AlertEvent, AlertRule, BulkOperation, Failure, Job, Queue, Secret
from tests.api.test_failures import make_failure
from tests.factories import make_job, make_node, make_queue, make_step_beside_a_program
from tests.refusals import the_refusal

# Rights are the program's, not the database's.
pytestmark = pytest.mark.once


def make_alert() -> AlertRule:
    rule = alert_rules.create(
        {"name": "late", "kind": "oldest_ready", "webhook_url": "https://hooks.example/x"},
        by="test",
    )
    AlertRule.objects.update(state="firing", page="jobs/?state=ready", sentence="It is late.")
    return rule


@pytest.fixture
def things(db):
    """One of each that something can be done to."""
    with cluster_bound("alpha"):
        return {
            "failed": make_job("failed").pk,
            "held": make_job("failed", is_held=True).pk,
            "failure": make_failure(7).pk,
            "alert": make_alert().pk,
            "scheduled": make_job("scheduled").pk,
            "ready": make_job().pk,
            "done": make_job("succeeded").pk,
            "queue": make_queue("mail").pk,
            "paused": make_queue("slow", is_paused=True).pk,
            "node": make_node().pk,
            "secret": Secret.objects.all().create_secret("kept", "hush-hush", by="test").pk,
            "operation": bulk.request("retry", {"all": True}, reason="test", by="test").pk,
            "drained": make_node("draining").pk,
        }


# The address, the form, and the least role.
DEEDS = {
    "retry": ("jobs/{failed}/retry/", {}, "operator"),
    "run now": ("jobs/{scheduled}/run-now/", {}, "operator"),
    "cancel": ("jobs/{ready}/cancel/", {"reason": "x"}, "operator"),
    "delete": ("jobs/{done}/delete/", {"reason": "x"}, "admin"),
    "pause": ("queues/mail/pause/", {"reason": "x"}, "operator"),
    "resume": ("queues/slow/resume/", {}, "operator"),
    "copy": ("jobs/{failed}/copy/", {}, "operator"),
    "changed copy": (
        "jobs/{failed}/copy-changed/",
        {"queue": "default", "priority": "3", "payload": ""},
        "operator",
    ),
    "test": ("alerts/{alert}/test/", {}, "operator"),
    "acknowledge": ("alerts/{alert}/acknowledge/", {"reason": "x"}, "operator"),
    "mute an alert": ("alerts/{alert}/mute/", {"reason": "x", "lasts": "900"}, "operator"),
    "unmute": ("alerts/{alert}/unmute/", {}, "operator"),
    "delete an alert": ("alerts/{alert}/delete/", {"reason": "x"}, "operator"),
    "bulk retry": (
        "bulk-operations/new/?action=retry&state=failed",
        {"reason": "x", "size": "2"},
        "operator",
    ),
    "bulk delete": (
        "bulk-operations/new/?action=delete&state=succeeded",
        {"reason": "x", "size": "1"},
        "admin",
    ),
    "bulk stop": ("bulk-operations/{operation}/stop/", {}, "operator"),
    "decide to retry": ("failures/held/{held}/retry/", {"reason": "x"}, "operator"),
    "decide to leave": ("failures/held/{held}/close/", {"reason": "x"}, "operator"),
    "known": ("failures/{failure}/known/", {}, "operator"),
    "mute": ("failures/{failure}/mute/", {"reason": "x"}, "operator"),
    "own": ("failures/{failure}/own/", {"owner": "x"}, "operator"),
    "drain": ("nodes/{node}/drain/", {"reason": "x"}, "operator"),
    "undrain": ("nodes/{drained}/undrain/", {}, "operator"),
    "limits": (
        "queues/mail/limits/",
        {"max_concurrency": "3", "rate_period_seconds": "1", "overflow": "refuse", "reason": "x"},
        "admin",
    ),
    "purge": ("queues/mail/purge/", {"seen": "0", "reason": "x"}, "admin"),
    "change": (
        "jobs/queue/{queue}/change/",
        {"description": "y", "rate_period_seconds": "1", "overflow": "refuse"},
        "admin",
    ),
    "add": (
        "jobs/queue/add/",
        {"name": "new", "rate_period_seconds": "1", "overflow": "refuse"},
        "admin",
    ),
    "delete queue": ("jobs/queue/{queue}/delete/", {"reason": "x"}, "admin"),
    "change setting": (
        "governance/settings/max_crashes/",
        {"value": "5", "reason": "x", "version": str(settings_version({}))},
        "admin",
    ),
    "new secret": ("governance/secrets/new/", {"name": "api", "value": "hush-hush"}, "admin"),
    "replace secret": ("governance/secrets/named/kept/", {"value": "hush-hush"}, "admin"),
    "delete secret": ("governance/secrets/named/kept/delete/", {"reason": "x"}, "admin"),
}
# The verb of each, which a refusal names too.
VERBS = {
    **{"retry": "jobs.retry", "run now": "jobs.run_now", "cancel": "jobs.cancel"},
    **{"delete": "jobs.delete", "copy": "jobs.requeue", "changed copy": "jobs.requeue"},
    **{"pause": "queues.pause", "resume": "queues.resume", "limits": "queues.change"},
    **{"purge": "queues.purge", "change": "queues.change", "add": "queues.create"},
    **{"delete queue": "queues.delete", "test": "alerts.test", "unmute": "alerts.mute"},
    **{"acknowledge": "alerts.acknowledge", "mute an alert": "alerts.mute"},
    **{"delete an alert": "alerts.delete", "bulk retry": "bulk_operations.request"},
    **{"bulk delete": "bulk_operations.request", "bulk stop": "bulk_operations.stop"},
    **{"decide to retry": "jobs.retry", "decide to leave": "jobs.close"},
    **{"known": "failures.change", "mute": "failures.change", "own": "failures.change"},
    **{"drain": "nodes.drain", "undrain": "nodes.undrain", "change setting": "settings.change"},
    **{"new secret": "secrets.write", "replace secret": "secrets.write"},
    **{"delete secret": "secrets.write"},
}
RANK = {"viewer": 1, "operator": 2, "admin": 3}


def rows() -> list:
    with cluster_bound("alpha"):
        return [
            [*Job.objects.order_by("pk").values_list("pk", "state", "is_held")],
            [*Queue.objects.order_by("pk").values_list("pk", "version", "is_paused")],
            [*AlertRule.objects.values_list("pk", "turn", "muted_until")],
            [*AlertEvent.objects.values_list("what")],
            [*Failure.objects.order_by("pk").values_list("pk", "mark", "owner")],
            BulkOperation.objects.count(),
            [*Node.objects.order_by("pk").values_list("pk", "drain_requested_at")],
            [*ClusterSetting.objects.values_list("name", "value")],
            [*Secret.objects.order_by("pk").values_list("pk", "version")],
            [*BulkOperation.objects.order_by("pk").values_list("pk", "status")],
        ]


@pytest.mark.parametrize("role", RANK)
@pytest.mark.parametrize("deed", DEEDS)
def test_a_deed_needs_its_role_and_leaves_its_trace(sign_in, things, role, deed):
    address, form, least = DEEDS[deed]
    client, before = sign_in(role, "alpha"), rows()
    response = client.post(f"/admin/alpha/{address.format(**things)}", form)
    is_allowed = RANK[role] >= RANK[least]
    assert response.status_code == (302 if is_allowed else 403), response.content[:2000]
    assert (rows() != before) is is_allowed
    with cluster_bound("alpha"):
        entries = [*AuditEntry.objects.all()]
    [entry] = entries
    verb = VERBS[deed]
    if not is_allowed:
        if (deed, role) == ("bulk delete", "operator"):
            # He may ask for bulk operations, though not for this one.
            verb = "bulk_operations.delete"
        assert entry == the_refusal(response, verb, f"user:{role}-1")
        assert (entry.surface, entry.credential) == ("admin", "session")
    else:
        assert entry.verb == verb
        assert entry.actor == f"user:{role}-1"
        assert entry.address == "127.0.0.1"
        assert entry.request_id == response["X-Request-ID"]
        assert entry.reason == form.get("reason", "")
    with cluster_bound("beta"):
        assert not AuditEntry.objects.exists()


@pytest.mark.parametrize("deed", DEEDS)
def test_looking_changes_nothing(admin, things, deed):
    before = rows()
    response = admin.get(f"/admin/alpha/{DEEDS[deed][0].format(**things)}")
    assert response.status_code in (200, 405)
    assert rows() == before


def test_a_viewer_sees_no_action(viewer, things):
    looked_at = ("", "queues/", "queues/mail/", "queues/slow/", "nodes/")
    pages = [*looked_at, f"bulk-operations/{things['operation']}/", "bulk-operations/"]
    pages += ["failures/", f"failures/{things['failure']}/"]
    pages += ["alerts/", f"alerts/{things['alert']}/"]
    pages += [f"jobs/{things[name]}/" for name in ("failed", "ready")]
    for page in pages:
        html = viewer.get(f"/admin/alpha/{page}").content.decode()
        content = html[html.index('id="content"') :]
        assert "ui-primary" not in content, page
        assert not re.search(r'method="post"', content), page
        assert "/cancel/" not in content
        assert "/drain/" not in content
        assert "/stop/" not in content
        assert "/bulk-operations/new/" not in content
        assert "/pause/" not in content
        assert "/mute/" not in content and "/held/" not in content
        assert "bulk-operations/new" not in content
        assert "/edit/" not in content and "/new/" not in content


def test_an_operator_sees_what_is_his_and_nothing_more(operator, admin, things):
    page = operator.get(f"/admin/alpha/jobs/{things['done']}/").content
    assert b"/delete/" not in page
    assert b"/delete/" in admin.get(f"/admin/alpha/jobs/{things['done']}/").content
    page = operator.get(f"/admin/alpha/jobs/{things['failed']}/").content
    assert b"/retry/" in page
    queues = operator.get("/admin/alpha/queues/").content
    assert b"/pause/" in queues
    queue = operator.get("/admin/alpha/queues/mail/").content
    assert b"/pause/" in queue
    for page in (b"Policies", b"/limits/", b"/purge/"):
        assert page not in queue
        assert page in admin.get("/admin/alpha/queues/mail/").content


def test_work_of_a_kind_that_needs_a_grant_is_started_with_one_only(sign_in):
    with cluster_bound("alpha"):
        job = make_job("failed", kind="shell", type="shell")
    without, with_grant = sign_in("admin"), sign_in("operator", "alpha", grants=("shell",))
    path = f"/admin/alpha/jobs/{job.pk}/"
    assert b"/retry/" not in without.get(path).content
    assert without.post(f"{path}retry/").status_code == 403
    assert b"/retry/" in with_grant.get(path).content
    assert with_grant.post(f"{path}retry/").status_code == 302
    with cluster_bound("alpha"):
        assert Job.objects.get(pk=job.pk).state == "ready"


def test_a_step_is_started_again_with_the_grants_of_those_beside_it_only(sign_in):
    with cluster_bound("alpha"):
        job = make_step_beside_a_program()
    without, with_grant = sign_in("admin"), sign_in("operator", "alpha", grants=("shell",))
    path = f"/admin/alpha/jobs/{job.pk}/"
    assert b"/retry/" not in without.get(path).content
    assert without.post(f"{path}retry/").status_code == 403
    assert b"/retry/" in with_grant.get(path).content
    assert with_grant.post(f"{path}retry/").status_code == 302


def test_users_and_keys_are_the_superusers(admin, superuser):
    for path in ("/admin/auth/user/", "/admin/authn/apikey/", "/admin/auth/user/add/"):
        assert admin.get(path).status_code == 403
        assert superuser.get(path).status_code == 200
    assert b"API keys" not in admin.get("/admin/").content


def test_a_user_is_made_with_a_role(superuser, stranger):
    form = {
        "username": "anna",
        "password1": "correct horse battery",
        "password2": "correct horse battery",
        "cluster_roles-TOTAL_FORMS": "1",
        "cluster_roles-INITIAL_FORMS": "0",
        "cluster_roles-0-cluster_id": "alpha",
        "cluster_roles-0-role": "operator",
    }
    response = superuser.post("/admin/auth/user/add/", form)
    assert response.status_code == 302, response.content
    credentials = {"username": "anna", "password": "correct horse battery", "next": "/admin/"}
    assert stranger.post("/admin/login/", credentials).status_code == 302
    assert stranger.get("/admin/alpha/").status_code == 200
    assert stranger.get("/admin/beta/").status_code == 404
    from authn.models import AccessAuditEntry

    [entry] = AccessAuditEntry.objects.all()
    assert (entry.actor, entry.verb, entry.target_id) == ("user:root", "users.create", "anna")
