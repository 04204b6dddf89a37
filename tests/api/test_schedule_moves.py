"""{cluster}/schedules: stop, start and run them, and what becomes of their instants"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from django.utils import timezone

from clusters.api.fields import format_time
from jobs.api.schedule_wire import (
    DeletedSchedule,
    FireItem,
    OccurrenceItem,
    Prerequisites,
    Preview,
)
from jobs.engine import schedules, workflows
from jobs.engine.workflows import NewNode
from jobs.models import Fire, Job, Schedule, ScheduleDependency
from tests.api.conftest import Api, check_problem
from tests.api.test_schedules import HOURLY, MISSING, PATH, errors
from tests.factories import make_queue
from tests.jobs.schedule_cases import (
    end_run,
    fire,
    hourly,
    hours_ago,
    make_schedule,
    put_back,
    runs_of,
)


@pytest.fixture
def path(alpha: object, api: Api) -> str:
    return str(api.post(PATH, {**HOURLY, "expression": hourly()})["Location"])


# -- Pause, resume ---------------------------------------------------------------------------------


def test_a_schedule_is_paused_and_resumed_once(path: str, api: Api) -> None:
    until = format_time(timezone.now() + timedelta(hours=2))
    body = api.post(f"{path}/pause", {"reason": "stocktaking", "until": until}).json()
    assert (body["state"], body["next_run_at"], body["pause_reason"]) == (
        "paused",
        None,
        "stocktaking",
    )
    assert (body["paused_by"], body["resume_at"]) == ("key:operator-1", until)
    check_problem(api.post(f"{path}/pause"), 409, "already_paused")
    body = api.post(f"{path}/resume").json()
    assert (body["state"], body["paused_by"], body["resume_at"]) == ("enabled", None, None)
    assert body["next_run_at"] is not None
    check_problem(api.post(f"{path}/resume"), 409, "not_paused")


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"until": "2001-01-01T00:00:00Z"}, "until"),
        ({"until": "2999-01-01T00:00:00Z"}, "until"),
        ({"until": "soon"}, "until"),
        ({"reason": "x" * 501}, "reason"),
        ({"by": "me"}, "by"),
    ],
)
def test_a_pause_that_cannot_be_is_refused(
    asked: dict[str, Any], field: str, path: str, api: Api
) -> None:
    assert errors(api.post(f"{path}/pause", asked)) == [field]
    assert Schedule.objects.get().is_paused is False


def test_pausing_all_remembers_who_was_paused_before(path: str, api: Api, admin: Api) -> None:
    alone = make_schedule(name="alone")
    make_schedule(name="disabled", is_enabled=False)
    schedules.pause(alone.pk, by="key:x")
    done = admin.post(f"{PATH}/pause-all", {"reason": "release"}).json()
    assert done == {"count": 1, "is_exact": True}
    body = api.get(path).json()
    assert (body["state"], body["is_paused_by_all"], body["pause_reason"]) == (
        "paused",
        True,
        "release",
    )
    assert admin.post(f"{PATH}/resume-all").json()["count"] == 1
    assert api.get(path).json()["state"] == "enabled"
    assert Schedule.objects.get(name="alone").is_paused
    assert not Schedule.objects.get(name="disabled").is_enabled


# -- Trigger ---------------------------------------------------------------------------------------


def test_a_trigger_answers_with_the_job_and_leaves_the_next_run_alone(path: str, api: Api) -> None:
    before = api.get(path).json()["next_run_at"]
    response = api.post(f"{path}/trigger", {"payload": {"only": "now"}})
    assert response.status_code == 202
    made = response.json()
    assert (made["workflow_run_id"], response["Location"]) == (
        None,
        f"/jm-api/alpha/jobs/{made['job_id']}",
    )
    job = api.get(response["Location"]).json()
    assert (job["payload"], job["trigger"], job["due_at"]) == ({"only": "now"}, "manual", None)
    assert job["schedule_id"] == path.rpartition("/")[2]
    body = api.get(path).json()
    assert (body["next_run_at"], body["last_job_id"]) == (before, made["job_id"])


def test_a_trigger_may_be_repeated_under_its_key(path: str, api: Api) -> None:
    first = api.post(f"{path}/trigger", {}, idempotency_key="k")
    again = api.post(f"{path}/trigger", {}, idempotency_key="k")
    assert (first.status_code, again.status_code) == (202, 202)
    assert again["Idempotent-Replayed"] == "true"
    assert again["Location"] == first["Location"]
    assert Job.objects.count() == 1
    other = api.post(f"{path}/trigger", {"payload": 1}, idempotency_key="k")
    check_problem(other, 422, "idempotency_key_reused")


def test_one_that_is_paused_can_be_triggered_and_one_that_is_disabled_cannot(
    path: str, api: Api
) -> None:
    api.post(f"{path}/pause")
    assert api.post(f"{path}/trigger").status_code == 202
    api.patch(path, {"is_enabled": False})
    check_problem(api.post(f"{path}/trigger"), 409, "disabled")
    assert Job.objects.count() == 1


def test_a_second_trigger_waits_for_the_first_and_says_so(path: str, api: Api) -> None:
    first = api.post(f"{path}/trigger").json()["job_id"]
    second = api.post(f"{path}/trigger").json()["job_id"]
    job = api.get(f"alpha/jobs/{second}").json()
    assert (job["state"], job["waits_for"]) == ("blocked", "run")
    [reason] = [r for r in api.get(f"alpha/jobs/{second}/why").json()["reasons"]
                if r["code"] == "run_before"]  # fmt: skip
    assert reason["data"]["job_ids"] == [first]
    assert first in reason["message"]


# -- Previews --------------------------------------------------------------------------------------


def test_a_preview_tells_the_runs_of_a_definition_that_is_not_stored(
    alpha: object, api: Api
) -> None:
    asked = {
        "timing": "cron",
        "expression": "30 2 * * *",
        "timezone": "Europe/Berlin",
        "exclusions": {"dates": ["2030-03-30"]},
        "after": "2030-03-29T12:00:00Z",
        "count": 3,
    }
    body = api.post(f"{PATH}/preview", asked).json()
    assert list(body) == list(Preview().fields)
    assert list(body["items"][0]) == list(OccurrenceItem().fields)
    assert [(i["local"], i["is_on_clock_change"], i["excluded"]) for i in body["items"]] == [
        ("2030-03-30T02:30:00+01:00", False, "date 2030-03-30"),
        ("2030-03-31T03:00:00+02:00", True, None),
        ("2030-04-01T02:30:00+02:00", False, None),
    ]
    assert body["items"][1]["due_at"] == "2030-03-31T01:00:00.000000Z"
    assert "Europe/Berlin" in body["sentence"]
    assert not Schedule.objects.exists()


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"timing": "cron", "expression": "0 7 * * 1-5"}, "At 07:00 on weekdays"),
        ({"timing": "cron", "expression": "@every 1h30m"}, "Every 1 hour 30 minutes"),
        ({"timing": "interval", "interval_seconds": 300}, "Every 5 minutes"),
        ({"timing": "once", "run_at": "2040-01-01T00:00"}, "Once, at 2040-01-01 00:00:00 (UTC)"),
    ],
)
def test_a_timing_is_told_in_plain_words(
    asked: dict[str, Any], sentence: str, alpha: object, api: Api
) -> None:
    body = api.post(f"{PATH}/preview", asked).json()
    told = body["sentence"]
    if "weekdays" in sentence:
        assert "07:00" in told and "Monday through Friday" in told
    else:
        assert told.startswith(sentence)


@pytest.mark.once
@pytest.mark.parametrize(
    ("asked", "code", "field"),
    [
        ({}, "invalid", "timing"),
        ({"timing": "cron", "expression": "x"}, "invalid_cron", "expression"),
        ({"timing": "cron", "expression": "@daily", "timezone": "x"}, "invalid_timezone", "timezone"),
        (
            {"timing": "once", "run_at": "2029-03-25T02:30", "timezone": "Europe/Berlin"},
            "invalid",
            "run_at",
        ),
        (
            {"timing": "once", "run_at": "2040-01-01T00:00", "timezone": "x"},
            "invalid_timezone",
            "timezone",
        ),
        ({"timing": "interval", "interval_seconds": 0.5}, "invalid", "interval_seconds"),
        ({"timing": "cron", "expression": "@daily", "count": 101}, "invalid", "count"),
        ({"timing": "cron", "expression": "@daily", "colour": "x"}, "invalid", "colour"),
        (
            {"timing": "cron", "expression": "@daily", "exclusions": {"dates": "x"}},
            "invalid",
            "exclusions.dates",
        ),
    ],
)  # fmt: skip
def test_a_preview_refuses_what_could_not_be_stored(
    asked: dict[str, Any], code: str, field: str, alpha: object, api: Api
) -> None:
    assert errors(api.post(f"{PATH}/preview", asked), code=code) == [field]


WHOLE = {
    **HOURLY,
    "description": "all of it",
    "queue": "reports",
    "payload": {"a": 1},
    "tags": ["x"],
    "spread_seconds": 60,
    "misfire": "all",
    "overlap": "skip",
    "is_enabled": True,
}


@pytest.mark.parametrize("extra", [{}, {"count": 2}])
def test_the_body_that_makes_a_schedule_may_be_previewed(
    extra: dict[str, Any], alpha: object, api: Api, viewer: Api
) -> None:
    make_queue("reports")
    before = api.post(PATH, {**WHOLE, "name": "one before"}).json()["id"]
    asked = {**WHOLE, "depends_on": [before]}
    body = viewer.post(f"{PATH}/preview", {**asked, **extra}).json()
    assert len(body["items"]) == extra.get("count", 10)
    made = api.post(PATH, asked)
    assert made.status_code == 201
    assert body["items"][0]["due_at"] == made.json()["next_due_at"]


@pytest.mark.parametrize(
    "changed",
    [
        {"name": None},
        {"name": "taken"},
        {"type": ""},
        {"type": None},
        {"kind": "http", "payload": {"url": "ftp://x"}},
        {"kind": "steps", "payload": {"steps": []}},
        {"queue": "nowhere"},
        {"payload_base64": "AAAA"},
        {"retry_curve": "9,x"},
        {"tags": ["x", ""]},
        {"misfire": "never"},
        {"workflow_id": MISSING},
        {"depends_on": [MISSING]},
        {"depends_on": [MISSING, MISSING]},
        {"colour": "red"},
        {"interval_seconds": 5},
    ],
)
def test_what_is_refused_when_it_is_made_is_refused_in_a_preview(
    changed: dict[str, Any], alpha: object, api: Api
) -> None:
    make_queue("reports")
    assert api.post(PATH, {**WHOLE, "name": "Taken"}).status_code == 201
    asked = {**WHOLE, **changed}
    made, seen = api.post(PATH, asked), api.post(f"{PATH}/preview", asked)
    assert made.status_code in (400, 409), made.content
    assert seen.status_code == made.status_code, seen.content
    told = [{k: v for k, v in one.json().items() if k not in ("instance", "request_id")}
            for one in (made, seen)]  # fmt: skip
    assert told[0] == told[1]


def test_the_next_runs_of_a_schedule_with_and_without_what_is_excluded(path: str, api: Api) -> None:
    api.patch(path, {"expression": "0 * * * *"})
    api.put(f"{path}/exclusions", {"time_ranges": [{"start": "01:00", "end": "23:00"}]})
    after = "after=2030-01-01T00:30:00Z"
    items = api.get(f"{path}/next-runs?count=2&{after}").json()["items"]
    assert [item["excluded"] for item in items] == ["time 01:00-23:00"] * 2
    items = api.get(f"{path}/next-runs?count=2&{after}&include_excluded=false").json()["items"]
    assert [item["due_at"][:16] for item in items] == ["2030-01-01T23:00", "2030-01-02T00:00"]
    api.post(f"{path}/pause")
    assert len(api.get(f"{path}/next-runs").json()["items"]) == 10
    assert errors(api.get(f"{path}/next-runs?count=0")) == ["count"]


# -- Exclusions ------------------------------------------------------------------------------------


def test_exclusions_are_set_added_to_and_removed(path: str, api: Api) -> None:
    address = f"{path}/exclusions"
    nothing = {"dates": [], "days_of_week": [], "time_ranges": [], "calendars": [], "countries": []}
    assert api.get(address).json() == nothing
    put = api.put(address, {"dates": ["2030-12-25"], "days_of_week": ["sun"]})
    assert put.json() == {**nothing, "dates": ["2030-12-25"], "days_of_week": ["Sunday"]}
    assert put["ETag"] == '"2"'
    posted = api.post(address, {"dates": ["2030-01-01", "2030-12-25"], "countries": ["DE"]})
    assert posted.json()["dates"] == ["2030-01-01", "2030-12-25"]
    assert posted.json()["days_of_week"] == ["Sunday"]
    check_problem(api.put(address, {}, if_match='"1"'), 412, "precondition_failed")
    assert api.put(address, {"dates": ["2031-01-01"]}).json()["days_of_week"] == []
    assert api.delete(address).status_code == 204
    assert api.get(address).json() == nothing
    assert Schedule.objects.get().version == 5


EVERY_DAY = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]


@pytest.mark.once
@pytest.mark.parametrize("verb", ["put", "post"])
@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"dates": ["2030-02-30"]}, "dates[0]"),
        ({"dates": "2030-02-03"}, "dates"),
        ({"days_of_week": ["Someday"]}, "days_of_week[0]"),
        ({"time_ranges": [{"start": "1:00", "end": "02:00"}]}, "time_ranges[0].start"),
        ({"time_ranges": ["01:00-02:00"]}, "time_ranges[0]"),
        ({"calendars": ["nobody knows it"]}, "calendars[0]"),
        ({"countries": ["Germany"]}, "countries[0]"),
        ({"weekends": True}, "weekends"),
        ({"days_of_week": EVERY_DAY}, "exclusions"),
    ],
)
def test_exclusions_that_cannot_be_are_refused(
    verb: str, asked: dict[str, Any], field: str, path: str, api: Api
) -> None:
    response = getattr(api, verb)(f"{path}/exclusions", asked)
    assert errors(response) == [field]
    assert Schedule.objects.get().exclusions == {}


# -- Dependencies ----------------------------------------------------------------------------------


def test_dependencies_are_set_shown_and_removed(path: str, api: Api) -> None:
    first, second = make_schedule(name="b first"), make_schedule(name="a second")
    address = f"{path}/dependencies"
    asked = {"depends_on": [str(first.pk), str(second.pk)], "needs": "any"}
    body = api.put(address, asked).json()
    assert list(body) == list(Prerequisites().fields)
    assert (body["needs"], [item["name"] for item in body["items"]]) == (
        "any",
        ["a second", "b first"],
    )
    assert api.get(address).json() == body
    assert api.get(path).json()["depends_on"] == [str(second.pk), str(first.pk)]
    assert api.delete(f"{PATH}/{first.pk}").status_code == 200
    assert [item["state"] for item in api.get(address).json()["items"]] == ["enabled", "deleted"]
    assert api.delete(address).status_code == 204
    assert api.get(address).json()["items"] == []


def test_who_deletes_what_others_need_is_told_of_them(path: str, api: Api) -> None:
    needed = make_schedule(name="needed")
    make_schedule(name="waits", depends_on=[needed.pk])
    workflows.create("graph", [NewNode(needed.pk)], by="test")
    schedules.delete(make_schedule(name="gone", depends_on=[needed.pk]).pk, by="test")
    answer = api.delete(f"{PATH}/{needed.pk}")
    assert answer.status_code == 200
    assert list(answer.json()) == list(DeletedSchedule().fields)
    assert [text.partition(":")[0] for text in answer.json()["warnings"]] == [
        "schedule 'waits' depends on it",
        "workflow 'graph' has it as a node",
    ]
    assert Schedule.objects.get(pk=needed.pk).deleted_at is not None
    alone = api.delete(path)
    assert (alone.status_code, alone.content) == (204, b"")


def test_a_circle_of_dependencies_is_refused(path: str, api: Api) -> None:
    own = str(Schedule.objects.get().pk)
    second = make_schedule(name="second", depends_on=[UUID(own)])
    third = make_schedule(name="third", depends_on=[second.pk])
    for asked, code in (
        ([str(third.pk)], "dependency_cycle"),
        ([own], "invalid"),
        ([str(second.pk), str(second.pk)], "invalid"),
        ([MISSING], "invalid"),
        ([], "invalid"),
    ):
        refused = api.put(f"{path}/dependencies", {"depends_on": asked})
        assert errors(refused, code=code) == ["depends_on"]
    assert ScheduleDependency.objects.count() == 2
    assert Schedule.objects.get(pk=own).version == 1


def test_a_run_that_waits_for_schedules_says_for_which(path: str, api: Api) -> None:
    gone, slow = make_schedule(name="gone"), make_schedule(name="slow")
    api.put(f"{path}/dependencies", {"depends_on": [str(gone.pk), str(slow.pk)]})
    api.delete(f"{PATH}/{gone.pk}")
    schedule = Schedule.objects.get(pk=path.rpartition("/")[2])
    put_back(schedule, hours_ago(0))
    fire()
    [job] = runs_of(schedule)
    why = api.get(f"alpha/jobs/{job.pk}/why").json()["reasons"]
    [reason] = [one for one in why if one["code"] == "schedules"]
    assert "'gone' (deleted), 'slow'. What is deleted never succeeds" in reason["message"]
    assert reason["data"]["schedules"] == ["gone", "slow"]
    api.post(f"{PATH}/{slow.pk}/trigger")
    end_run(runs_of(slow)[0])
    [reason] = [
        one
        for one in api.get(f"alpha/jobs/{job.pk}/why").json()["reasons"]
        if one["code"] == "schedules"
    ]
    assert reason["data"]["schedules"] == ["gone"]


# -- Fires and runs --------------------------------------------------------------------------------


def test_fires_tell_what_ran_and_what_was_left_out_and_why(path: str, api: Api) -> None:
    schedule = Schedule.objects.get()
    put_back(schedule, hours_ago(5))
    fire()
    body = api.get(f"{path}/fires").json()
    assert list(body["items"][0]) == list(FireItem().fields)
    [ran, missed] = body["items"]
    [job] = runs_of(schedule)
    assert (ran["state"], ran["job_id"], ran["reason"]) == ("fired", str(job.pk), None)
    assert (missed["state"], missed["reason"], missed["count"]) == ("missed", "misfire", 5)
    assert missed["due_at"] == format_time(hours_ago(5))
    only = api.get(f"{path}/fires?state=missed").json()["items"]
    assert only == [missed]
    assert api.get(f"{path}/fires/count").json() == {"count": 2, "is_exact": True}
    assert api.get(f"{path}/fires/count?state=skipped").json()["count"] == 0
    page = api.get(f"{path}/fires?limit=1").json()
    assert page["items"] == [ran]
    page = api.get(page["next"]).json()
    assert (page["items"], page["next"]) == ([missed], None)
    assert api.get(page["previous"]).json()["items"] == [ran]


def test_jobs_are_found_by_what_made_them(path: str, api: Api) -> None:
    schedule = Schedule.objects.get()
    put_back(schedule, hours_ago(0))
    fire()
    api.post(f"{path}/trigger")
    make_schedule(name="other")
    api.post("alpha/jobs", {"type": "demo:noop"})
    found = api.get(f"alpha/jobs?schedule={schedule.pk}").json()["items"]
    assert [job["trigger"] for job in found] == ["manual", "schedule"]
    assert found[1]["due_at"] == format_time(hours_ago(0))
    [job] = api.get(f"alpha/jobs?schedule={schedule.pk}&trigger=schedule").json()["items"]
    assert job == found[1]
    assert api.get("alpha/jobs/count?trigger=manual").json()["count"] == 1
    assert api.get(f"alpha/jobs/count?workflow_run={MISSING}").json()["count"] == 0
    assert errors(api.get("alpha/jobs?schedule=x")) == ["schedule"]
    assert Fire.objects.count() == 1


def test_a_curve_of_waits_is_taken_and_shown(alpha: object, api: Api) -> None:
    job = api.post("alpha/jobs", {"type": "demo:noop", "retry_curve": "1,5,30"}).json()
    assert job["retry_curve"] == "1,5,30"
    refused = api.post("alpha/jobs", {"type": "demo:noop", "retry_curve": "1,x"})
    assert errors(refused) == ["retry_curve"]
