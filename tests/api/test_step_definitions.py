"""POST {cluster}/jobs with kind steps: what is accepted, and what is refused with nothing stored."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

from jobs.models import Job, Step, StepsRun
from tests.api.conftest import Api, check_problem, fields

WORK = {"name": "a", "kind": "python", "type": "demo:noop"}


def nested(depth: int) -> dict[str, Any]:
    step: dict[str, Any] = WORK
    for number in range(depth):
        step = {"name": f"n{number}", "parallel": [step]}
    return step


def submit(api: Api, **definition: Any) -> Any:
    return api.post("alpha/jobs", {"kind": "steps", "payload": definition})


def test_a_definition_is_accepted(alpha: object, api: Api) -> None:
    response = submit(
        api,
        name="nightly",
        inputs={"region": "eu"},
        steps=[WORK, {"name": "all", "each": {"list": "{{ inputs.region }}", "step": WORK}}],
        output="{{ tasks.a }}",
    )
    assert response.status_code == 201
    body = response.json()
    assert (body["kind"], body["type"], body["state"]) == ("steps", "steps", "ready")
    assert (body["max_attempts"], body["timeout_seconds"]) == (1, 7 * 86400)
    assert StepsRun.objects.get().name == "nightly"


@pytest.mark.once
@pytest.mark.parametrize(
    "definition, field",
    [
        ({}, "payload.steps"),
        ({"steps": []}, "payload.steps"),
        ({"steps": [WORK], "nosuch": 1}, "payload.nosuch"),
        ({"steps": [{**WORK, "nosuch": 1}]}, "payload.steps[0].nosuch"),
        ({"steps": [{**WORK, "name": ""}]}, "payload.steps[0].name"),
        ({"steps": [{"name": "a"}]}, "payload.steps[0]"),
        ({"steps": [{**WORK, "parallel": [WORK]}]}, "payload.steps[0]"),
        ({"steps": [{**WORK, "kind": "nosuch"}]}, "payload.steps[0].kind"),
        ({"steps": [{**WORK, "kind": "group"}]}, "payload.steps[0].kind"),
        ({"steps": [{**WORK, "kind": "steps"}]}, "payload.steps[0].kind"),
        ({"steps": [{**WORK, "type": "no such!"}]}, "payload.steps[0].type"),
        ({"steps": [{**WORK, "needs": ["b"]}]}, "payload.steps[0].needs"),
        ({"steps": [{**WORK, "priority": 1000}]}, "payload.steps[0].priority"),
        ({"steps": [{**WORK, "max_attempts": 0}]}, "payload.steps[0].max_attempts"),
        ({"steps": [{**WORK, "timeout_seconds": "1"}]}, "payload.steps[0].timeout_seconds"),
        ({"steps": [{**WORK, "queue": "no such!"}]}, "payload.steps[0].queue"),
        ({"steps": [{**WORK, "tags": ["x" * 100]}]}, "payload.steps[0].tags"),
        ({"steps": [{**WORK, "if": "{{ 1 + }}"}]}, "payload.steps[0].if"),
        ({"steps": [{**WORK, "payload": {"x": ["{{ ( }}"]}}]}, "payload.steps[0].payload.x[0]"),
        ({"steps": [WORK], "output": "{{ ) }}"}, "payload.output"),
        ({"steps": [WORK], "inputs": []}, "payload.inputs"),
        ({"steps": [WORK], "secrets": {"a": 1}}, "payload.secrets.a"),
        ({"steps": [WORK], "defaults": {"queue": "no such!"}}, "payload.defaults.queue"),
        ({"steps": [WORK], "webhooks": [{}]}, "payload.webhooks[0].url"),
        ({"steps": [WORK], "webhooks": [{"url": "ftp://x/y"}]}, "payload.webhooks[0].url"),
        ({"steps": [WORK], "webhooks": [{"url": "http://u:p@x"}]}, "payload.webhooks[0].url"),
        (
            {"steps": [WORK], "webhooks": [{"url": "http://x", "event": "no"}]},
            "payload.webhooks[0].event",
        ),
        (
            {"steps": [WORK], "webhooks": [{"url": "http://x", "headers": {"Host": "y"}}]},
            "payload.webhooks[0].headers.Host",
        ),
        (
            {"steps": [WORK], "webhooks": [{"url": "http://x", "headers": {"a": "x\r\ny"}}]},
            "payload.webhooks[0].headers.a",
        ),
        ({"steps": [WORK], "secrets": {"a": "[REDACTED]"}}, "payload.secrets"),
        ({"steps": [WORK], "create_queues": True}, "payload.create_queues"),
        ({"steps": [WORK], "dialect": "tork"}, "payload.dialect"),
        (
            {"steps": [{"name": "s", "subjob": {"steps": [WORK], "create_queues": True}}]},
            "payload.create_queues",
        ),
        ({"steps": [WORK], "finally": [{}]}, "payload.finally[0].name"),
        (
            {"steps": [{"name": "e", "each": {"list": 7, "step": WORK}}]},
            "payload.steps[0].each.list",
        ),
        (
            {"steps": [{"name": "e", "each": {"list": [], "var": "job", "step": WORK}}]},
            "payload.steps[0].each.var",
        ),
        (
            {"steps": [{"name": "s", "subjob": {"steps": [{}]}}]},
            "payload.steps[0].subjob.steps[0].name",
        ),
        (
            {"steps": [{"name": "h", "kind": "http", "payload": {"url": 7}}]},
            "payload.steps[0].payload.url",
        ),
        ({"steps": [WORK] * 1001}, "payload.steps"),
    ],
)
def test_what_could_never_run_is_refused(
    alpha: object, api: Api, definition: dict[str, Any], field: str
) -> None:
    response = submit(api, **definition)
    check_problem(response, 400, "invalid")
    assert fields(response) == [field]
    assert not Job.objects.exists()
    assert not StepsRun.objects.exists()


def test_a_payload_that_is_no_object_is_refused(alpha: object, api: Api) -> None:
    for payload in (None, [], "steps", 7):
        response = api.post("alpha/jobs", {"kind": "steps", "payload": payload})
        assert response.status_code == 400
        assert fields(response) == ["payload"]


def test_what_depends_on_an_expression_is_left_to_its_turn(alpha: object, api: Api) -> None:
    step = {"name": "h", "kind": "http", "payload": {"url": "{{ inputs.url }}"}}
    assert submit(api, steps=[step]).status_code == 201


@pytest.mark.parametrize("depth", [11, 100])
def test_deep_nesting_is_refused_at_once(alpha: object, api: Api, depth: int) -> None:
    submit(api, steps=[WORK])
    began = time.perf_counter()
    response = submit(api, steps=[nested(depth)])
    took = time.perf_counter() - began
    assert response.status_code == 400
    assert "deep" in response.json()["errors"][0]["message"]
    assert Job.objects.count() == 1
    # A bound of nothing but blow-up; figures are measured elsewhere.
    assert took < 2.0


def test_a_group_cannot_be_enqueued(alpha: object, api: Api) -> None:
    response = api.post("alpha/jobs", {"kind": "group", "payload": {"parallel": []}})
    assert response.status_code == 400
    assert fields(response) == ["kind"]
    assert not Step.objects.exists()


def test_steps_of_a_kind_that_needs_a_grant_need_it(
    alpha: object, api: Api, make_key: Callable[..., str]
) -> None:
    program = {"name": "sh", "kind": "shell", "payload": {"script": "true"}}
    deep = {"name": "s", "subjob": {"steps": [{"name": "p", "parallel": [program]}]}}
    for definition in ({"steps": [program]}, {"steps": [deep], "secrets": {"a": "hush hush"}}):
        response = submit(api, **definition)
        check_problem(response, 403, "kind_not_granted")
        schedule = {"name": "x", "timing": "interval", "interval_seconds": 60, "kind": "steps"}
        response = api.post("alpha/schedules", {**schedule, "payload": definition})
        check_problem(response, 403, "kind_not_granted")
    assert not Job.objects.exists()
    granted = Api(make_key("operator", "alpha", grants=("shell",)))
    created = submit(granted, steps=[deep], secrets={"a": "hush hush"})
    assert created.status_code == 201
    again = api.post(f"alpha/jobs/{created.json()['id']}/requeue")
    check_problem(again, 403, "kind_not_granted")


def test_kinds_are_looked_for_no_deeper_than_they_may_be(alpha: object, api: Api) -> None:
    assert submit(api, steps=[nested(60)]).status_code == 400
