"""A client of the scheduler API, and jobs for it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpResponse

from tests.dialects.caller import DialectCaller
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


class Caller(DialectCaller):
    BASE = BASE

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
def caller() -> type[Caller]:
    return Caller


@pytest.fixture
def ready(alpha: object) -> None:
    """A node that lives and has the handler of the tests' jobs."""
    make_node(types=["demo:noop", "Acme.CleanUp/Run"])


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
