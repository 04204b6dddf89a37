"""Who may do what, operation by operation."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from authn.models import ApiKey, Role
from clusters.health import watch
from jobs.dialects.asyncjobs.openapi import as_dict
from jobs.dialects.asyncjobs.urls import urlpatterns
from jobs.models import Job, Queue, Schedule
from tests.api.test_credentials import bad_credentials
from tests.dialects.asyncjobs.addresses import ENDPOINTS, HEALTH
from tests.dialects.asyncjobs.conftest import MISSING, Caller, check_error

# Rights are the program's, not the database's.
pytestmark = pytest.mark.once

RANKS = [role.value for role in Role]
PLAIN = [(method, path, least) for method, path, least, _ in ENDPOINTS]
NAMES = {MISSING: "{id}", "gone": "{name}"}


def templated(path: str) -> str:
    return "/" + "/".join(NAMES.get(part, part) for part in path.split("/"))


def test_every_operation_is_in_the_tables_and_in_the_document() -> None:
    served = {
        (method.upper(), "/" + str(route.pattern).replace("<str:task_id>", "{id}")
         .replace("<str:name>", "{name}"))
        for route in urlpatterns
        for method in getattr(route.callback, "actions", {})
        if method != "head"
    }  # fmt: skip
    # The word `retry` in the place of an id.
    served -= {("GET", "/v1/tasks/retry"), ("DELETE", "/v1/tasks/retry")}
    known = {(method, templated(path)): name for method, path, _, name in ENDPOINTS}
    known |= {(method, f"/{path}"): name for method, path, name in HEALTH}
    assert served == set(known)
    told = {
        (method.upper(), path): operation["operationId"]
        for path, item in as_dict()["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }
    assert told == {address: name for address, name in known.items() if name}
    assert len(told) == len(set(told.values())) == 19


@pytest.mark.parametrize("role", RANKS)
@pytest.mark.parametrize(("method", "path", "least"), PLAIN)
def test_an_operation_needs_its_role(
    method: str, path: str, least: str, role: str, make_key: Callable[..., str], alpha: object
) -> None:
    response = Caller(make_key(role))(method, path, [] if method == "POST" else None)
    if RANKS.index(role) >= RANKS.index(least):
        assert response.status_code in (200, 400, 404), response.content
    else:
        check_error(response, 403, "invalid_argument", "permission_denied")
    assert not Job.objects.exists() and not Schedule.objects.exists()
    assert Queue.objects.count() == 1


@pytest.mark.parametrize(("method", "path", "least"), PLAIN)
def test_nobody_gets_anywhere_without_good_credentials(
    method: str, path: str, least: str, anonymous: Caller, make_key: Callable[..., str]
) -> None:
    response = anonymous(method, path, raw=b"[" * 600_000)
    check_error(response, 401, "invalid_argument", "unauthenticated")
    assert response["WWW-Authenticate"] == "Bearer"
    answers = set()
    for headers in bad_credentials(make_key("admin")):
        response = anonymous(method, path, **headers)
        text = check_error(response, 401, "invalid_argument", "unauthenticated")
        answers.add((text, tuple(sorted(response.headers))))
    assert len(answers) == 1


def test_an_opened_dialect_acts_with_its_role_on_the_default_cluster(
    anonymous: Caller, alpha: object, settings: object
) -> None:
    settings.ANONYMOUS_ROLES = {"asyncjobs": "operator"}  # type: ignore[attr-defined]
    response = anonymous.get("v1/info")
    assert response.status_code == 200, (response.content, response.wsgi_request.headers)
    assert response.json()["auth"] == "none"
    task = anonymous.make()
    assert Job.objects.get(pk=task["id"]).enqueued_by == "anonymous:asyncjobs"
    check_error(
        anonymous.delete(f"v1/tasks/{task['id']}"), 403, "invalid_argument", "permission_denied"
    )
    beta = Caller(None, "/clusters/beta/asyncjobs")
    check_error(beta.get("v1/tasks"), 401, "invalid_argument", "unauthenticated")
    check_error(
        anonymous.get("v1/tasks", **{"x-api-key": "ym_x"}),
        401, "invalid_argument", "unauthenticated",
    )  # fmt: skip


def test_a_revoked_key_is_a_bad_one(make_key: Callable[..., str], alpha: object) -> None:
    key = make_key("admin", name="gone")
    assert Caller(key).get("v1/tasks").status_code == 200
    ApiKey.objects.filter(name="gone").revoke()
    check_error(Caller(key).get("v1/tasks"), 401, "invalid_argument", "unauthenticated")


def test_a_session_does_not_open_it(admin_client: object, db: None) -> None:
    response = admin_client.get("/v1/tasks")  # type: ignore[attr-defined]
    check_error(response, 401, "invalid_argument", "unauthenticated")


def test_methods_that_an_address_does_not_have(viewer: Caller) -> None:
    for method, path in (("PUT", "v1/tasks"), ("OPTIONS", "v1/tasks"), ("DELETE", "healthz")):
        response = viewer(method, path)
        check_error(response, 405, "invalid_argument", "method_not_allowed")
    assert viewer("PATCH", "v1/queues")["Allow"] == "GET, HEAD, POST"
    for path in ("v1/tasks", "healthz", "readyz", "v1/info"):
        assert viewer("HEAD", path).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "v1",
        "v1/nothing",
        "v1/tasks/x/y",
        "v1/tasks//",
        "v1/queues//purge",
        "asyncjobs",
        "asyncjobs/x",
    ],
)
def test_unknown_addresses_are_401_before_they_are_404(
    path: str, anonymous: Caller, viewer: Caller
) -> None:
    check_error(anonymous.get(path), 401, "invalid_argument", "unauthenticated")
    check_error(viewer.get(path), 404, "not_found")
    check_error(viewer.post(path, {}), 404, "not_found")


def test_a_dead_cluster_is_503_in_the_words_of_this_api(
    api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "is_down", lambda alias: True)
    response = api.get("v1/tasks")
    check_error(response, 503, "unavailable", "storage_not_ready")
    assert response["Retry-After"] == "5"
    assert set(api.get("v1/info").json()) == {"version", "auth"}
    assert api.get("v1/retry-policies").status_code == 200


def test_a_mistake_of_ours_tells_nothing(api: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("hush")

    monkeypatch.setattr("jobs.dialects.asyncjobs.views.tasks.enqueue", broken)
    response = api.post("v1/tasks", {"type": "a"})
    assert check_error(response, 500, "internal", "panic") == "internal server error"
    assert b"hush" not in response.content


def test_health_reads_no_credentials_and_names_no_cluster(
    db: None, monkeypatch: pytest.MonkeyPatch, make_key: Callable[..., str]
) -> None:
    nobody = Caller(None)
    for place in ("", "/asyncjobs", "/clusters/beta/asyncjobs", "/clusters/gamma/asyncjobs"):
        body = nobody.get(f"{place}/healthz/", **{"x-api-key": "not even read"}).json()
        assert set(body) == {"status", "time"}
    assert nobody.get("/readyz", **{"x-api-key": "x"}).status_code == 200
    # Whether there is such a cluster is not everybody's business.
    for cluster in ("beta", "gamma"):
        response = nobody.get(f"/clusters/{cluster}/asyncjobs/readyz")
        check_error(response, 401, "invalid_argument", "unauthenticated")
        response = Caller(make_key("viewer")).get(f"/clusters/{cluster}/asyncjobs/readyz")
        check_error(response, 404, "not_found")
    own = Caller(make_key("viewer")).get("/clusters/alpha/asyncjobs/readyz")
    assert own.json()["ready"] is True


@pytest.mark.parametrize(
    ("dead", "name", "error"),
    [
        ("cluster-alpha", "tasks", "tasks storage unreachable"),
        ("default", "config", "configuration storage unreachable"),
        ("cluster-beta", None, None),
    ],
)
def test_readiness_says_which_storage_is_down(
    dead: str, name: str | None, error: str, db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clusters.health._answers", lambda alias: alias != dead)
    response = Caller(None).get("readyz")
    checks = {"config": {"ok": True}, "tasks": {"ok": True}}
    if name:
        checks[name] = {"ok": False, "error": error}
    assert response.json() == {"ready": name is None, "checks": checks}
    assert response.status_code == (503 if name else 200)


def test_info_says_how_callers_are_known(api: Caller, settings: object) -> None:
    assert api.get("v1/info").json()["auth"] == "api_key"
    settings.CLIENT_CERTIFICATES = True  # type: ignore[attr-defined]
    assert api.get("v1/info").json()["auth"] == "mtls"


def test_info_estimates_what_takes_long_to_count(
    api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        api.make()
    assert api.get("v1/info").json()["task_count"] == 3
    monkeypatch.setattr("jobs.listing.COUNT_LIMIT", 2)
    assert isinstance(api.get("v1/info").json()["task_count"], int)
