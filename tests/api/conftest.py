"""A client that speaks JSON, and one key per role."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.http import HttpResponse
from django.test import Client

from authn.keys import create_key
from clusters.health import watch

BASE = settings.BASE_PATH
# Loads the middleware once: WhiteNoise looks at every static file when it starts.
_client = Client(raise_request_exception=False)


class Api:
    """Calls the native API as the holder of a key; paths are given from below its base."""

    def __init__(self, key: str | None) -> None:
        self.client = _client
        self.headers = {} if key is None else {"x-api-key": key}

    def __call__(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, **headers: str
    ) -> HttpResponse:
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        content_type = given.pop("content-type", "application/json")
        address = path if path.startswith(BASE) else f"{BASE}/{path}"
        return self.client.generic(
            method, address, content, content_type, headers={**self.headers, **given}
        )

    def get(self, path: str, **headers: str) -> HttpResponse:
        return self("GET", path, **headers)

    def post(self, path: str, body: Any = None, **headers: Any) -> HttpResponse:
        return self("POST", path, body, **headers)

    def patch(self, path: str, body: Any = None, **headers: Any) -> HttpResponse:
        return self("PATCH", path, body, **headers)

    def put(self, path: str, body: Any = None, **headers: Any) -> HttpResponse:
        return self("PUT", path, body, **headers)

    def delete(self, path: str, **headers: Any) -> HttpResponse:
        return self("DELETE", path, **headers)


@pytest.fixture(autouse=True)
def _forget_health() -> None:
    watch.forget()


@pytest.fixture
def make_key(db: None) -> Callable[..., str]:
    """Make a key and return its text."""
    made = 0

    def make(role: str, *clusters: str, grants: tuple[str, ...] = (), **columns: Any) -> str:
        nonlocal made
        made += 1
        _, plain = create_key(
            columns.pop("name", f"{role}-{made}"), role, clusters or ("alpha",), grants, **columns
        )
        return plain

    return make


@pytest.fixture
def viewer_key(make_key: Callable[..., str]) -> str:
    return make_key("viewer")


@pytest.fixture
def operator_key(make_key: Callable[..., str]) -> str:
    return make_key("operator")


@pytest.fixture
def admin_key(make_key: Callable[..., str]) -> str:
    return make_key("admin")


@pytest.fixture
def anonymous() -> Api:
    return Api(None)


@pytest.fixture
def viewer(viewer_key: str) -> Api:
    return Api(viewer_key)


@pytest.fixture
def api(operator_key: str) -> Api:
    """The API as an operator of the cluster `alpha` sees it."""
    return Api(operator_key)


@pytest.fixture
def admin(admin_key: str) -> Api:
    return Api(admin_key)


def check_problem(response: HttpResponse, status: int, code: str) -> dict[str, Any]:
    """Assert that a response is this problem, and return its body."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert set(body) == {"type", "title", "status", "code", "detail", "request_id", "errors"}
    assert body["status"] == status
    assert body["code"] == code, body
    assert body["request_id"] == response["X-Request-ID"]
    return body


def fields(response: HttpResponse) -> list[str]:
    """The fields that a 400 complains of."""
    return [error["field"] for error in check_problem(response, 400, "invalid")["errors"]]
