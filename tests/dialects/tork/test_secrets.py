"""Secrets never come out, wherever the original forgets them."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import quote

import pytest

from jobs.dialects.tork.wire.redaction import Redactor
from jobs.models import Job, LogLine, Step
from tests.dialects.tork.conftest import Caller, checked, task
from tests.dialects.tork.work import node

SECRET = "canary-4711"
MARK = "[REDACTED]"
LEAKY: dict[str, Any] = {
    "name": f"leaks {SECRET}",
    "description": SECRET,
    "inputs": {"plain": SECRET, "db_password": "hunter2", "AWS_ACCESS_KEY_ID": "AKIA"},
    "secrets": {"token": SECRET},
    "output": "{{ tasks.a }}",
    "webhooks": [{"url": "http://x", "headers": {"auth": SECRET, "x-secret": "1"}}],
    "tasks": [
        {
            "name": f"t {SECRET}",
            "var": "a",
            "image": "i",
            "cmd": ["x", SECRET],
            "run": f"curl -H {SECRET}",
            "files": {"f": SECRET},
            "env": {"E": "{{ secrets.token }}", "MY_SECRET": "other", "PLAIN": "shown"},
            "registry": {"username": "u", "password": "pw-of-registry"},
            "sidecars": [{"name": "s", "image": "i", "env": {"P": SECRET}}],
            "pre": [{"name": "p", "image": "i", "run": SECRET}],
        },
        {
            "name": "sub",
            "subjob": {
                "name": "inner",
                "inputs": {"key": "{{ secrets.token }}"},
                "secrets": {"deep": "{{ secrets.token }}"},
                "tasks": [task("in", run=f"echo {SECRET}")],
            },
        },
        {
            "name": "each",
            "each": {"list": "{{ [secrets.token] }}", "task": task("{{ item.value }}")},
        },
    ],
}
HIDDEN = (SECRET, "hunter2", "AKIA", "pw-of-registry", '"other"')


def _check(told: Any) -> None:
    text = json.dumps(told)
    for value in HIDDEN:
        assert value not in text, text


def test_no_answer_holds_a_secret(api: Caller) -> None:
    told = checked(api.post("jobs", LEAKY))
    _check(told)
    node(lambda payload: f"out {SECRET}").run()
    shown = api.job(told["id"])
    _check(shown)
    assert shown["state"] == "COMPLETED"
    assert shown["result"] == f"out {MARK}"
    assert shown["secrets"] == shown["context"]["secrets"] == {"token": MARK}
    first = shown["execution"][0]
    assert first["env"] == {"E": MARK, "MY_SECRET": MARK, "PLAIN": "shown"}
    assert shown["tasks"][0]["env"]["E"] == "{{ secrets.token }}"
    for row in shown["execution"]:
        _check(api.read(f"tasks/{row['id']}"))
    _check(api.read("jobs"))
    (inner,) = (one for one in api.read("jobs")["items"] if one["name"] == "inner")
    _check(api.job(inner["id"]))


@pytest.mark.parametrize(
    "written",
    [
        base64.b64encode(b"user:pa/ss word").decode(),
        quote("pa/ss word", safe=""),
        "pa/ss word",
    ],
)
def test_a_secret_is_known_in_other_forms_too(written: str) -> None:
    shown = Redactor({"pa/ss word"}).value({"a": [f"x {written} y"], "n": 1})
    assert MARK in shown["a"][0]
    assert written not in shown["a"][0]
    assert shown["n"] == 1


def test_errors_and_logs_are_redacted(api: Caller) -> None:
    told = checked(api.post("jobs", {**LEAKY, "tasks": [task("a", retry={"limit": 1})]}))
    node(lambda payload: f"fail {SECRET}").run()
    step = Step.objects.get(root_id=told["id"])
    fence = Job.objects.get(pk=step.pk).fence
    LogLine.objects.create(job_id=step.pk, fence=fence, stream="stdout", message=f"it is {SECRET}")
    for path in ("jobs/{}", "jobs/{}/log"):
        _check(api.read(path.format(told["id"])))
    for path in (f"jobs/{told['id']}/log", f"tasks/{step.pk.hex}/log"):
        assert api.read(path)["items"][0]["contents"] == f"it is {MARK}\n"
    assert MARK in api.job(told["id"])["error"]


def test_schedules_and_replies_to_those_who_wait_are_redacted(api: Caller) -> None:
    scheduled = {**LEAKY, "name": "x", "schedule": {"cron": "@hourly"}}
    made = checked(api.post("scheduled-jobs", scheduled))
    _check(made)
    _check(api.read(f"scheduled-jobs/{made['id']}"))
    _check(api.read("scheduled-jobs"))
    refused = api.post("jobs", {**LEAKY, "wait": {"timeout": "1ms"}})
    assert refused.status_code == 408


def test_an_empty_secret_hides_nothing(api: Caller) -> None:
    told = api.submit(name="plain", secrets={"none": ""}, tasks=[task()])
    assert told["name"] == "plain"


def test_what_is_stored_holds_no_secret(api: Caller) -> None:
    checked(api.post("jobs", LEAKY))
    checked(api.post("scheduled-jobs", {**LEAKY, "name": "x", "schedule": {"cron": "@hourly"}}))
    # What programs print is redacted by the node that runs them.
    node(lambda payload: "out").run()
    from jobs.models import Schedule, StepsListing, StepsRun

    for model in (Job, Schedule, Step, StepsRun, StepsListing):
        for row in model.objects.values():
            assert SECRET not in str(row), (model, [k for k, v in row.items() if SECRET in str(v)])
            assert "pw-of-registry" not in str(row)
