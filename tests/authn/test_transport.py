"""YARDMASTER_REQUIRE_TLS: credentials in the clear are refused, whatever they are worth."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from django.conf import settings as configured
from django.test import Client

from authn.addresses import read_networks
from authn.checks import credentials_need_tls, tls_is_said_where_it_is_required
from authn.keys import create_key
from authn.models import AccessAuditEntry, ApiKey
from tests.api.conftest import Api, check_problem

pytestmark = pytest.mark.usefixtures("alpha")
HTTPS = {"wsgi.url_scheme": "https"}


@pytest.fixture(autouse=True)
def _required(settings: Any) -> None:
    settings.REQUIRE_TLS = True


@pytest.fixture
def key() -> str:
    return create_key("ci", "operator", ["*"])[1]


def get(path: str, *, secure: bool = False, **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Client().get(path, headers=named, secure=secure)


def test_a_credential_in_the_clear_is_refused_before_it_is_looked_at(key: str) -> None:
    for text in (key, "ym_wrong"):
        problem = check_problem(get("/jm-api/whoami", x_api_key=text), 403, "tls_required")
        assert "HTTPS" in problem["detail"]
    assert ApiKey.objects.get().last_used_at is None
    assert not AccessAuditEntry.objects.filter(verb="credentials.refuse").exists()
    assert get("/jm-api/whoami", secure=True, x_api_key=key).status_code == 200
    assert get("/jm-api/whoami", secure=True, x_api_key="x").status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": "Basic " + base64.b64encode(b"a:b").decode()},
        {"authorization": "Bearer a.b.c"},
        {"authorization": "Nonsense"},
        {"X_User_Name": "a", "X_Password": "b"},
    ],
)
def test_every_mechanism_is_held_to_it(headers: dict[str, str]) -> None:
    assert get("/jm-api/whoami", **headers).status_code == 403
    assert get("/jm-api/whoami", secure=True, **headers).status_code == 401


@pytest.mark.parametrize(
    "path", ["/v1/tasks", "/tork/jobs", "/forge/jobs/kinds", "/api/v1/scheduler/jobs"]
)
def test_dialects_refuse_it_in_their_words(path: str, key: str) -> None:
    plain, forbidden = get(path, x_api_key=key), get(path, secure=True, x_api_key=key)
    assert (plain.status_code, forbidden.status_code) == (403, 200)
    assert plain["Content-Type"].startswith("application/")


def test_a_password_in_a_body_is_one_too(django_user_model: Any) -> None:
    django_user_model.objects.create_user("ann", password="right")
    body = {"username": "ann", "password": "right"}
    check_problem(Api(None).post("token", body), 403, "tls_required")
    secure = Client().post("/jm-api/token", body, "application/json", secure=True)
    assert secure.status_code == 200


def test_pages_are_not_shown_and_no_form_is_taken(admin_client: Any) -> None:
    for method, path in (("get", "/admin/"), ("post", "/admin/login/"), ("get", "/admin/alpha/")):
        answer = getattr(admin_client, method)(path)
        assert answer.status_code == 403 and b"HTTPS" in answer.content
    assert admin_client.get("/admin/", secure=True).status_code == 200
    # A session reads the documentation; in the clear it does not.
    assert admin_client.get("/jm-api/openapi.json").status_code == 403
    assert admin_client.get("/jm-api/openapi.json", secure=True).status_code == 200


@pytest.mark.parametrize(
    "path", ["/livez", "/jm-api/readyz", "/healthz", "/readyz", "/tork/health", "/forge/health"]
)
def test_health_stays_open(path: str) -> None:
    assert get(path).status_code == 200
    assert get(path, x_api_key="whatever").status_code == 200


def test_who_says_nothing_is_asked_who_he_is() -> None:
    check_problem(get("/jm-api/whoami"), 401, "not_authenticated")


def test_a_trusted_proxy_tells_how_a_request_came(key: str, settings: Any) -> None:
    said = {"x_api_key": key, "X_Forwarded_Proto": "https"}
    assert get("/jm-api/whoami", **said).status_code == 403
    settings.TRUSTED_PROXIES = read_networks(["127.0.0.1"])
    assert get("/jm-api/whoami", **said).status_code == 200
    assert get("/jm-api/whoami", **said, X_Forwarded_For="192.0.2.1").status_code == 200
    for proto in ("http", "https, http", "http,https", "HTTPS", ""):
        answer = get("/jm-api/whoami", **{**said, "X_Forwarded_Proto": proto})
        assert answer.status_code == 403, proto
    settings.TRUSTED_PROXIES = read_networks(["192.0.2.0/24"])
    # The client says so himself, and that the proxy is where he comes from.
    spoofed = get("/jm-api/whoami", **said, X_Forwarded_For="192.0.2.7")
    assert spoofed.status_code == 403


def test_off_is_as_before(key: str, settings: Any) -> None:
    settings.REQUIRE_TLS = False
    assert get("/jm-api/whoami", x_api_key=key).status_code == 200


def test_checks_tell_of_halves(settings: Any) -> None:
    for required, tls in ((False, False), (False, True), (True, False), (True, True)):
        settings.REQUIRE_TLS, settings.USE_TLS = required, tls
        found = tls_is_said_where_it_is_required(None) + credentials_need_tls(None)
        wanted = ["authn.W001"] if required and not tls else [] if required else ["authn.W002"]
        assert [message.id for message in found] == wanted
    assert configured.REQUIRE_TLS


def test_what_came_to_a_proxy_in_the_clear_is_not_made_safe_by_tls_behind_it(
    key: str, settings: Any
) -> None:
    settings.TRUSTED_PROXIES = read_networks(["127.0.0.1"])
    answer = get("/jm-api/whoami", secure=True, x_api_key=key, X_Forwarded_Proto="http")
    assert answer.status_code == 403
