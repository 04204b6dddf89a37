"""What each role sees and may do; a forged form is refused as well as a missing button is."""

from __future__ import annotations

import re

import pytest

from clusters.binding import cluster_bound
from clusters.models import AuditEntry, Node
from jobs.models import Job, Queue
from tests.factories import make_job, make_node, make_queue, make_step_beside_a_program


@pytest.fixture
def things(db):
    """One of each that something can be done to."""
    with cluster_bound("alpha"):
        return {
            "failed": make_job("failed").pk,
            "scheduled": make_job("scheduled").pk,
            "ready": make_job().pk,
            "done": make_job("succeeded").pk,
            "queue": make_queue("mail").pk,
            "paused": make_queue("slow", is_paused=True).pk,
            "node": make_node().pk,
        }


# The address, the form, and the least role.
DEEDS = {
    "retry": ("jobs/{failed}/retry/", {}, "operator"),
    "run now": ("jobs/{scheduled}/run-now/", {}, "operator"),
    "cancel": ("jobs/{ready}/cancel/", {"reason": "x"}, "operator"),
    "delete": ("jobs/{done}/delete/", {"reason": "x"}, "admin"),
    "pause": ("queues/mail/pause/", {"reason": "x"}, "operator"),
    "resume": ("queues/slow/resume/", {}, "operator"),
    "drain": ("nodes/{node}/drain/", {"reason": "x"}, "operator"),
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
}
RANK = {"viewer": 1, "operator": 2, "admin": 3}


def rows() -> list:
    with cluster_bound("alpha"):
        return [
            [*Job.objects.order_by("pk").values_list("pk", "state")],
            [*Queue.objects.order_by("pk").values_list("pk", "description", "is_paused")],
            [*Node.objects.order_by("pk").values_list("pk", "drain_requested_at")],
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
    assert len(entries) == is_allowed
    if is_allowed:
        [entry] = entries
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
    pages = ["", "queues/", "nodes/", *(f"jobs/{things[name]}/" for name in ("failed", "ready"))]
    for page in pages:
        html = viewer.get(f"/admin/alpha/{page}").content.decode()
        content = html[html.index('id="content"') :]
        assert "ui-primary" not in content, page
        assert not re.search(r'method="post"', content), page
        assert "/cancel/" not in content
        assert "/drain/" not in content
        assert "/pause/" not in content


def test_an_operator_sees_what_is_his_and_nothing_more(operator, admin, things):
    page = operator.get(f"/admin/alpha/jobs/{things['done']}/").content
    assert b"/delete/" not in page
    assert b"/delete/" in admin.get(f"/admin/alpha/jobs/{things['done']}/").content
    page = operator.get(f"/admin/alpha/jobs/{things['failed']}/").content
    assert b"/retry/" in page
    queues = operator.get("/admin/alpha/queues/").content
    assert b"/pause/" in queues
    assert b"Policies" not in queues


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
