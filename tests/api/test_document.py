"""The native document: whole, true of every operation, and kept in the repository."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from django.core.management import call_command

from clusters.api.schema import ABOUT, ALWAYS, BODY
from jobs.api.body_examples import BODY_EXAMPLES
from jobs.api.document import TAGS, security
from jobs.api.documentation import native_document, native_document_text
from jobs.api.problem_examples import EXAMPLES
from tests.api.conftest import Api, check_problem

KEPT = Path(__file__).resolve().parents[2] / "openapi.json"
WAYS = [{"ApiKey": []}, {"Bearer": []}, {"UserName": [], "Password": []}, {"Basic": []}]


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in native_document()["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def strict(schema: Any) -> Any:
    """A schema of OpenAPI 3.0 as JSON Schema has it."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: strict(part) for name, part in schema.items() if name != "nullable"}
    return {"anyOf": [made, {"type": "null"}]} if schema.get("nullable") is True else made


def check(value: Any, schema: Any) -> None:
    document = strict({"components": native_document()["components"]})
    jsonschema.Draft7Validator({**document, "allOf": [strict(schema)]}).validate(value)


def test_the_repository_has_it_as_it_is() -> None:
    assert KEPT.read_text() == native_document_text(), "run `make openapi` and commit the result"


def test_the_command_prints_what_the_repository_has(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("openapi")
    assert capsys.readouterr().out == KEPT.read_text()


def test_a_server_gives_out_the_same_and_the_clusters(viewer: Api) -> None:
    given = viewer.get("openapi.json").json()
    assert given["info"].pop("x-jobmaster-clusters") == ["alpha"]
    assert given.pop("x-jobmaster-clusters") == ["alpha"]
    assert given == json.loads(KEPT.read_text())
    assert given["info"]["x-jobmaster-doc"] == "jobmaster"


def test_each_operation_has_an_id_a_summary_and_a_known_tag() -> None:
    seen = set()
    for path, method, operation in operations():
        name = operation["operationId"]
        assert re.fullmatch(r"[a-z]+(_[a-z]+)*", name), name
        assert name not in seen
        seen.add(name)
        assert operation["summary"], name
        assert len(operation["tags"]) == 1 and operation["tags"][0] in TAGS, (method, path)
    told = {tag["name"] for tag in native_document()["tags"]}
    assert told == {operation["tags"][0] for _, _, operation in operations()}


def test_each_operation_tells_every_refusal_it_may_answer() -> None:
    for _, method, operation in operations():
        statuses = {int(status) for status in operation["responses"]}
        assert {*ALWAYS} <= statuses, operation["operationId"]
        assert method == "get" or {*BODY} <= statuses, operation["operationId"]
        headers = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "header"}
        assert "If-Match" not in headers or 412 in statuses, operation["operationId"]
        assert "Idempotency-Key" not in headers or 422 in statuses
        for status in statuses:
            answer = operation["responses"][str(status)]
            if status >= 400:
                assert answer == {"$ref": f"#/components/responses/Problem{status}"}
            else:
                assert answer["description"]
                assert "X-Request-ID" in answer["headers"]


def test_each_refusal_is_a_problem_with_its_headers_and_examples() -> None:
    responses = native_document()["components"]["responses"]
    assert set(responses) == {f"Problem{status}" for status in ABOUT}
    assert set(EXAMPLES) == set(ABOUT)
    for status in ABOUT:
        response = responses[f"Problem{status}"]
        (content,) = response["content"].items()
        assert content[0] == "application/problem+json"
        assert ("Retry-After" in response["headers"]) is (status in (429, 503))
        assert ("WWW-Authenticate" in response["headers"]) is (status == 401)
        for example in content[1]["examples"].values():
            check(example["value"], content[1]["schema"])
            assert example["value"]["status"] == status


def test_examples_of_refusals_are_what_is_answered(viewer: Api, anonymous: Api, db: None) -> None:
    for response, status in (
        (anonymous.get("whoami"), 401),
        (anonymous.get("whoami", x_api_key="x"), 401),
        (viewer.post("alpha/jobs", {"type": "a"}), 403),
        (viewer.get("gone/jobs"), 404),
    ):
        body = check_problem(response, status, response.json()["code"])
        told = {example["code"]: example for example in EXAMPLES[status].values()}
        example = told[body["code"]]
        assert {name: body[name] for name in example} == example


def test_every_body_has_examples_that_are_valid() -> None:
    with_body = set()
    for _, _, operation in operations():
        if "requestBody" not in operation:
            continue
        with_body.add(operation["operationId"])
        ((kind, content),) = operation["requestBody"]["content"].items()
        assert kind == "application/json"
        assert content.get("examples"), operation["operationId"]
        for example in content["examples"].values():
            check(example["value"], content["schema"])
    assert set(BODY_EXAMPLES) <= with_body


def test_a_field_that_is_unknown_fits_no_body() -> None:
    for _, _, operation in operations():
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            example = {"no_such_field": 1}
            with pytest.raises(jsonschema.ValidationError):
                check(example, schema)


def test_each_way_to_say_who_one_is_is_enough_alone() -> None:
    document = native_document()
    schemes = document["components"]["securitySchemes"]
    assert document["security"] == WAYS
    assert {name for way in WAYS for name in way} == set(schemes)
    assert schemes["ApiKey"]["name"] == "x-api-key"
    assert (schemes["UserName"]["name"], schemes["Password"]["name"]) == (
        "X-User-Name",
        "X-Password",
    )
    assert (schemes["Bearer"]["scheme"], schemes["Basic"]["scheme"]) == ("bearer", "basic")
    # What every operation has alike is said once.
    others = {o["operationId"]: o["security"] for _, _, o in operations() if "security" in o}
    assert others == {"token_issue": [*WAYS[2:], {}]}


def test_only_ways_that_are_taken_are_told_of(settings: Any) -> None:
    settings.AUTH_MECHANISMS = ["jwt"]
    assert security()[1] == [{"Bearer": []}]
    settings.JWT_HEADER, settings.JWT_SCHEME = "X-Token", "Token"
    schemes, ways = security()
    assert ways == [{"Token": []}]
    assert schemes["Token"]["name"] == "X-Token"
    settings.AUTH_MECHANISMS, settings.PASSWORD_HEADER = ["password"], "X-Secret"
    schemes, ways = security()
    assert ways == [{"UserName": [], "Password": []}, {"Basic": []}]
    assert schemes["Password"]["name"] == "X-Secret"


def test_no_document_holds_what_belongs_to_another(viewer: Api) -> None:
    other = viewer.client.get("/v1/openapi.json", headers=viewer.headers).json()
    native = viewer.get("openapi.json").json()
    assert not [path for path in other["paths"] if path.startswith("/jm-api")]
    assert "x-jobmaster-clusters" not in json.dumps(other)
    assert not [path for path in native["paths"] if not path.startswith("/jm-api/")]
    names = set(re.findall(r'"operationId": "(\w+)"', json.dumps(other)))
    assert names
    assert names.isdisjoint(operation["operationId"] for _, _, operation in operations())
