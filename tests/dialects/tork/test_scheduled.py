"""Scheduled jobs: from their creation to their deletion, with all that they made."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.engine.fires import fire_due
from jobs.models import Job, Schedule
from tests.dialects.tork.conftest import ID, TIME, Caller, check_message, checked, task
from tests.dialects.tork.work import node

BODY: dict[str, Any] = {
    "name": "nightly",
    "description": "packs",
    "tags": ["etl"],
    "inputs": {"region": "eu"},
    "tasks": [task("a", env={"R": "{{ inputs.region }}"})],
    "schedule": {"cron": "0 3 * * *"},
}


def test_a_schedule_is_made_shown_and_listed(api: Caller) -> None:
    told = checked(api.post("scheduled-jobs", BODY))
    assert ID.match(told["id"])
    assert TIME.match(told["createdAt"])
    assert told == {
        "id": told["id"],
        "createdBy": told["createdBy"],
        "inputs": {"region": "eu"},
        "state": "ACTIVE",
        "name": "nightly",
        "description": "packs",
        "tags": ["etl"],
        "createdAt": told["createdAt"],
        "cron": "0 3 * * *",
    }
    shown = api.read(f"scheduled-jobs/{told['id']}")
    assert shown == told | {"tasks": BODY["tasks"]}
    assert api.read("scheduled-jobs") == {
        **{"items": [told], "number": 1, "size": 1, "totalPages": 1, "totalItems": 1}
    }
    text = "name: y\nschedule: {cron: '@every 5m'}\ntasks: [{name: a, run: echo a}]"
    assert checked(api.yaml(text, "scheduled-jobs"))["cron"] == "@every 5m"


def test_names_need_not_be_unique(api: Caller) -> None:
    ids = {checked(api.post("scheduled-jobs", BODY))["id"] for _ in range(3)}
    assert len(ids) == 3
    assert [one["name"] for one in api.read("scheduled-jobs")["items"]] == ["nightly"] * 3
    for number in range(10):
        checked(api.post("scheduled-jobs", {**BODY, "name": f"n{number}"}))
    page = api.read("scheduled-jobs?page=2")
    assert (page["size"], page["totalItems"]) == (3, 13)


def test_it_is_paused_and_resumed(api: Caller) -> None:
    told = checked(api.post("scheduled-jobs", BODY))
    path = f"scheduled-jobs/{told['id']}"
    check_message(api.put(f"{path}/resume"), 400, "scheduled job is not paused")
    assert checked(api.put(f"{path}/pause")) == {"status": "OK"}
    assert api.read(path)["state"] == "PAUSED"
    check_message(api.put(f"{path}/pause"), 400, "scheduled job is not active")
    assert checked(api.put(f"{path}/resume")) == {"status": "OK"}
    assert api.read(path)["state"] == "ACTIVE"


@pytest.mark.parametrize("schedule_id", ["x", "0" * 32, "%00"])
def test_schedules_that_are_not_there(schedule_id: str, admin: Caller) -> None:
    path = f"scheduled-jobs/{schedule_id}"
    for method, address in (
        ("GET", path),
        ("DELETE", path),
        ("PUT", f"{path}/pause"),
        ("PUT", f"{path}/resume"),
    ):
        check_message(admin(method, address), 404, "scheduled job not found")


def test_each_fire_makes_a_job_like_a_submitted_one(api: Caller, alpha: Any) -> None:
    from datetime import timedelta

    from django.utils import timezone

    told = checked(api.post("scheduled-jobs", {**BODY, "permissions": [{"role": "public"}]}))
    due = timezone.now() - timedelta(seconds=5)
    Schedule.objects.filter(pk=told["id"]).update(next_due_at=due, next_run_at=due)
    fire_due(alpha.alias, _policy())
    (job,) = api.read("jobs")["items"]
    assert job["schedule"] == {"id": told["id"]}
    assert (job["name"], job["tags"], job["inputs"]) == ("nightly", ["etl"], {"region": "eu"})
    assert job["createdBy"] == told["createdBy"]
    node().run()
    shown = api.job(job["id"])
    assert (shown["state"], shown["createdBy"]) == ("COMPLETED", told["createdBy"])
    assert shown["tasks"] == BODY["tasks"]
    assert shown["permissions"][0]["role"]["slug"] == "public"


def _policy() -> Any:
    from clusters.models import current_policy

    return current_policy()


def test_its_deletion_takes_its_jobs_along(admin: Caller, alpha: Any) -> None:
    from jobs.engine.enqueue import NewJob, enqueue
    from jobs.engine.new_job import Origin

    told = checked(admin.post("scheduled-jobs", BODY))
    schedule = Schedule.objects.get(pk=told["id"])
    kept = admin.submit(tasks=[task()])
    origin = Origin(schedule.pk, "manual")
    payload = schedule.payload
    done = enqueue(NewJob(kind="steps", payload=payload, origin=origin, max_attempts=1), by="t").job
    node().run()
    open_ = enqueue(
        NewJob(kind="steps", payload=payload, origin=origin, max_attempts=1), by="t"
    ).job
    assert checked(admin.delete(f"scheduled-jobs/{told['id']}")) == {"status": "OK"}
    assert not Schedule.objects.exists()
    assert not Job.objects.filter(pk__in=[done.pk, open_.pk]).exists()
    assert [one["id"] for one in admin.read("jobs")["items"]] == [kept["id"]]


def test_what_cannot_be_scheduled_is_not_stored(api: Caller) -> None:
    for change, tag in (
        ({"schedule": None}, "required"),
        ({"schedule": {"cron": "x"}}, "cron"),
        ({"schedule": {"cron": "0 0 0 * * *"}}, "cron"),
        ({"name": "x" * 65}, "max"),
        ({"tasks": []}, "min"),
    ):
        told = check_message(api.post("scheduled-jobs", {**BODY, **change}), 400)
        assert f"on the '{tag}' tag" in told
    refused = {**BODY, "wait": {"timeout": "1s"}}
    check_message(api.post("scheduled-jobs", refused), 400, 'json: unknown field "wait"')
    assert not Schedule.objects.exists()


def test_other_work_given_to_a_schedule_is_what_is_shown(api: Caller) -> None:
    from jobs.engine import schedules

    told = checked(api.post("scheduled-jobs", BODY))
    payload = {"name": "changed", "steps": [{"name": "z", "kind": "python", "type": "do"}]}
    schedules.change(told["id"], {"payload": payload}, by="test")
    shown = api.read(f"scheduled-jobs/{told['id']}")
    assert (shown["name"], shown["tasks"]) == ("changed", [{"name": "z"}])
