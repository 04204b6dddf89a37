"""Exclusions and dependencies."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.models import Job, Schedule
from tests.dialects.scheduler.conftest import MISSING, Caller, check_problem
from tests.jobs.schedule_cases import end_run, fire, hourly, hours_ago, put_back, runs_of

BAD, CYCLE = "validation_failed", "dependency_cycle"


def test_each_addition_lies_over_the_ones_before(api: Caller) -> None:
    address = f"jobs/{api.make(scheduleExpression='0 15 * * *')['id']}/exclusions"
    first = {"excludedDates": ["2034-12-25"], "timeRange": {"start": "22:00", "end": "06:00"}}
    second = {
        "excludedDates": ["2034-12-25", "2034-12-26"],
        "excludedDaysOfWeek": ["sat", 0, "3"],
        "timeRange": {"start": "12:00:00", "end": "12:30:15"},
    }
    for body in (first, second):
        response = api.post(address, body)
        assert (response.status_code, response.content) == (200, b""), response.content
    found = api.get(address).json()
    assert found["excludedDates"] == ["2034-12-25", "2034-12-26"]
    assert found["excludedDaysOfWeek"] == ["Wednesday", "Saturday", "Sunday"]
    assert found["timeRanges"] == [
        {"start": "22:00", "end": "06:00"},
        {"start": "12:00", "end": "12:30:15"},
    ]
    assert found["timeRange"] == found["timeRanges"][-1]
    # What came out goes in again and means the same.
    assert api.put(address, found).status_code == 200
    assert api.get(address).json() == found


def test_replacing_and_clearing(api: Caller) -> None:
    made = api.make()
    address = f"jobs/{made['id']}/exclusions"
    api.post(address, {"excludedDaysOfWeek": ["Monday"]})
    assert api.put(address, {"excludedDates": ["2034-01-01"]}).status_code == 200
    found = api.get(address).json()
    assert (found["excludedDates"], found["excludedDaysOfWeek"]) == (["2034-01-01"], [])
    assert api.job(made["id"])["exclusions"] == found
    assert api.delete(address).status_code == 204
    assert api.job(made["id"])["exclusions"] is None
    assert api.get(address).json()["timeRanges"] == []


def test_the_next_run_is_never_an_excluded_one(api: Caller) -> None:
    made = api.make(scheduleExpression="0 * * * *")
    body = {"timeRange": {"start": "00:30", "end": "00:15"}}
    assert api.post(f"jobs/{made['id']}/exclusions", body).status_code == 400
    body = {"timeRange": {"start": "01:00", "end": "00:00"}}
    assert api.post(f"jobs/{made['id']}/exclusions", body).status_code == 200
    assert api.job(made["id"])["nextRunAt"].endswith("T00:00:00Z")
    shown = api.get(f"jobs/{made['id']}/next-runs?count=30").json()
    assert len(shown) == 30
    assert {one["runAt"][11:13] for one in shown if not one["isExcluded"]} <= {"00"}
    assert any(one["excludedBy"] == "time 01:00-00:00" for one in shown if one["isExcluded"])


@pytest.mark.once
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"excludedDates": []}, "body"),
        ([], "body"),
        ({"excludedDates": ["2034-02-30"]}, "excludedDates[0]"),
        ({"excludedDates": ["2034-01-01", "1.1.2034"]}, "excludedDates[1]"),
        ({"excludedDates": "2034-01-01"}, "excludedDates"),
        ({"excludedDates": [7]}, "excludedDates[0]"),
        ({"excludedDaysOfWeek": ["Caturday"]}, "excludedDaysOfWeek[0]"),
        ({"excludedDaysOfWeek": [7]}, "excludedDaysOfWeek[0]"),
        ({"excludedDaysOfWeek": [True]}, "excludedDaysOfWeek[0]"),
        ({"excludedDaysOfWeek": {}}, "excludedDaysOfWeek"),
        ({"timeRange": {"start": "22:00"}}, "timeRange.end"),
        ({"timeRange": {"start": "24:00", "end": "06:00"}}, "timeRange.start"),
        ({"timeRange": {"start": "9:00", "end": "10:00"}}, "timeRange.start"),
        ({"timeRange": {"start": "09:00", "end": "09:00:00"}}, "timeRange.end"),
        ({"timeRange": {"start": 9, "end": 10}}, "timeRange.start"),
        ({"timeRange": "22:00-06:00"}, "timeRange"),
        ({"timeRanges": [{"start": "22:00", "end": "x"}]}, "timeRanges[0].end"),
        ({"calendars": ["nobody's"]}, "calendars[0]"),
        ({"excludedDaysOfWeek": [0, 1, 2, 3, 4, 5, 6]}, "exclusions"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_bad_exclusions_are_refused_and_none_is_stored(
    method: str, body: Any, field: str, api: Caller
) -> None:
    made = api.make()
    response = api(method, f"jobs/{made['id']}/exclusions", body)
    check_problem(response, 400, "validation_failed", field)
    assert Schedule.objects.get().exclusions == {}


def test_an_exclusion_of_the_only_run_is_refused(api: Caller) -> None:
    made = api.make(scheduleType="OneTime", runAt="2035-05-05T10:00:00Z")
    body = {"excludedDates": ["2035-05-05"]}
    response = api.post(f"jobs/{made['id']}/exclusions", body)
    check_problem(response, 400, "validation_failed", "runAt", title="Add exclusions failed")


# -- Dependencies ----------------------------------------------------------------------------------


def test_dependencies_are_replaced_together_with_their_condition(api: Caller) -> None:
    first, second, third = (api.make(name=name)["id"] for name in "abc")
    address = f"jobs/{third}/dependencies"
    body = {"dependsOnJobIds": [first, second], "condition": "AllSucceeded"}
    response = api.post(address, body)
    assert (response.status_code, response.content) == (200, b"")
    assert set(api.job(third)["dependencies"]["dependsOnJobIds"]) == {first, second}
    body = {"dependsOnJobIds": [second.upper()], "condition": "anysucceeded"}
    assert api.put(address, body).status_code == 200
    assert api.get(address).json() == {
        "dependsOnJobIds": [second],
        "condition": "AnySucceeded",
        "dependsOnJobNames": ["b"],
        "warnings": [],
    }
    api.post(f"jobs/{second}/pause")
    assert api.get(address).json()["warnings"] == ["b is paused"]
    assert api.delete(address).status_code == 204
    assert api.get(address).json()["dependsOnJobIds"] == []
    assert api.job(third)["dependencies"] is None


def test_a_run_waits_for_those_it_depends_on(api: Caller) -> None:
    first = api.make(name="a")["id"]
    second = api.make(name="b", scheduleExpression=hourly())["id"]
    body = {"dependsOnJobIds": [first], "condition": "AllSucceeded"}
    api.post(f"jobs/{second}/dependencies", body)
    waiting = Schedule.objects.get(pk=second)
    put_back(waiting, hours_ago(0))
    fire()
    (run,) = runs_of(waiting)
    shown = api.get(f"executions/{run.pk}").json()
    assert (shown["status"], shown["waitingOn"]) == ("Pending", [first])
    assert shown["triggerType"] == "Dependency"
    end_run(Job.objects.get(pk=api.post(f"jobs/{first}/trigger").json()))
    shown = api.get(f"executions/{run.pk}").json()
    assert (shown["waitingOn"], shown["triggerType"]) == ([], "Schedule")


@pytest.mark.once
@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({}, BAD, "dependsOnJobIds"),
        ({"dependsOnJobIds": ["{b}"]}, BAD, "condition"),
        ({"dependsOnJobIds": [], "condition": "AllSucceeded"}, BAD, "dependsOnJobIds"),
        ({"dependsOnJobIds": ["x"], "condition": "AllSucceeded"}, BAD, "dependsOnJobIds[0]"),
        ({"dependsOnJobIds": [7], "condition": "AllSucceeded"}, BAD, "dependsOnJobIds[0]"),
        ({"dependsOnJobIds": "{b}", "condition": "AllSucceeded"}, BAD, "dependsOnJobIds"),
        ({"dependsOnJobIds": ["{b}"], "condition": "MostSucceeded"}, BAD, "condition"),
        ({"dependsOnJobIds": ["{a}"], "condition": "AllSucceeded"}, BAD, "dependsOnJobIds"),
        ({"dependsOnJobIds": ["{b}", "{b}"], "condition": "AllSucceeded"}, BAD, "dependsOnJobIds"),
        ({"dependsOnJobIds": [MISSING], "condition": "AllSucceeded"}, BAD, "dependsOnJobIds"),
        ({"dependsOnJobIds": ["{b}"], "condition": "AllSucceeded"}, CYCLE, "dependsOnJobIds"),
    ],
)  # fmt: skip
def test_bad_dependencies_are_refused(body: Any, code: str, field: str, api: Caller) -> None:
    first, second = api.make(name="a")["id"], api.make(name="b")["id"]
    circle = {"dependsOnJobIds": [first], "condition": "AllSucceeded"}
    assert api.post(f"jobs/{second}/dependencies", circle).status_code == 200
    ids = body.get("dependsOnJobIds")
    if isinstance(ids, list):
        known = {"{a}": first, "{b}": second}
        body = {**body, "dependsOnJobIds": [known.get(one, one) for one in ids]}
    response = api.post(f"jobs/{first}/dependencies", body)
    check_problem(response, 400, code, field)
    assert api.job(first)["dependencies"] is None
