"""The sites: who gets in, which cluster answers, and what the theme is kept from."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.urls import NoReverseMatch, resolve, reverse

from clusters.binding import bound_cluster_id, cluster_bound
from clusters.health import watch
from jobs.models import Attempt, Job, LogLine, Queue
from tests.factories import make_job, make_queue
from ui.checks import hidden_clusters
from ui.sites import cluster_sites, fleet_site

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = ("", "jobs/", "failures/", "queues/", "queues/default/", "nodes/", "jobs/queue/")
CSP = (
    "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)


# -- Who gets in -----------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES)
def test_a_stranger_is_sent_to_the_login_wherever_he_knocks(stranger, page):
    for cluster in ("alpha", "nowhere"):
        response = stranger.get(f"/admin/{cluster}/{page}")
        assert response.status_code == 302
        assert response["Location"] == f"/admin/login/?next=/admin/{cluster}/{page}"


def test_a_fragment_sends_the_whole_page_to_the_login(stranger):
    response = stranger.get("/admin/alpha/", headers={"HX-Request": "true"})
    assert response.status_code == 401
    assert response["HX-Redirect"] == "/admin/login/"


@pytest.mark.parametrize("page", PAGES)
def test_a_cluster_one_may_not_see_is_as_missing_as_one_that_is_not_there(sign_in, page):
    client = sign_in("admin", "beta")
    hidden, missing = client.get(f"/admin/alpha/{page}"), client.get(f"/admin/nowhere/{page}")
    assert hidden.status_code == missing.status_code == 404
    assert hidden.content.replace(b"alpha", b"") == missing.content.replace(b"nowhere", b"")
    assert client.get(f"/admin/beta/{page}").status_code == 200


def test_somebody_without_any_role_sees_the_login_form_and_no_cluster(sign_in):
    client = sign_in(None)
    assert client.get("/admin/")["Location"].startswith("/admin/login/")
    assert client.get("/admin/login/").status_code == 200
    assert client.get("/admin/alpha/").status_code == 404


def test_one_who_may_not_sign_in_any_more_is_a_stranger(sign_in):
    from django.contrib.auth import get_user_model

    client = sign_in("admin")
    assert client.get("/admin/alpha/").status_code == 200
    get_user_model().objects.update(is_staff=False)
    assert client.get("/admin/alpha/").status_code == 302


def test_a_role_that_is_taken_away_is_gone_at_once(sign_in):
    from authn.models import UserRole

    client = sign_in("viewer", "alpha")
    assert client.get("/admin/alpha/").status_code == 200
    UserRole.objects.all().delete()
    assert client.get("/admin/alpha/").status_code == 404


def test_signing_in_happens_at_one_place(stranger, viewer):
    assert stranger.get("/admin/alpha/login/")["Location"] == "/admin/login/"
    assert viewer.get("/admin/alpha/password_change/")["Location"] == "/admin/password_change/"


def test_the_form_signs_in_and_leads_on(stranger, sign_in):
    sign_in("viewer")
    form = {"username": "viewer-1", "password": "x", "next": "/admin/alpha/jobs/"}
    assert stranger.post("/admin/login/", form)["Location"] == "/admin/alpha/jobs/"
    assert stranger.get("/admin/alpha/jobs/").status_code == 200


# -- Which cluster answers -------------------------------------------------------------------------


def test_two_clusters_with_the_same_names_never_mix(admin):
    ids = {}
    for cluster in ("alpha", "beta"):
        with cluster_bound(cluster):
            make_queue("mail", description=f"only in {cluster}")
            ids[cluster] = make_job(queue="mail", type=f"type-of-{cluster}")
    for cluster, other in (("alpha", "beta"), ("beta", "alpha")):
        for page in (*PAGES, "jobs/?queue=mail", f"jobs/{ids[cluster].pk}/", "search/?s=mail"):
            html = admin.get(f"/admin/{cluster}/{page}").content.decode()
            assert str(ids[other].pk) not in html, page
            assert f"type-of-{other}" not in html, page
            assert f"only in {other}" not in html, page
            links = set(re.findall(rf'(?:href|action|hx-get)="/admin/({other})/([^"]*)"', html))
            # The switcher leads to the other's first page, and nothing else does.
            assert links <= {(other, "")}, page
        assert admin.get(f"/admin/{cluster}/jobs/{ids[other].pk}/").status_code == 404
        with cluster_bound(other):
            pk = Queue.objects.get(name="mail").pk
        assert admin.get(f"/admin/{cluster}/jobs/queue/{pk}/change/").status_code == 302
        assert f"type-of-{cluster}" in admin.get(f"/admin/{cluster}/jobs/").content.decode()


def test_the_binding_ends_with_the_request(viewer):
    viewer.get("/admin/alpha/")
    assert bound_cluster_id() is None


def test_a_link_without_its_site_fails_and_leads_into_no_cluster():
    for name in ("jobs", "queues", "jobs_queue_changelist"):
        with pytest.raises(NoReverseMatch):
            reverse(f"admin:{name}")
    assert reverse("admin:index") == "/admin/"
    assert reverse("admin:jobs", current_app="cluster-beta") == "/admin/beta/jobs/"


def test_addresses_without_a_slash_lead_on(viewer):
    for path in ("/admin/alpha", "/admin/alpha/jobs", "/admin"):
        response = viewer.get(path)
        assert response.status_code in (301, 302), path
        assert response["Location"] == f"{path}/"
    assert viewer.get("/admin/alpha/nothing").status_code == 404


def test_a_cluster_that_does_not_answer_says_so_and_delays_nobody(viewer, monkeypatch):
    monkeypatch.setattr(watch, "is_down", lambda alias: alias == "cluster-alpha")
    response = viewer.get("/admin/alpha/jobs/")
    assert response.status_code == 503
    assert response["Retry-After"]
    assert b"does not answer" in response.content
    assert viewer.get("/admin/beta/jobs/").status_code == 200


def test_a_database_that_breaks_in_the_middle_is_the_same(viewer, monkeypatch):
    from django.db import OperationalError

    def broken(using, **kwargs):
        raise OperationalError("gone")

    monkeypatch.setattr("ui.snapshot.read", broken)
    response = viewer.get("/admin/alpha/")
    assert response.status_code == 503
    assert b"gone" not in response.content


# -- Guard rails -----------------------------------------------------------------------------------


def test_no_cluster_may_hide_a_page_of_the_fleet():
    segments = {
        match[1]
        for pattern in fleet_site.get_urls()
        if (match := re.match(r"\^?([a-z_-]+)/", str(pattern.pattern)))
    }
    assert {"login", "logout", "search", "auth", "authn"} <= segments
    for segment in {*segments, "governance"}:
        assert [problem.id for problem in hidden_clusters([segment])] == ["ui.E001"], segment
    assert hidden_clusters(["alpha", "log-in"]) == []


def test_the_hot_tables_are_on_no_site():
    for site in (fleet_site, *cluster_sites):
        assert not {Job, Attempt, LogLine} & set(site._registry)


def test_the_fleet_has_no_model_of_a_cluster_and_a_cluster_none_of_the_fleet():
    from clusters.routers import CLUSTER_APPS

    assert not {model for model in fleet_site._registry if model._meta.app_label in CLUSTER_APPS}
    for site in cluster_sites:
        assert {model._meta.app_label for model in site._registry} <= CLUSTER_APPS


def test_every_list_of_the_admin_is_bounded():
    from ui.admin import EstimatingPaginator

    for site in (fleet_site, *cluster_sites):
        for model, registered in site._registry.items():
            assert 25 <= registered.list_per_page <= 50, model
            assert registered.show_full_result_count is False
            assert registered.paginator is EstimatingPaginator
            assert registered.date_hierarchy is None


def test_no_site_but_ours_is_made():
    assert "unfold.apps.BasicAppConfig" in settings.INSTALLED_APPS
    assert "django.contrib.admin.apps.SimpleAdminConfig" in settings.INSTALLED_APPS
    for site in (fleet_site, *cluster_sites):
        base = reverse("admin:index", current_app=site.name)
        assert resolve(f"{base}nothing").namespace == site.name
    assert resolve("/admin/auth/user/").namespace == fleet_site.name


def test_one_template_extends_one_of_the_theme():
    foreign = {}
    for path in (ROOT / "templates").rglob("*.html"):
        for name in re.findall(r"{%\s*extends\s+[\"']([^\"']+)", path.read_text()):
            if not name.startswith("ui/"):
                foreign[str(path.relative_to(ROOT))] = name
    assert foreign == {
        "templates/ui/base.html": "admin/base_site.html",
        # Before anybody is signed in there is no frame of ours to be in.
        "templates/ui/login.html": "admin/login.html",
    }


def test_the_linter_keeps_the_theme_behind_its_door():
    def refusals(name: str) -> str:
        command = [sys.executable, "-m", "ruff", "check", "--stdin-filename", name, "-"]
        done = subprocess.run(
            command, input="import unfold.admin\n", cwd=ROOT, capture_output=True, text=True
        )
        return done.stdout

    assert "TID251" in refusals("ui/admin.py")
    assert "TID251" in refusals("jobs/admin.py")
    assert "TID251" not in refusals("ui/theme.py")


@pytest.mark.parametrize("path", ["/admin/", "/admin/login/", "/admin/alpha/", "/admin/nowhere/"])
def test_pages_say_what_browsers_may_do_with_them(viewer, path):
    headers = viewer.get(path).headers
    assert headers["Content-Security-Policy"] == CSP
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["X-Frame-Options"] == "DENY"


@pytest.mark.parametrize("page", PAGES)
def test_no_page_has_a_script_of_its_own_or_of_others(viewer, page):
    html = viewer.get(f"/admin/alpha/{page}").content.decode()
    scripts = [
        script
        for script in re.findall(r"<script([^>]*)>(.*?)</script>", html, re.DOTALL)
        # Data is no script.
        if 'type="application/json"' not in script[0]
    ]
    assert scripts
    assert all("src=" in attributes and not text.strip() for attributes, text in scripts)
    assert not re.search(r"\son[a-z]+=", html)
    assert not re.findall(r'(?:src|href)="(?:https?:)?//', html)


def test_the_title_of_every_page_names_its_cluster(viewer):
    for page in ("", "jobs/", "queues/", "jobs/queue/"):
        html = viewer.get(f"/admin/beta/{page}").content.decode()
        assert "| beta · Yardmaster</title>" in html, page


def test_forms_need_their_token(sign_in):
    from django.test import Client

    inner = sign_in("operator")
    client = Client(enforce_csrf_checks=True)
    client.cookies = inner.cookies
    with cluster_bound("alpha"):
        job = make_job("failed")
    assert client.post(f"/admin/alpha/jobs/{job.pk}/retry/").status_code == 403
    with cluster_bound("alpha"):
        assert Job.objects.get(pk=job.pk).state == "failed"


def test_the_admins_own_log_stays_empty(admin, superuser):
    from django.contrib.auth import get_user_model

    with cluster_bound("alpha"):
        queue = make_queue("mail")
    form = {"rate_period_seconds": "1", "description": "changed", "overflow": "refuse"}
    response = admin.post(f"/admin/alpha/jobs/queue/{queue.pk}/change/", form)
    assert response.status_code == 302
    user = get_user_model().objects.get(username="root")
    response = superuser.post(
        f"/admin/auth/user/{user.pk}/change/",
        {
            "username": "root",
            "email": "root@example.org",
            "is_active": "on",
            "is_staff": "on",
            "is_superuser": "on",
            "cluster_roles-TOTAL_FORMS": "0",
            "cluster_roles-INITIAL_FORMS": "0",
        },
    )
    assert response.status_code == 302
    assert get_user_model().objects.get(username="root").email == "root@example.org"
    assert not LogEntry.objects.exists()
