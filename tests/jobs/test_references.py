"""References to named secrets: what is one, where one may stand, and what takes its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs.engine.enqueue import NewJob, enqueue
from jobs.engine.secret_values import WithSecrets, filled_in, names_wanted
from jobs.errors import InvalidJob
from jobs.models import Job, Secret
from jobs.references import MissingSecret, check_places, is_reference, names_in_json, resolved
from jobs.sealing import SEAL, SealError, opened, opened_secret, seal, seal_secret
from jobs.secrets import meant_payload, shown_payload
from tests.jobs.steps.cases import TestNode, do, run, submit

VALUES = {"a": "value of a", "b.c-d": "value of b"}


@pytest.mark.parametrize("text", ["secret:a", "secret:b.c-d", "{{Secret.a}}", "{{ Secret.b.c-d }}"])
def test_what_a_reference_is(text: str) -> None:
    assert is_reference(text)
    assert resolved("python", {"x": [text]}, VALUES)["x"][0].startswith("value of")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "secret:",
            "secret: a",
            "a secret:a",
            "secret:a b",
            "Secret:a",
            "secret:-a",
            "secret:a\n",
        ),
        *(
            "{{secret.a}}",
            "{{Secret.a",
            "{{Secret.}}",
            "{{ inputs.Secret.a }}",
            "secret:" + "a" * 101,
        ),
    ],
)
def test_what_is_none(text: str) -> None:
    assert not is_reference(text)
    assert resolved("python", text, VALUES) == text


def test_a_value_stands_inside_other_text_too() -> None:
    text = "Bearer {{Secret.a}}, {{ Secret.b.c-d }}"
    assert resolved("python", text, VALUES) == "Bearer value of a, value of b"


def test_names_of_members_are_left_alone() -> None:
    assert resolved("python", {"secret:a": "secret:a"}, VALUES) == {"secret:a": "value of a"}


def test_a_secret_that_is_not_there_is_named() -> None:
    with pytest.raises(MissingSecret, match="'c'"):
        resolved("http", {"headers": {"X": "secret:c"}}, VALUES)


def test_a_value_in_a_url_is_quoted() -> None:
    values = {"a": "x/../y?z=1&ü"}
    url = resolved("http", {"url": "https://h.example/{{Secret.a}}/x"}, values)["url"]
    assert url == "https://h.example/x%2F..%2Fy%3Fz%3D1%26%C3%BC/x"


def test_a_value_that_looks_like_a_reference_is_a_value() -> None:
    assert resolved("python", "secret:a", {"a": "secret:b", "b": "no"}) == "secret:b"
    assert resolved("python", "{{Secret.a}}", {"a": "{{Secret.b}}", "b": "no"}) == "{{Secret.b}}"


@pytest.mark.parametrize(
    ("kind", "payload", "field"),
    [
        ("shell", {"argv": ["/bin/echo", "secret:a"]}, "payload.argv"),
        ("shell", {"script": "echo {{Secret.a}}"}, "payload.script"),
        ("shell", {"script": "x", "pre": [{"argv": ["/x", "secret:a"]}]}, "payload.pre.0.argv"),
        ("container", {"image": "i", "cmd": ["secret:a"]}, "payload.cmd"),
        ("container", {"image": "i", "run": "echo {{Secret.a}}"}, "payload.run"),
        (
            "container",
            {"image": "i", "sidecars": [{"name": "n", "image": "i", "entrypoint": ["secret:a"]}]},
            "payload.sidecars.0.entrypoint",
        ),
        ("http", {"url": "https://h.example/", "method": "secret:a"}, "payload.method"),
        ("files", {"operation": "list", "root": "r", "path": "{{Secret.a}}"}, "payload.path"),
        ("procedure", {"procedure": "secret:a"}, "payload.procedure"),
    ],
)
def test_no_secret_stands_where_others_could_see_it(kind: str, payload: Any, field: str) -> None:
    with pytest.raises(InvalidJob) as refused:
        check_places(kind, payload)
    assert refused.value.field == field
    assert resolved(kind, payload, VALUES) == payload


def test_such_a_job_is_not_accepted(alpha: object) -> None:
    payload = {"argv": ["/bin/echo", "secret:a"]}
    with pytest.raises(InvalidJob, match="cannot stand here"):
        enqueue(NewJob(kind="shell", payload=payload), by="test")
    assert not Job.objects.exists()


def test_places_of_a_program_and_of_those_beside_it() -> None:
    payload = {
        "image": "secret-image",
        "env": {"A": "secret:a"},
        "files": {"f": "key={{Secret.a}}"},
        "registry": {"username": "u", "password": "secret:a"},
        "pre": [{"run": "x", "env": {"A": "secret:a"}}],
        "sidecars": [{"name": "n", "image": "i", "env": {"A": "secret:a"}}],
    }
    check_places("container", payload)
    found = json.dumps(resolved("container", payload, VALUES))
    assert found.count("value of a") == 5
    assert names_in_json(found) == set()


def test_the_body_of_a_webhook_is_data_whatever_it_looks_like() -> None:
    payload = {"url": "https://h.example/", "headers": {"K": "secret:a"}, "body": {"r": "secret:a"}}
    check_places("webhook", payload)
    found = resolved("webhook", payload, VALUES)
    assert (found["headers"], found["body"]) == ({"K": "value of a"}, {"r": "secret:a"})


@pytest.mark.parametrize("word", ['a "secret:a" b', "\\secret:a", "secret:a", "x{{Secret.a}}"])
def test_every_name_that_is_filled_in_is_found_without_reading_the_payload(word: str) -> None:
    payload = {"x": [word, {"y": word}]}
    needs = resolved("python", payload, VALUES) != payload
    assert not needs or names_in_json(json.dumps(payload)) == {"a"}


def test_of_a_sealed_payload_the_names_stand_beside_it(settings: Any) -> None:
    sealed = seal({"env": {"A": "secret:a", "B": "{{Secret.b}}"}}, ["hidden"])
    assert names_wanted(json.dumps(sealed)) == {"a", "b"}
    values = {name: seal_secret(name, f"value of {name}") for name in ("a", "b")}
    payload, masks = filled_in("container", WithSecrets(sealed, values))
    assert payload == {"env": {"A": "value of a", "B": "value of b"}}
    assert {*masks} == {"hidden", "value of a", "value of b"}


def test_a_secret_is_stored_under_its_name_and_never_twice_alike() -> None:
    one, two = seal_secret("a", "the value"), seal_secret("a", "the value")
    assert one != two
    assert opened_secret("a", one) == opened_secret("a", two) == "the value"
    for name, stored in (("b", one), ("a", one[:-8] + "AAAAAAA="), ("a", "nonsense"), ("a", "")):
        with pytest.raises(SealError):
            opened_secret(name, stored)


def test_a_reference_is_shown_and_a_value_is_not() -> None:
    headers = {"Authorization": "secret:a", "X-Api-Key": "real", "Cookie": "{{ Secret.a }}"}
    shown = shown_payload("http", {"url": "https://h.example/", "headers": headers})
    assert shown["headers"] == {**headers, "X-Api-Key": "***"}


@pytest.mark.parametrize(
    "text",
    [
        "Bearer {{Secret.a}}",
        "bearer  {{ Secret.a }}",
        "Basic {{Secret.a}}:{{Secret.b}}",
        "ApiKey {{Secret.a}}",
        "{{Secret.a}}, {{Secret.b}}",
    ],
)
def test_a_reference_is_shown_with_the_word_before_it(text: str) -> None:
    payload = {"url": "https://h.example/", "headers": {"Authorization": text}}
    assert shown_payload("http", payload) == payload
    # And comes back as it was.
    assert meant_payload("http", payload, payload) == payload


@pytest.mark.parametrize(
    "text",
    [
        "Bearer real",
        "Bearer real{{Secret.a}}",
        "Bearer {{Secret.a}}real",
        "hunter2 {{Secret.a}}",
        "Bearer real {{Secret.a}}",
        "Bearer {{secret.a}}",
        "Bearer {{Secret.a}} {{ real }}",
        "Bearer {{Secret.a}}\n",
        "Bearer secret:a",
    ],
)
def test_what_may_be_half_a_value_is_not_shown(text: str) -> None:
    payload = {"url": "https://h.example/", "headers": {"Authorization": text}}
    shown = shown_payload("http", payload)
    assert shown["headers"] == {"Authorization": "***"}
    assert meant_payload("http", shown, payload) == payload


def test_a_definition_that_only_names_secrets_is_not_sealed(alpha: object) -> None:
    job = submit(do("a", "{{ secrets.token }}"), secrets={"token": "secret:a"})
    assert SEAL not in job.payload
    assert job.payload["secrets"] == {"token": "secret:a"}


# -- Steps: data never becomes a reference ---------------------------------------------------------


def claimed_payloads(*steps: Any, **definition: Any) -> tuple[Job, list[Any]]:
    seen: list[Any] = []

    def work(job: Any) -> Any:
        payload = json.loads(job.payload)
        seen.append(payload)
        return definition["inputs"]["given"] if payload.get("tells") else payload

    job = run(*steps, node=TestNode(work), **definition)
    return job, seen


def test_a_step_gets_references_by_the_secrets_of_its_definition(alpha: object) -> None:
    job, seen = claimed_payloads(
        do("whole", {"k": "{{ secrets.token }}"}),
        do("inside", {"k": "Bearer {{ secrets.token }}"}),
        do("literal", {"k": "secret:literal"}),
        do("no reference", {"k": "{{ secrets.plain }}"}),
        secrets={"token": "secret:a", "plain": "just a value"},
    )
    assert job.state == "succeeded"
    found = [opened(one).payload["k"] for one in seen]
    assert found == ["{{Secret.a}}", "Bearer {{Secret.a}}", "secret:literal", "just a value"]
    # The plain value made all of it sealed; the names stand beside.
    assert [one.get("names") for one in seen] == [["a"], ["a"], ["literal"], None]


def test_a_sub_job_hands_them_on(alpha: object) -> None:
    inner = {
        "name": "inner",
        "secrets": {"own": "{{ secrets.token }}"},
        "steps": [do("in it", {"k": "{{ secrets.own }}"})],
    }
    job, seen = claimed_payloads({"name": "s", "subjob": inner}, secrets={"token": "secret:a"})
    assert (job.state, seen) == ("succeeded", [{"k": "{{Secret.a}}"}])


@pytest.mark.parametrize("evil", ["secret:a", "{{Secret.a}}", "x {{ Secret.a }} y"])
@pytest.mark.parametrize("template", ["{{ tasks.got }}", "{{ inputs.given }}", "<{{ tasks.got }}>"])
def test_what_others_say_is_never_a_reference(evil: str, template: str, alpha: object) -> None:
    job, seen = claimed_payloads(
        {**do("gets", {"tells": True}), "var": "got"},
        do("sends", {"body": template}),
        inputs={"given": evil},
        secrets={"used": "secret:a"},
    )
    sent = [one for one in seen if "body" in one]
    if job.state == "succeeded":
        # Inside other text it is no reference.
        assert sent
        assert all(resolved("python", one, VALUES) == one for one in sent)
    else:
        assert "looks like a reference" in (job.error or "")
        assert not sent


def test_pieces_that_only_together_make_a_reference_make_none(alpha: object) -> None:
    job, seen = claimed_payloads(
        do("sends", {"body": "{{ inputs.one }}{{ inputs.two }}"}),
        inputs={"one": "{", "two": "{Secret.a}}"},
    )
    assert job.state == "failed"
    assert seen == []


def test_a_list_that_an_expression_gives_is_looked_at_too(alpha: object) -> None:
    job, seen = claimed_payloads(
        do("sends", {"body": "{{ inputs.list }}"}), inputs={"list": ["x", {"y": "secret:a"}]}
    )
    assert (job.state, seen) == ("failed", [])


def test_secrets_that_are_gone_are_left_out_of_what_is_fetched(alpha: object) -> None:
    Secret.objects.all().create_secret("a", "value of a", by="test")
    assert set(Secret.objects.all().sealed_values({"a", "b"})) == {"a"}
