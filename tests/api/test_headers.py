"""Headers of answers, and the request id."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpResponse

from tests.api.conftest import Api
from tests.processes import manage

API_PATHS = ["whoami", "alpha/jobs", "alpha/jobs/x", "nowhere", "openapi.json"]


@pytest.mark.once
@pytest.mark.parametrize("path", API_PATHS)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "TRACE"])
def test_an_answer_of_the_api_is_nothing_to_a_browser(
    method: str, path: str, alpha: object, viewer: Api, anonymous: Api
) -> None:
    for api in (viewer, anonymous):
        response = api(method, path)
        assert response["Content-Security-Policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert response["X-Content-Type-Options"] == "nosniff"
        assert response["Referrer-Policy"] == "no-referrer"
        assert response["Cache-Control"] == "private, no-cache"
        assert "Server" not in response
        assert "Set-Cookie" not in response
        assert not response.cookies
        assert not [name for name in response.headers if name.startswith("Access-Control")]


def test_pages_allow_their_own_files_and_no_inline_script(client: Any, db: None) -> None:
    for path in ("/admin/login/", "/jm-api/swagger", "/jm-api/swagger/"):
        response = client.get(path)
        policy = dict(
            part.strip().partition(" ")[::2]
            for part in response["Content-Security-Policy"].split(";")
        )
        assert policy["default-src"] == "'self'"
        # The theme of the admin works out expressions that stand in its pages.
        is_admin = path.startswith("/admin/")
        assert policy.get("script-src") == ("'self' 'unsafe-eval'" if is_admin else None)
        assert policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["form-action"] == "'self'"
        assert response["X-Content-Type-Options"] == "nosniff"
        assert response["X-Frame-Options"] == "DENY"
        assert response["Cross-Origin-Opener-Policy"] == "same-origin"
        assert "no-cache" in response["Cache-Control"]


@pytest.mark.parametrize("given", ["a", "A-b_c.9", "x" * 128])
def test_a_sound_request_id_is_echoed(given: str, viewer: Api) -> None:
    assert viewer.get("whoami", x_request_id=given)["X-Request-ID"] == given


@pytest.mark.parametrize(
    "given", ["", "a b", "x" * 129, "a\nb", "é", '{"a":1}', "a\r\nSet-Cookie: x"]
)
def test_any_other_request_id_is_replaced(given: str, viewer: Api) -> None:
    response = viewer.get("whoami", x_request_id=given)
    assert response.status_code == 200
    assert response["X-Request-ID"] != given
    assert len(response["X-Request-ID"]) == 36


def test_log_lines_carry_the_request_id(
    alpha: object, viewer: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    import structlog

    from jobs.api.views import JobViewSet

    seen: dict[str, Any] = {}

    def handler(self: Any, request: Any, cluster_id: str) -> Any:
        seen.update(structlog.contextvars.get_contextvars())
        raise RuntimeError

    monkeypatch.setattr(JobViewSet, "list", handler)
    response = viewer.get("alpha/jobs", x_request_id="abc")
    assert seen == {"request_id": "abc"}
    assert response.json()["request_id"] == "abc"
    assert structlog.contextvars.get_contextvars() == {}


def test_under_tls_browsers_are_told_to_come_back_by_it(viewer: Api) -> None:
    from django.middleware.security import SecurityMiddleware
    from django.test import RequestFactory, override_settings

    request = RequestFactory().get("/jm-api/whoami", secure=True)
    with override_settings(SECURE_HSTS_SECONDS=31_536_000):
        answer = SecurityMiddleware(lambda request: HttpResponse())(request)
    assert answer["Strict-Transport-Security"] == "max-age=31536000"


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "a b", "x" * 300])
def test_a_host_that_is_not_ours_is_answered_nothing(
    host: str, viewer: Api, anonymous: Api
) -> None:
    for api in (viewer, anonymous):
        for path in ("whoami", "openapi.json", "nowhere"):
            response = api.get(path, host=host)
            assert response.status_code == 400
            assert host not in response.content.decode()
            assert response["Content-Security-Policy"].startswith("default-src 'none'")


@pytest.mark.once
def test_the_checks_of_a_deployment_have_nothing_to_say(tmp_path: Path) -> None:
    said = manage(
        "check",
        "--deploy",
        "--fail-level",
        "WARNING",
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith("YARDMASTER_")},
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "YARDMASTER_HOME": str(tmp_path),
            "YARDMASTER_TLS": "yes",
            "YARDMASTER_REQUIRE_TLS": "yes",
            "YARDMASTER_SECRET_KEY": "checked-and-thrown-away-0123456789-abcdefghijklmnopqrstuvwxyz",
        },
    )
    assert said.returncode == 0, said.stderr
