"""Schedules: what makes tasks, in the words of this API."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from clusters.models import AuditEntry
from jobs.dialects.asyncjobs.views import schedules, slices
from jobs.engine import fires
from jobs.models import Job, Schedule
from tests.dialects.asyncjobs.conftest import Caller, check_error
from tests.factories import make_node, make_queue
from tests.jobs.schedule_cases import make_schedule

SECOND = 10**9
BODY: dict[str, Any] = {
    "name": "nightly",
    "schedule": "@every 1h",
    "queue": "default",
    "task_type": "email:monthly",
}


def create(api: Caller, **body: Any) -> dict[str, Any]:
    response = api.post("v1/schedules", {**BODY, **body})
    assert response.status_code == 201, response.content
    assert "Location" not in response
    shown = response.json()
    assert api.get(f"v1/schedules/{shown['name']}").json() == shown
    return shown


def test_a_schedule_makes_tasks_of_the_original_sort(api: Caller) -> None:
    make_queue("EMAIL")
    payload = {"to": "x@y", "n": 2**60 + 1}
    shown = create(api, queue="EMAIL", payload=payload, deadline_offset="5m", max_tries=4)
    assert (shown["deadline"], shown["max_tries"]) == (300 * SECOND, 4)
    row = Schedule.objects.get()
    assert (row.overlap, row.misfire, row.kind) == ("allow", "skip", "python")
    assert row.next_due_at is not None
    fires.trigger(row.pk, by="test")
    task = api.listed()[0]
    # Encoded once, as it was sent.
    assert base64.b64decode(task["payload"]) == b'{"n":1152921504606846977,"to":"x@y"}'
    assert task["payload"] == shown["payload"]
    assert (task["type"], task["queue"], task["max_tries"]) == ("email:monthly", "EMAIL", 4)
    job = Job.objects.get()
    assert job.retry_curve == "ramp:60,10.8,50,0.9"
    assert job.expires_at and (job.expires_at - job.created_at).total_seconds() == 300
    assert "deadline" in task
    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.target_id) == ("schedules.create", str(row.pk))


def test_a_type_that_no_worker_has_is_taken_as_that_of_any_task(api: Caller) -> None:
    make_node(types=["demo:other"])
    create(api)
    assert Schedule.objects.get().type == "email:monthly"


def test_bytes_and_no_payload(api: Caller) -> None:
    assert create(api, payload_base64="/+8A")["payload"] == "/+8A"
    fires.trigger(Schedule.objects.get().pk, by="test")
    assert api.listed()[0]["payload"] == "/+8A"
    shown = create(api, name="empty")
    assert not {"payload", "deadline"} & set(shown) and shown["max_tries"] == 10
    fires.trigger(Schedule.objects.get(name="empty").pk, by="test")
    assert api.listed()[0]["payload"] == ""


@pytest.mark.parametrize(
    ("text", "shown", "zone"),
    [
        ("0 7 * * 1-5", "0 7 * * 1-5", "UTC"),
        ("  */5 * ? JAN-MAR mon ", "*/5 * ? JAN-MAR mon", "UTC"),
        ("@daily", "@daily", "UTC"),
        ("@every 1h30m", "@every 1h30m", "UTC"),
        ("@every 1h0.5s", "@every 3600s", "UTC"),
        ("@every 10ms", "@every 1s", "UTC"),
        ("@every 90000000000ns", "@every 90s", "UTC"),
        ("CRON_TZ=Europe/Berlin 0 7 * * *", "CRON_TZ=Europe/Berlin 0 7 * * *", "Europe/Berlin"),
        ("TZ=Europe/Berlin 0 7 * * *", "CRON_TZ=Europe/Berlin 0 7 * * *", "Europe/Berlin"),
    ],
)
def test_the_words_for_when(text: str, shown: str, zone: str, api: Caller) -> None:
    assert create(api, schedule=text)["schedule"] == shown
    assert Schedule.objects.get().timezone == zone


@pytest.mark.parametrize(
    ("offset", "seconds"),
    [("30s", 30), ("29.5s", 30), ("1h0.4s", 3600), ("1m30.5s", 91), ("", None), (None, None)],
)
def test_an_offset_is_of_whole_seconds(offset: Any, seconds: int | None, api: Caller) -> None:
    shown = create(api, deadline_offset=offset)
    assert shown.get("deadline") == (None if seconds is None else seconds * SECOND)


@pytest.mark.once
@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        ({"payload": 1, "payload_base64": "aGk="}, "payload_both_set", "payload"),
        ({"payload_base64": "aGk"}, "invalid_json", "payload_base64"),
        ({"deadline_offset": "wrong"}, "invalid_duration", "deadline_offset"),
        ({"deadline_offset": "29.4s"}, "schedule_invalid", "deadline_offset"),
        ({"deadline_offset": "0"}, "schedule_invalid", "deadline_offset"),
        ({"deadline_offset": "-5m"}, "schedule_invalid", "deadline_offset"),
        ({"deadline_offset": "2562047h"}, "schedule_invalid", "deadline_offset"),
        ({"task_type": ""}, "task_type_invalid", "task_type"),
        ({"task_type": "a b"}, "task_type_invalid", "task_type"),
        ({"task_type": "x" * 201}, "task_type_invalid", "task_type"),
        ({"name": ""}, "schedule_invalid", "name"),
        ({"name": "a.b"}, "schedule_invalid", "name"),
        ({"name": "x" * 201}, "schedule_invalid", "name"),
        ({"schedule": " "}, "schedule_invalid", "schedule"),
        ({"schedule": "not a cron"}, "schedule_invalid", "schedule"),
        ({"schedule": "0 0 30 2 *"}, "schedule_invalid", "schedule"),
        ({"schedule": "* * * * * *"}, "schedule_invalid", "schedule"),
        ({"schedule": "@every soon"}, "schedule_invalid", "schedule"),
        ({"schedule": "@every -1h"}, "schedule_invalid", "schedule"),
        ({"schedule": "@every 2562047h"}, "schedule_invalid", "schedule"),
        ({"schedule": "TZ=Europe/Berlin"}, "schedule_invalid", "schedule"),
        ({"schedule": "TZ= 0 7 * * *"}, "schedule_invalid", "schedule"),
        ({"schedule": "TZ=Mars/Base 0 7 * * *"}, "schedule_invalid", "schedule"),
        ({"schedule": "x" * 5000}, "schedule_invalid", "schedule"),
        ({"schedule": 7}, "invalid_json", "schedule"),
        ({"queue": ""}, "queue_name_required", "queue"),
        ({"max_tries": 0}, "task_invalid", "max_tries"),
        ({"max_tries": 101}, "task_invalid", "max_tries"),
        ({"deadline": "5m"}, "invalid_json", "deadline"),
    ],
)
def test_bad_input_is_refused_by_its_name(body: Any, reason: str, field: str, api: Caller) -> None:
    response = api.post("v1/schedules", {**BODY, **body})
    check_error(response, 400, "invalid_argument", reason, field)
    assert not Schedule.objects.exists() and not AuditEntry.objects.exists()


def test_the_queue_must_be_there(api: Caller) -> None:
    response = api.post("v1/schedules", {**BODY, "queue": "none"})
    check_error(response, 404, "not_found", "queue_not_found", "queue")


def test_names_are_unique_until_they_are_deleted(api: Caller) -> None:
    create(api)
    for name in ("nightly", "Nightly"):
        response = api.post("v1/schedules", {**BODY, "name": name})
        check_error(response, 409, "duplicate", "schedule_already_exists", "name")
    fires.trigger(Schedule.objects.get().pk, by="test")
    assert api.delete("v1/schedules/nightly").status_code == 204
    check_error(api.delete("v1/schedules/nightly"), 404, "not_found", "schedule_not_found")
    assert api.get("v1/schedules").json() == {"schedules": []}
    # What it made stays.
    assert len(api.listed()) == 1
    assert AuditEntry.objects.filter(verb="schedules.delete").count() == 1
    create(api)


def test_schedules_of_other_surfaces_are_shown(viewer: Caller) -> None:
    soon = timezone.now().replace(year=2999, microsecond=5)
    make_schedule(name="a b", timing="interval", interval_seconds=90)
    make_schedule(name="Once", timing="once", run_at=soon, type="x.y/z")
    http = {"url": "https://example.com/", "headers": {"Cookie": "hush"}}
    make_schedule(name="web", kind="http", payload=http, timezone="Europe/Berlin")
    response = viewer.get("v1/schedules")
    shown = {one["name"]: one for one in response.json()["schedules"]}
    assert list(shown) == ["a b", "Once", "web"]
    assert shown["a b"]["schedule"] == "@every 90s"
    assert shown["Once"]["schedule"] == f"@at {soon:%Y-%m-%dT%H:%M:%S}.000005Z"
    assert shown["web"]["schedule"].startswith("CRON_TZ=Europe/Berlin ")
    assert b"hush" not in base64.b64decode(shown["web"]["payload"])
    assert viewer.get("v1/schedules/a%20b").json() == shown["a b"]


@pytest.mark.parametrize("name", ["none", "%00", "x" * 300, "%0A", "é"])
def test_a_name_that_is_none_is_a_missing_one(name: str, admin: Caller) -> None:
    for method in ("GET", "DELETE"):
        response = admin(method, f"v1/schedules/{name}")
        check_error(response, 404, "not_found", "schedule_not_found")


def test_other_surfaces_show_a_schedule_of_this_one(api: Caller) -> None:
    from tests.api.conftest import Api
    from tests.dialects.scheduler.conftest import Caller as Scheduler

    create(api, deadline_offset="45s")
    key = api.headers["x-api-key"]
    (item,) = Api(key).get("alpha/schedules").json()["items"]
    detail = Api(key).get(f"alpha/schedules/{item['id']}").json()
    assert (detail["expires_in_seconds"], detail["retry_curve"]) == (45, "ramp:60,10.8,50,0.9")
    shown = Scheduler(key).get(f"jobs/{item['id']}")
    assert shown.status_code == 200, shown.content
    assert shown.json()["retryPolicy"]["maxAttempts"] == 9


def test_a_list_is_bounded(api: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    for letter in "dBca":
        create(api, name=letter, payload="x" * 9000)

    def names() -> list[str]:
        found = api.get("v1/schedules").json()["schedules"]
        assert all(api.get(f"v1/schedules/{one['name']}").json() == one for one in found)
        return [one["name"] for one in found]

    assert names() == [*"aBcd"]
    monkeypatch.setattr(slices, "MAX_ANSWER_BYTES", 40_000)
    assert names() == [*"aBc"]
    monkeypatch.setattr(schedules, "MAX_LISTED", 2)
    assert names() == [*"aB"]


def test_a_list_takes_the_same_statements_however_long_it_is(api: Caller) -> None:
    def statements() -> int:
        with CaptureQueriesContext(connections["cluster-alpha"]) as found:
            assert api.get("v1/schedules").status_code == 200
        return len(found)

    create(api, name="first")
    before = statements()
    for number in range(10):
        create(api, name=f"n{number}")
    assert statements() == before
