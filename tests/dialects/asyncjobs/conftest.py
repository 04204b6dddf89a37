"""A client of the asyncjobs API, whose every answer is held against the API's own document."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from django.http import HttpResponse

from jobs.dialects.asyncjobs.openapi import as_dict
from tests.dialects.caller import DialectCaller

FIXTURES = Path(__file__).parent / "fixtures"
MISSING = "0190a1b2-0000-7000-8000-000000000000"
UUID_TEXT = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\Z")
# Prefixes of all places where the API answers.
_PLACE = re.compile(r"(?:/clusters/[^/]+)?(?:/asyncjobs)?(?=/(?:v1|healthz|readyz)\b)")


class Caller(DialectCaller):
    """Holds every answer against the API's own document."""

    def check(self, method: str, address: str, response: HttpResponse) -> None:
        check_against_document(method, address, response)

    def make(self, **members: Any) -> dict[str, Any]:
        """Create a task and return it."""
        response = self.post("v1/tasks", {"type": "email:new", **members})
        assert response.status_code == 201, response.content
        return response.json()

    def task(self, task_id: str) -> dict[str, Any]:
        response = self.get(f"v1/tasks/{task_id}")
        assert response.status_code == 200, response.content
        return response.json()

    def listed(self, query: str = "") -> list[dict[str, Any]]:
        response = self.get(f"v1/tasks{query}")
        assert response.status_code == 200, response.content
        body = response.json()
        assert body["count"] == len(body["tasks"])
        return body["tasks"]


@cache
def document() -> dict[str, Any]:
    return as_dict()


def operation(method: str, address: str) -> dict[str, Any] | None:
    """What the document says of a request; None where it says nothing."""
    path = _PLACE.sub("", address.split("?")[0].removesuffix("/"), count=1)
    paths = document()["paths"]
    found = paths.get(path)
    if found is None:
        for pattern, item in paths.items():
            if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", pattern), path):
                found = item
                break
    return None if found is None else found.get(method.lower())


def check_against_document(method: str, address: str, response: HttpResponse) -> None:
    """Assert that the document tells of this status, and that the body is as it says."""
    if method == "HEAD" or response.streaming:
        return
    told = operation(method, address)
    if told is None:
        return
    answer = told["responses"].get(str(response.status_code))
    # What any address may answer is in the default: 405, 500 and the like.
    if answer is None:
        assert response.status_code in (400, 405, 411, 413, 415, 500, 503), response.content
        answer = told["responses"]["default"]
    if "$ref" in answer:
        answer = document()["components"]["responses"][answer["$ref"].rsplit("/", 1)[1]]
    if "content" not in answer:
        assert not response.content, (method, address, response.content)
        return
    assert response["Content-Type"] == "application/json; charset=utf-8"
    schema = _json_schema(answer["content"]["application/json"]["schema"])
    jsonschema.Draft4Validator(schema).validate(response.json())


def _json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of OpenAPI 3.0 as JSON Schema, with all that it refers to."""

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(item) for item in value]
        if not isinstance(value, dict):
            return value
        return {
            key: plain(item) for key, item in value.items() if key not in ("nullable", "example")
        }

    return {**plain(schema), "components": plain(document()["components"])}


@pytest.fixture
def caller() -> type[Caller]:
    return Caller


def check_error(
    response: HttpResponse,
    status: int,
    code: str,
    reason: str | None = None,
    field: str | None = None,
) -> str:
    """Assert that a response is this refusal, and return its message."""
    assert response.status_code == status, response.content
    assert response["Content-Type"] == "application/json; charset=utf-8"
    body = response.json()
    assert set(body) == {"error"}
    error = body["error"]
    details = {"reason": reason, "field": field}
    wanted = {name: value for name, value in details.items() if value is not None}
    assert (error["code"], error.get("details", {})) == (code, wanted), body
    assert ("details" in error) is bool(wanted)
    assert isinstance(error["message"], str) and error["message"]
    return error["message"]


def matches(wanted: Any, found: Any, path: str = "$") -> None:
    """Compare whole values, where <uuid>, <time>, <text> and <count> stand for any of their kind."""
    if wanted == "<uuid>":
        assert isinstance(found, str) and UUID_TEXT.match(found), (path, found)
    elif wanted == "<time>":
        assert isinstance(found, str) and TIME.match(found), (path, found)
    elif wanted == "<text>":
        assert isinstance(found, str) and found, (path, found)
    elif wanted == "<count>":
        assert type(found) is int and found >= 0, (path, found)
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
