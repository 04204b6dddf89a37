"""The examples of the reference, as they are printed there: whole requests and whole replies.

``{job}`` and the like in a fixture are ids of what an earlier request of the same story made.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.dialects.scheduler.conftest import FIXTURES, Caller, matches

STORIES = sorted(path.stem for path in FIXTURES.glob("*.json"))


def test_there_are_stories() -> None:
    assert len(STORIES) >= 6


@pytest.mark.parametrize("story", STORIES)
def test_the_examples_work_as_printed(story: str, admin: Caller) -> None:
    known: dict[str, str] = {}

    def filled(value: Any) -> Any:
        text = json.dumps(value)
        for name, guid in known.items():
            text = text.replace(f"{{{name}}}", guid)
        return json.loads(text)

    for step in json.loads((FIXTURES / f"{story}.json").read_text()):
        request, reply = filled(step["request"]), filled(step["reply"])
        response = admin(request["method"], request["path"], request.get("body"))
        assert response.status_code == reply["status"], (request, response.content)
        body = json.loads(response.content) if response.content else None
        if "keeps" in step:
            known[step["keeps"]] = body if isinstance(body, str) else body["id"]
            reply = filled(reply)
        for name, value in reply.get("headers", {}).items():
            assert response[name] == value, name
        assert response["api-supported-versions"] == "1.0"
        matches(reply.get("body"), body, f"{story} {request['path']} $")
