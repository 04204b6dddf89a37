"""The document of this API: sound, and a source for generators of clients."""

from __future__ import annotations

import json
import re
from typing import Any

from openapi_spec_validator import validate

from jobs.dialects.asyncjobs.openapi import as_dict
from jobs.dialects.asyncjobs.wire import queues, schedules, tasks
from jobs.dialects.asyncjobs.wire.states import SORTS
from tests.dialects.asyncjobs.conftest import Caller

CODES = {
    "invalid_argument", "not_found", "conflict", "duplicate", "rate_limited", "payload_too_large",
    "unavailable", "signature_required", "signature_invalid", "dependency_failed", "internal",
}  # fmt: skip


def everything(value: Any) -> Any:
    yield value
    for item in (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from everything(item)


def test_the_document_is_sound_and_of_its_version(viewer: Caller) -> None:
    served = viewer.get("v1/openapi.json")
    assert served["Content-Type"] == "application/json; charset=utf-8"
    document = json.loads(served.content)
    validate(document)
    assert document["openapi"] == "3.0.3" and document["info"]["version"] == "1.0.0"
    for value in everything(document["components"]["schemas"]):
        if isinstance(value, dict):
            # What only 3.1 has.
            assert not isinstance(value.get("type"), list)
            assert not {"const", "examples", "$defs"} & value.keys()


def test_whatever_is_referred_to_is_there() -> None:
    document = as_dict()
    found = set()
    for value in everything(document):
        if isinstance(value, dict) and isinstance(target := value.get("$ref"), str):
            node: Any = document
            for part in target.removeprefix("#/").split("/"):
                node = node[part]
            found.add(target)
    for section in ("schemas", "responses", "parameters", "headers"):
        for name in document["components"][section]:
            assert f"#/components/{section}/{name}" in found, name


def test_the_document_tells_of_what_the_code_takes() -> None:
    schemas = as_dict()["components"]["schemas"]
    assert set(schemas["ErrorBody"]["properties"]["code"]["enum"]) == CODES
    assert set(schemas["TaskState"]["enum"]) == set(SORTS)
    for name, fields in (
        ("CreateTaskRequest", tasks.FIELDS),
        ("CreateQueueRequest", queues.FIELDS),
        ("CreateScheduleRequest", schedules.FIELDS),
    ):
        assert set(schemas[name]["properties"]) == fields
        assert schemas[name]["additionalProperties"] is False


def test_every_operation_tells_of_every_refusal_that_all_have() -> None:
    for path, item in as_dict()["paths"].items():
        for method, operation in item.items():
            if method == "parameters":
                continue
            answers = set(operation["responses"])
            assert "default" in answers
            if path.startswith("/v1"):
                assert {"401", "403"} <= answers, path
            assert ("404" in answers) or not re.search(r"\{", path), path
            assert ("413" in answers) == ("requestBody" in operation), path
