"""Who may do what, endpoint by endpoint."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from authn.models import ApiKey, Role
from clusters.health import watch
from jobs.dialects.scheduler.urls import urlpatterns
from jobs.models import Schedule
from tests.api.test_credentials import bad_credentials
from tests.dialects.scheduler.addresses import ENDPOINTS
from tests.dialects.scheduler.conftest import CRON_JOB, MISSING, Caller, check_problem

# Rights are the program's, not the database's.
pytestmark = pytest.mark.once

RANKS = [role.value for role in Role]


def test_every_endpoint_is_in_the_table() -> None:
    served = {
        (method.upper(), str(route.pattern))
        for route in urlpatterns
        for method in getattr(route.callback, "actions", {})
        if method != "head"
    }
    known = set()
    for method, path, _ in ENDPOINTS:
        noun = {"jobs": "job_id", "executions": "execution_id", "workflows": "workflow_id"}
        name = noun.get(path.split("/", maxsplit=1)[0], "")
        known.add((method, path.replace(MISSING, f"<guid:{name}>")))
    assert served == known
    assert len(ENDPOINTS) == 44


@pytest.mark.parametrize("role", RANKS)
@pytest.mark.parametrize(("method", "path", "least"), ENDPOINTS)
def test_an_endpoint_needs_its_role(
    method: str, path: str, least: str, role: str, make_key: Callable[..., str], alpha: object
) -> None:
    response = Caller(make_key(role))(method, path, [] if method == "POST" else None)
    if RANKS.index(role) >= RANKS.index(least):
        assert response.status_code in (200, 204, 400, 404), response.content
    else:
        check_problem(response, 403, "permission_denied")
    assert not Schedule.objects.exists()


@pytest.mark.parametrize(("method", "path", "least"), ENDPOINTS)
def test_nobody_gets_anywhere_without_good_credentials(
    method: str, path: str, least: str, anonymous: Caller, make_key: Callable[..., str]
) -> None:
    response = anonymous(method, path, raw=b"[" * 100)
    check_problem(response, 401, "not_authenticated")
    assert response["WWW-Authenticate"] == "Bearer"
    answers = set()
    for headers in bad_credentials(make_key("admin")):
        response = anonymous(method, path, **headers)
        body = check_problem(response, 401, "invalid_credentials")
        answers.add((body["detail"], tuple(sorted(response.headers))))
    assert len(answers) == 1


def test_a_revoked_key_is_a_bad_one(make_key: Callable[..., str], alpha: object) -> None:
    key = make_key("admin", name="gone")
    assert Caller(key).get("jobs").status_code == 200
    ApiKey.objects.filter(name="gone").revoke()
    check_problem(Caller(key).get("jobs"), 401, "invalid_credentials")


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_a_key_may_come_as_a_token(scheme: str, viewer_key: str, alpha: object) -> None:
    response = Caller(None).get("jobs", authorization=f"{scheme} {viewer_key}")
    assert response.status_code == 200


def test_a_session_does_not_open_it(admin_client: object, db: None) -> None:
    response = admin_client.get("/api/v1/scheduler/jobs")
    check_problem(response, 401, "not_authenticated")


def test_methods_that_an_address_does_not_have(viewer: Caller) -> None:
    response = viewer("PATCH", "jobs")
    check_problem(response, 405, "method_not_allowed")
    assert response["Allow"] == "GET, HEAD, POST"
    check_problem(viewer("OPTIONS", "jobs"), 405, "method_not_allowed")
    assert viewer("HEAD", "jobs").status_code == 200


@pytest.mark.parametrize(
    "path", ["", "nothing", "jobs/x", f"jobs/{MISSING}/nothing", "jobs//", f"jobs/{MISSING}x"]
)
def test_unknown_addresses_are_401_before_they_are_404(
    path: str, anonymous: Caller, viewer: Caller
) -> None:
    check_problem(anonymous.get(path), 401, "not_authenticated")
    check_problem(viewer.get(path), 404, "not_found")
    check_problem(viewer.post(path, {}), 404, "not_found")


def test_the_body_is_bounded_and_is_json(api: Caller) -> None:
    check_problem(api.post("jobs", raw=b"x" * 600_000), 413, "body_too_large")
    check_problem(
        api.post("jobs", raw=b"<a/>", content_type="text/xml"), 415, "unsupported_media_type"
    )
    check_problem(api.post("jobs", raw=b"[" * 100), 400, "validation_failed", "body")
    check_problem(
        api.post("jobs", raw=b'{"name": "a", "name": "b"}'), 400, "validation_failed", "name"
    )
    check_problem(api.post("jobs", raw=b'{"name": "\\u0000"}'), 400, "validation_failed", "name")


def test_a_dead_cluster_is_503_in_the_words_of_this_api(
    api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "is_down", lambda alias: True)
    response = api.get("jobs")
    check_problem(response, 503, "cluster_unreachable")
    assert response["Retry-After"] == "5"


def test_a_mistake_of_ours_tells_nothing(api: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("hush")

    monkeypatch.setattr("jobs.engine.schedules.create", broken)
    response = api.post("jobs", CRON_JOB)
    check_problem(response, 500, "internal_error", title="Server error")
    assert b"hush" not in response.content
