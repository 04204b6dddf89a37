"""Who may do what, route by route, and where the API answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import override_settings

from authn.models import Role
from clusters import health
from clusters.binding import bound_cluster_id, cluster_bound
from clusters.health import watch
from clusters.models import AuditEntry
from jobs.dialects.tork.urls import urlpatterns
from jobs.models import Job, Schedule
from tests.api.test_credentials import bad_credentials
from tests.dialects.tork.addresses import ENDPOINTS, ID, JOB
from tests.dialects.tork.conftest import GRANTS, Caller, check_message, checked
from tests.factories import make_queue

# Rights are the program's, not the database's.
pytestmark = pytest.mark.once

RANKS = [role.value for role in Role]
PLACES = {
    "": "alpha",
    "/tork": "alpha",
    "/clusters/alpha/tork": "alpha",
    "/clusters/beta/tork": "beta",
}


def test_every_route_is_in_the_table() -> None:
    served = set()
    for route in urlpatterns:
        path = str(route.pattern).replace("<str:name>", "{}")
        for word in ("job", "task", "schedule"):
            path = path.replace(f"<str:{word}_id>", ID)
        for method in getattr(route.callback, "actions", {}):
            if method != "head":
                served.add((method.upper(), path))
    known = set()
    for method, path, _, _ in ENDPOINTS:
        path = path.removeprefix("tork/")
        for name in ("queues/default", "queues/nosuch"):
            path = path.replace(name, "queues/{}")
        known.add((method, path))
    assert served == known
    assert len(ENDPOINTS) == 20  # and /health, which is open


@pytest.mark.parametrize(("method", "path", "least", "body"), ENDPOINTS)
def test_a_route_needs_its_role(
    method: str, path: str, least: str, body: Any, make_key: Callable[..., str], alpha: object
) -> None:
    for role in RANKS:
        response = Caller(make_key(role, grants=GRANTS))(method, path, body)
        if RANKS.index(role) >= RANKS.index(least):
            assert response.status_code in (200, 404), response.content
            continue
        check_message(response, 403, "Forbidden")
        assert not Schedule.objects.exists()
        assert not Job.objects.exists()
        assert not get_user_model().objects.exists()


@pytest.mark.parametrize(("method", "path", "least", "body"), ENDPOINTS)
def test_nobody_gets_anywhere_without_good_credentials(
    method: str, path: str, least: str, body: Any, anonymous: Caller, make_key: Callable[..., str]
) -> None:
    response = anonymous(method, path, raw=b"[" * 100)
    check_message(response, 401, "Unauthorized")
    assert response["WWW-Authenticate"] == "basic realm=Restricted"
    answers = set()
    for headers in bad_credentials(make_key("admin")):
        response = anonymous(method, path, **headers)
        check_message(response, 401, "Unauthorized")
        answers.add((response.content, tuple(sorted(response.headers))))
    assert len(answers) == 1


def test_kinds_of_tasks_need_a_grant(make_key: Callable[..., str], alpha: object) -> None:
    bare, shell = Caller(make_key("admin")), Caller(make_key("admin", grants=("shell",)))
    with_image = {"name": "x", "tasks": [{"name": "t", "image": "i"}]}
    nested = {"name": "x", "tasks": [{"name": "t", "parallel": {"tasks": with_image["tasks"]}}]}
    for caller, body, kind in (
        (bare, JOB, "shell"),
        (shell, with_image, "container"),
        (shell, nested, "container"),
    ):
        scheduled = {**body, "schedule": {"cron": "@hourly"}}
        for path, sent in (("jobs", body), ("scheduled-jobs", scheduled)):
            told = check_message(caller.post(path, sent), 403)
            assert kind in told or told == "Forbidden"
    assert not Job.objects.exists()
    assert not Schedule.objects.exists()
    checked(shell.post("jobs", JOB))


def test_a_restart_needs_the_grants_of_its_tasks(api: Caller, make_key: Callable[..., str]) -> None:
    told = api.submit(tasks=JOB["tasks"])
    checked(api.put(f"jobs/{told['id']}/cancel"))
    check_message(Caller(make_key("operator")).put(f"jobs/{told['id']}/restart"), 403)
    assert api.job(told["id"])["state"] == "CANCELLED"


def test_it_may_be_opened_to_callers_without_credentials(anonymous: Caller, alpha: object) -> None:
    with override_settings(ANONYMOUS_ROLES={"tork": "operator"}):
        assert anonymous.read("jobs")["items"] == []
        # Nobody grants anything to nobody.
        check_message(anonymous.post("jobs", JOB), 403)
        beta = Caller(None, "/clusters/beta/tork")
        check_message(beta.get("jobs"), 401, "Unauthorized")


def test_methods_and_addresses_that_there_are_not(viewer: Caller, anonymous: Caller) -> None:
    response = viewer("DELETE", f"jobs/{ID}")
    check_message(response, 405, "Method Not Allowed")
    assert response["Allow"] == "GET, HEAD"
    for path in (f"jobs/{ID}/nosuch", "tasks", "scheduled-jobs/a/b/c", "tork/nosuch", "tork"):
        check_message(anonymous.get(path), 401, "Unauthorized")
        check_message(viewer.get(path), 404, "Not Found")
    assert viewer("HEAD", "jobs").status_code == 200


@pytest.mark.parametrize("place", PLACES)
def test_each_place_speaks_for_its_cluster(place: str, make_key: Callable[..., str]) -> None:
    api = Caller(make_key("admin", "*", grants=GRANTS), place)
    ours, other = PLACES[place], "beta" if PLACES[place] == "alpha" else "alpha"
    for cluster in (ours, other):
        with cluster_bound(cluster):
            make_queue(f"of-{cluster}")
    assert {one["name"] for one in api.read("queues/")} == {"default", f"of-{ours}"}
    told = api.submit(tasks=JOB["tasks"])
    assert api.job(f"{told['id']}/")["id"] == told["id"]
    with cluster_bound(other):
        assert not Job.objects.exists()
    assert bound_cluster_id() is None


def test_what_is_of_another_cluster_is_as_missing_as_what_never_was(
    make_key: Callable[..., str],
) -> None:
    both = Caller(make_key("admin", "*", grants=GRANTS), "/clusters/beta/tork")
    with cluster_bound("beta"):
        job_id = both.submit(tasks=JOB["tasks"])["id"]
    ours = Caller(make_key("admin", "alpha", grants=GRANTS))
    for method, path, _, _ in ENDPOINTS:
        if ID in path:
            answers = {ours(method, path.replace(ID, pk)).content for pk in (job_id, ID)}
            assert len(answers) == 1, path
    for name in ("beta", "gamma"):
        blind = Caller(ours.headers["x-api-key"], f"/clusters/{name}/tork")
        for method, path, _, body in ENDPOINTS:
            check_message(blind(method, path.removeprefix("tork/"), body), 404, "Not Found")


def test_a_database_that_does_not_answer_is_told_without_its_words(
    make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_answers", lambda alias: "alpha" not in alias)
    watch.report_down("cluster-alpha")
    response = Caller(make_key("viewer")).get("jobs")
    check_message(response, 503, "Service Unavailable")
    down = Caller(None).get("health")
    assert (down.status_code, down.json()) == (503, {"status": "DOWN"})


def test_health_is_open_and_says_nothing_of_clusters(anonymous: Caller) -> None:
    assert checked(anonymous.get("health")) == {"status": "UP"}
    answers = {
        anonymous.get(f"clusters/{name}/tork/health").content for name in ("alpha", "beta", "none")
    }
    assert answers == {b'{"status":"UP"}\n'}


def test_deeds_leave_a_trace(admin: Caller) -> None:
    told = admin.submit(tasks=JOB["tasks"])
    checked(admin.put(f"jobs/{told['id']}/cancel"))
    checked(admin.put(f"jobs/{told['id']}/restart"))
    made = checked(admin.post("scheduled-jobs", JOB | {"schedule": {"cron": "@hourly"}}))
    for verb in ("pause", "resume"):
        checked(admin.put(f"scheduled-jobs/{made['id']}/{verb}"))
    checked(admin.delete(f"scheduled-jobs/{made['id']}"))
    verbs = [*AuditEntry.objects.order_by("at", "id").values_list("verb", flat=True)]
    assert verbs == [
        *("jobs.cancel", "jobs.retry", "schedules.create", "schedules.pause", "schedules.resume"),
        "schedules.delete_for_good",
    ]
