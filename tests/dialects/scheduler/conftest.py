"""A client of the scheduler API, and jobs for it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpResponse

from tests.api.conftest import (  # noqa: F401  fixtures
    Api,
    _forget_health,
    admin_key,
    make_key,
    operator_key,
    viewer_key,
)
from tests.factories import make_node

BASE = "/api/v1/scheduler"
FIXTURES = Path(__file__).parent / "fixtures"
GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
MISSING = "0190a1b2-0000-7000-8000-000000000000"

CRON_JOB: dict[str, Any] = {
    "name": "nightly",
    "jobType": "CodeExecution",
    "scheduleType": "Cron",
    "scheduleExpression": "0 3 * * *",
    "jobConfiguration": {"handlerType": "demo:noop", "parameters": {"day": "{{Today}}"}},
}


class Caller(Api):
    """Calls the API as the holder of a key; paths are given from below its base."""

    def __init__(self, key: str | None, base: str = BASE) -> None:
        super().__init__(key)
        self.base = base

    def __call__(self, method: str, path: str, *args: Any, **headers: Any) -> HttpResponse:
        address = path if path.startswith("/") else f"{self.base}/{path}"
        raw = headers.pop("raw", None)
        body = args[0] if args else headers.pop("body", None)
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        content_type = given.pop("content-type", "application/json")
        return self.client.generic(
            method, address, content, content_type, headers={**self.headers, **given}
        )

    def put(self, path: str, body: Any = None, **headers: Any) -> HttpResponse:
        return self("PUT", path, body, **headers)

    def make(self, **members: Any) -> dict[str, Any]:
        """Create a job and return it."""
        response = self.post("jobs", {**CRON_JOB, **members})
        assert response.status_code == 201, response.content
        return response.json()

    def job(self, job_id: str) -> dict[str, Any]:
        response = self.get(f"jobs/{job_id}")
        assert response.status_code == 200, response.content
        return response.json()


@pytest.fixture
def handlers(alpha: object) -> None:
    """A node that lives and has the handler of the tests' jobs."""
    make_node(types=["demo:noop", "Acme.CleanUp/Run"])


@pytest.fixture
def api(handlers: None, operator_key: str) -> Caller:  # noqa: F811
    return Caller(operator_key)


@pytest.fixture
def viewer(viewer_key: str) -> Caller:  # noqa: F811
    return Caller(viewer_key)


@pytest.fixture
def admin(handlers: None, admin_key: str) -> Caller:  # noqa: F811
    return Caller(admin_key)


@pytest.fixture
def anonymous(db: None) -> Caller:
    return Caller(None)


def check_problem(
    response: HttpResponse, status: int, code: str, *fields: str, title: str | None = None
) -> dict[str, Any]:
    """Assert that a response is this problem, with these fields in it, and return its body."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/problem+json"
    assert response["api-supported-versions"] == "1.0"
    body: dict[str, Any] = response.json()
    known = {"type", "title", "status", "detail", "instance", "code", "traceId", "errors"}
    assert known - {"errors"} <= set(body) <= known
    assert body["status"] == status
    assert body["code"] == code, body
    assert body["traceId"] == response["X-Request-ID"]
    assert body["instance"] == response.wsgi_request.path
    assert set(fields) <= set(body.get("errors", {})), body
    if title is not None:
        assert body["title"] == title
    return body


def fixture(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_text())


TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z\Z")


def matches(wanted: Any, found: Any, path: str = "$") -> None:
    """Compare whole values, where <guid>, <time> and <count> stand for any of their kind."""
    if wanted == "<guid>":
        assert isinstance(found, str) and GUID.match(found), path
    elif wanted == "<time>":
        assert isinstance(found, str) and TIME.match(found), path
    elif wanted == "<count>":
        assert type(found) is int and found >= 0, path
    elif isinstance(wanted, dict):
        assert isinstance(found, dict) and set(wanted) == set(found), (path, found)
        for key in wanted:
            matches(wanted[key], found[key], f"{path}.{key}")
    elif isinstance(wanted, list):
        assert isinstance(found, list) and len(wanted) == len(found), (path, found)
        for index, item in enumerate(wanted):
            matches(item, found[index], f"{path}[{index}]")
    else:
        assert wanted == found and type(wanted) is type(found), (path, wanted, found)
