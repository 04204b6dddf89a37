"""Secrets in payloads whose names we know: they go in and never come out."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.models import Job, Schedule
from tests.api.conftest import Api

HEADERS = {"Authorization": "Bearer one", "X-Api-Key": "two", "Accept": "text/plain"}
SHOWN = {"Authorization": "***", "X-Api-Key": "***", "Accept": "text/plain"}
PAYLOAD = {"url": "https://example.com/", "method": "POST", "headers": HEADERS}


@pytest.fixture
def api(alpha: object, make_key: Any) -> Api:
    return Api(make_key("operator"))


def test_secret_headers_of_a_schedule_are_shown_masked_and_kept_by_a_change(api: Api) -> None:
    body = {"name": "call", "kind": "http", "payload": PAYLOAD, "timing": "cron"}
    made = api.post("alpha/schedules", {**body, "expression": "0 4 * * *"})
    assert made.status_code == 201, made.content
    path = f"alpha/schedules/{made.json()['id']}"
    read = api.get(path)
    assert read.json()["payload"]["headers"] == SHOWN
    assert b"Bearer one" not in read.content + made.content
    changed = {**read.json()["payload"], "method": "PUT"}
    assert api.patch(path, {"payload": changed}).status_code == 200
    stored = Schedule.objects.get().payload
    assert (stored["method"], stored["headers"]) == ("PUT", HEADERS)


def test_secret_headers_of_a_job_are_shown_masked_and_kept_by_a_change(api: Api) -> None:
    made = api.post("alpha/jobs", {"kind": "http", "payload": PAYLOAD, "delay_seconds": 60})
    path = f"alpha/jobs/{made.json()['id']}"
    read = api.get(path)
    assert read.json()["payload"]["headers"] == SHOWN
    assert b"Bearer one" not in read.content + made.content
    changed = {**read.json()["payload"], "method": "PUT"}
    assert api.patch(path, {"payload": changed}).status_code == 200
    stored = Job.objects.get().payload
    assert (stored["method"], stored["headers"]) == ("PUT", HEADERS)


def test_a_payload_whose_names_are_not_ours_is_shown_as_it_is(api: Api) -> None:
    made = api.post("alpha/jobs", {"type": "demo:echo", "payload": {"token": "a word"}})
    assert made.json()["payload"] == {"token": "a word"}
