"""What the original's own tests show, as whole requests and whole replies.

``{task}`` and the like in a fixture are ids of what an earlier request of the same story made.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.dialects.asyncjobs.conftest import FIXTURES, Caller, matches

STORIES = sorted(path.stem for path in FIXTURES.glob("*.json"))


def test_there_are_stories() -> None:
    assert len(STORIES) >= 7


@pytest.mark.parametrize("story", STORIES)
def test_the_examples_work_as_recorded(story: str, admin: Caller) -> None:
    known: dict[str, str] = {}

    def filled(value: Any) -> Any:
        text = json.dumps(value)
        for name, guid in known.items():
            text = text.replace(f"{{{name}}}", guid)
        return json.loads(text)

    for step in json.loads((FIXTURES / f"{story}.json").read_text()):
        request, reply = filled(step["request"]), filled(step["reply"])
        headers = request.get("headers", {})
        response = admin(request["method"], request["path"], request.get("body"), **headers)
        assert response.status_code == reply["status"], (request, response.content)
        content = response.getvalue() if response.streaming else response.content
        assert b"stream_info" not in content and b"consumer_info" not in content
        if "lines" in reply:
            found: Any = [json.loads(line) for line in content.splitlines()]
            reply["body"] = reply.pop("lines")
        else:
            found = json.loads(content) if content else None
        if "keeps" in step:
            known[step["keeps"]] = found["id"]
            reply = filled(reply)
        for name, value in reply.get("headers", {}).items():
            assert response[name] == value, name
        matches(reply.get("body"), found, f"{story} {request['path']} $")


def test_the_document_is_served(viewer: Caller) -> None:
    body = viewer.get("v1/openapi.json").json()
    assert body["openapi"] == "3.0.3" and body["paths"]
