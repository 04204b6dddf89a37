"""Who may do what, route by route."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.test import override_settings

from authn.models import Role
from clusters import health
from clusters.health import watch
from jobs.dialects.forge.urls import urlpatterns
from jobs.models import Job, Queue, Schedule
from tests.api.routes import MISSING_ID
from tests.api.test_credentials import bad_credentials
from tests.dialects.forge.addresses import ENDPOINTS
from tests.dialects.forge.conftest import Caller, check_envelope, check_refusal

# Rights are the program's, not the database's.
pytestmark = pytest.mark.once

RANKS = [role.value for role in Role]
FILLED = {
    "queue/<str:name>/": "queue/default/",
    "cron/<path:name>/": "cron/nightly/",
    "<str:job_id>": MISSING_ID,
}


def test_every_route_is_in_the_table() -> None:
    served = set()
    for route in urlpatterns:
        path = str(route.pattern)
        for written, meant in FILLED.items():
            path = path.replace(written, meant)
        for method in getattr(route.callback, "actions", {}):
            if method != "head":
                served.add((method.upper(), path))
    known = {(method, path.partition("?")[0]) for method, path, _, _ in ENDPOINTS}
    assert served == known
    assert len(ENDPOINTS) == 34  # and /health, which is open


@pytest.mark.parametrize("role", RANKS)
@pytest.mark.parametrize(("method", "path", "least", "body"), ENDPOINTS)
def test_a_route_needs_its_role(
    method: str,
    path: str,
    least: str,
    body: Any,
    role: str,
    make_key: Callable[..., str],
    alpha: object,
) -> None:
    before = list(Queue.objects.values())
    response = Caller(make_key(role))(method, path, body)
    if RANKS.index(role) >= RANKS.index(least):
        assert response.status_code in (200, 404), response.content
        return
    assert response.status_code == 403
    if path != "metrics":
        check_envelope(response, 403, "validation", "authorization")
    assert not Schedule.objects.exists()
    assert not Job.objects.exists()
    assert list(Queue.objects.values()) == before


@pytest.mark.parametrize(("method", "path", "least", "body"), ENDPOINTS)
def test_nobody_gets_anywhere_without_good_credentials(
    method: str, path: str, least: str, body: Any, anonymous: Caller, make_key: Callable[..., str]
) -> None:
    response = anonymous(method, path, raw=b"[" * 100)
    check_refusal(response, 401, "not_authenticated")
    assert response["WWW-Authenticate"] == "Bearer"
    answers = set()
    for headers in bad_credentials(make_key("admin")):
        response = anonymous(method, path, **headers)
        check_refusal(response, 401, "invalid_credentials")
        answers.add((response.content, tuple(sorted(response.headers))))
    assert len(answers) == 1


def test_scrapers_read_refusals_as_text(anonymous: Caller) -> None:
    response = anonymous.get("metrics")
    assert response.status_code == 401
    assert response["Content-Type"] == "text/plain; charset=utf-8"
    assert response.content == b"Give an API key.\n"


def test_it_may_be_opened_to_callers_without_credentials(anonymous: Caller, alpha: object) -> None:
    with override_settings(ANONYMOUS_ROLES={"forge": "viewer"}):
        assert anonymous.get("queue/overview").status_code == 200
        check_envelope(anonymous.post("jobs/enqueue-demo", {}), 403, "validation", "authorization")


def test_methods_that_an_address_does_not_have(viewer: Caller) -> None:
    response = viewer("PATCH", "queue/overview")
    check_envelope(response, 405, "validation", "method")
    assert response["Allow"] == "GET, HEAD"
    check_envelope(viewer.get("jobs/list"), 405, "validation", "method")
    assert viewer("HEAD", "queue/overview").status_code == 200


@pytest.mark.parametrize(
    "path", ["queue", "queue/x", "cron/x/y", "storage", "storage/x", "metrics/x"]
)
def test_unknown_addresses_are_401_before_they_are_404(
    path: str, anonymous: Caller, viewer: Caller
) -> None:
    check_envelope(anonymous.get(path), 401, "validation", "authorization")
    check_envelope(viewer.get(path), 404, "not_found")


@pytest.mark.parametrize("base", ["", "/forge", "/clusters/beta/forge"])
def test_a_database_that_does_not_answer_is_told_without_its_words(
    base: str, make_key: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "_answers", lambda alias: False)
    watch.report_down("cluster-alpha")
    watch.report_down("cluster-beta")
    response = Caller(make_key("viewer", "*"), base).get("queue/overview")
    assert check_envelope(response, 503, "storage")["msg"] == "storage backend error"
    assert int(response["Retry-After"]) > 0


def test_health_is_open_and_says_nothing(anonymous: Caller) -> None:
    for path in ("forge/health", "clusters/beta/forge/health", "clusters/none/forge/health"):
        response = anonymous.get(path)
        assert (response.status_code, response.content) == (200, b"ok")
        assert response["Content-Type"].startswith("text/plain")


def test_too_many_values_and_bytes_are_refused(api: Caller) -> None:
    large = json.dumps({"kind": "x" * 600_000}).encode()
    check_envelope(api.post("jobs/enqueue", raw=large), 413, "validation", "json")
    check_envelope(
        api.post("jobs/enqueue", raw=b"{}", content_type="text/plain"),
        415, "validation", "Content-Type",
    )  # fmt: skip
