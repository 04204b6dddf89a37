"""A client of the Tork API, and what its answers look like."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from django.http import HttpResponse

from tests.api.conftest import (  # noqa: F401  fixtures
    Api,
    _forget_health,
    admin_key,
    make_key,
    viewer_key,
)

ID = re.compile(r"[0-9a-f]{32}\Z")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z\Z")
_WORDS = re.compile(
    r"/(clusters/<str:cluster_id>/)?tork(/|\Z)|/(jobs|nodes|queues|scheduled-jobs|tasks|health)(/|\Z)"
)
_FORGE = re.compile(r"/jobs/[a-z]")
GRANTS = ("shell", "container")


def speaks(route: str) -> bool:
    """Whether a route, as it is written, is one of this API; forge has words below `/jobs`."""
    return _WORDS.match(route) is not None and _FORGE.match(route) is None


class Caller(Api):
    """Calls the API as the holder of a key; paths are given from below its base."""

    def __init__(self, key: str | None, base: str = "") -> None:
        super().__init__(key)
        self.base = base

    def __call__(self, method: str, path: str, *args: Any, **headers: Any) -> HttpResponse:
        raw = headers.pop("raw", None)
        body = args[0] if args else headers.pop("body", None)
        content = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        content_type = given.pop("content-type", "application/json")
        return self.client.generic(
            method,
            f"{self.base}/{path}",
            content,
            content_type,
            # Django's client says nothing of the type of an empty body.
            headers={**self.headers, "Content-Type": content_type, **given},
        )

    def read(self, path: str) -> Any:
        return checked(self.get(path))

    def submit(self, **document: Any) -> dict[str, Any]:
        """Submit a job that is accepted."""
        found: dict[str, Any] = checked(self.post("jobs", {"name": "one", **document}))
        return found

    def yaml(self, text: str, path: str = "jobs") -> HttpResponse:
        return self.post(path, raw=text.encode(), content_type="text/yaml")

    def job(self, job_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.read(f"jobs/{job_id}")
        return found

    def listed(self, query: str = "") -> list[str]:
        """The names of the jobs that a list shows."""
        return [one["name"] for one in self.read(f"jobs?size=20&{query}")["items"]]


def checked(response: HttpResponse) -> Any:
    """The body of an answer that is as all of them are."""
    assert response.status_code == 200, response.content
    assert response["Content-Type"] == "application/json"
    assert response.content.endswith(b"\n")
    return json.loads(response.content)


def check_message(response: HttpResponse, status: int, message: str | None = None) -> str:
    """Assert that a response is this refusal, and return what it says."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/json"
    assert response.content.endswith(b"\n")
    body = json.loads(response.content)
    assert set(body) == {"message"}
    if message is not None:
        assert body["message"] == message
    told: str = body["message"]
    return told


def check_refusal(response: HttpResponse, status: int, code: str) -> None:
    """The same for tests of all surfaces."""
    assert status == 401
    check_message(response, 401, "Unauthorized")


@pytest.fixture
def operator_key(make_key: Callable[..., str]) -> str:  # noqa: F811
    return make_key("operator", grants=GRANTS)


@pytest.fixture
def api(alpha: object, operator_key: str) -> Caller:
    return Caller(operator_key)


@pytest.fixture
def viewer(alpha: object, viewer_key: str) -> Caller:  # noqa: F811
    return Caller(viewer_key)


@pytest.fixture
def admin(alpha: object, make_key: Callable[..., str]) -> Caller:  # noqa: F811
    return Caller(make_key("admin", grants=GRANTS))


@pytest.fixture
def anonymous(db: None) -> Caller:
    return Caller(None)


def task(name: str = "t", **more: Any) -> dict[str, Any]:
    return {"name": name, "run": f"echo {name}", **more}
