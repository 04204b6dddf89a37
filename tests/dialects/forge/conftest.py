"""A client of the forge API, and what its refusals look like."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpResponse

from tests.dialects.caller import DialectCaller

FIXTURES = Path(__file__).parent / "fixtures"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z\Z")
KINDS = {
    "validation": {"kind", "field", "msg"},
    "not_found": {"kind", "msg"},
    "conflict": {"kind", "msg"},
    "rate_limited": {"kind", "retry_after_secs"},
    "storage": {"kind", "msg"},
    "internal": {"kind", "msg"},
}
_WORDS = re.compile(
    r"/(clusters/<str:cluster_id>/)?forge(/|\Z)|/(queue|cron|storage|metrics)(/|\Z)|/jobs/[a-z]"
)


def speaks(route: str) -> bool:
    """Whether a route, as it is written, is one of this API."""
    return _WORDS.match(route) is not None


class Caller(DialectCaller):
    def read(self, path: str) -> Any:
        response = self.get(path)
        assert response.status_code == 200, response.content
        return response.json()

    def do(self, path: str, body: Any = None) -> Any:
        """POST something that succeeds; None where the answer is empty."""
        response = self.post(path, body)
        assert response.status_code == 200, response.content
        return json.loads(response.content) if response.content else None

    def row(self, job: Any) -> dict[str, Any]:
        return self.read(f"jobs/inspect/{getattr(job, 'pk', job)}")["row"]

    def queue(self, name: str = "default") -> dict[str, Any]:
        (found,) = [one for one in self.read("queue/overview") if one["name"] == name]
        return found

    def listed(self, **words: Any) -> list[str]:
        """The ids of the jobs that a list shows."""
        page = self.do("jobs/list", {"filter": words, "limit": 500, "offset": 0})
        assert page["total"] == len(page["rows"])
        return [row["id"] for row in page["rows"]]


@pytest.fixture
def caller() -> type[Caller]:
    return Caller


def check_envelope(
    response: HttpResponse, status: int, kind: str, field: str | None = None
) -> dict[str, Any]:
    """Assert that a response is this refusal, and return its body."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/json"
    body: dict[str, Any] = json.loads(response.content)
    assert set(body) == KINDS[body["kind"]], body
    assert body["kind"] == kind, body
    if field is not None:
        assert body["field"] == field, body
    return body


def check_refusal(response: HttpResponse, status: int, code: str) -> None:
    """The same for tests of all surfaces: scrapers get text, all others the envelope."""
    if response["Content-Type"] == "text/plain; charset=utf-8":
        assert response.status_code == status
        assert response.content.decode().strip()
        return
    check_envelope(response, status, "validation", "authorization")


def fixture(name: str) -> Any:
    return json.loads((FIXTURES / f"{name}.json").read_text())
