"""GET of lists of jobs."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from jobs.models import Schedule
from tests.dialects.scheduler.conftest import Caller, check_problem


@pytest.fixture
def jobs(api: Caller) -> dict[str, Any]:
    return {
        "a": api.make(name="alpha", tags=["red"], description="Nightly Report"),
        "b": api.make(name="Beta", tags=["red", "blue"], createdBy="ops", isEnabled=False),
        "c": api.make(name="gamma", tags=["redder"], scheduleType="Interval", intervalSeconds=60),
        "d": api.make(
            name="delta",
            jobType="HttpCall",
            jobConfiguration={"url": "https://example.com/", "method": "GET"},
        ),
    }


def names(api: Caller, query: str) -> list[str]:
    response = api.get(f"jobs?{query}")
    assert response.status_code == 200, response.content
    return [item["name"] for item in response.json()["items"]]


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("", ["delta", "gamma", "Beta", "alpha"]),
        ("sortDirection=asc", ["alpha", "Beta", "gamma", "delta"]),
        ("sortBy=name", ["alpha", "Beta", "delta", "gamma"]),
        ("sortBy=NAME&sortDirection=DESC", ["gamma", "delta", "Beta", "alpha"]),
        ("tag=red&sortBy=name", ["alpha", "Beta"]),
        ("tag=re", []),
        ("search=REPORT", ["alpha"]),
        ("search=eT", ["Beta"]),
        ("jobType=httpcall", ["delta"]),
        ("scheduleType=Interval", ["gamma"]),
        ("status=Disabled", ["Beta"]),
        ("status=active&sortBy=name", ["alpha", "delta", "gamma"]),
        ("status=Paused", []),
        ("createdBy=ops", ["Beta"]),
        ("tag=blue&status=Enabled", []),
        ("unknown=1&sortBy=name&pageSize=1", ["alpha"]),
        ("search=%25", []),
        ("search=_", []),
    ],
)
def test_filters_and_orders(query: str, wanted: list[str], api: Caller, jobs: Any) -> None:
    assert names(api, query) == wanted


@pytest.mark.parametrize("direction", ["asc", "desc"])
def test_what_never_runs_comes_last_in_both_directions(
    direction: str, api: Caller, jobs: Any
) -> None:
    assert names(api, f"sortBy=nextRunAt&sortDirection={direction}")[-1] == "Beta"


def test_pages_have_numbers_and_those_past_the_end_are_empty(api: Caller, jobs: Any) -> None:
    page = api.get("jobs?pageSize=3&pageNumber=2&sortBy=name").json()
    assert [item["name"] for item in page.pop("items")] == ["gamma"]
    assert page == {
        "totalCount": 4,
        "pageNumber": 2,
        "pageSize": 3,
        "totalPages": 2,
        "hasPreviousPage": True,
        "hasNextPage": False,
    }
    for far in ("3", "1000000000"):
        page = api.get(f"jobs?pageSize=3&pageNumber={far}").json()
        assert (page["items"], page["totalCount"], page["hasNextPage"]) == ([], 4, False)


@pytest.mark.once
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("pageNumber=0", "pageNumber"),
        ("pageNumber=-1", "pageNumber"),
        ("pageNumber=x", "pageNumber"),
        ("pageNumber=99999999999999999999", "pageNumber"),
        ("pageSize=0", "pageSize"),
        ("pageSize=201", "pageSize"),
        ("pageSize=1e1", "pageSize"),
        ("status=Nonsense", "status"),
        ("jobType=Shell", "jobType"),
        ("scheduleType=Daily", "scheduleType"),
        ("sortBy=password__startswith", "sortBy"),
        ("sortDirection=up", "sortDirection"),
        ("includeDeleted=perhaps", "includeDeleted"),
        ("search=" + "x" * 201, "search"),
        ("tag=%00", "tag"),
    ],
)
def test_bad_parameters_are_refused_by_name(query: str, field: str, api: Caller) -> None:
    check_problem(api.get(f"jobs?{query}"), 400, "validation_failed", field)


def test_lists_ask_for_the_status_that_jobs_are_shown_with(api: Caller, jobs: Any) -> None:
    now = timezone.now()
    api.make(name="ended")
    Schedule.objects.filter(name="ended").update(next_due_at=None, next_run_at=None)
    once = api.make(name="once", scheduleType="OneTime", runAt="2035-03-04T05:06:07Z")
    Schedule.objects.filter(pk=once["id"]).update(
        last_due_at=now, run_at=now, next_due_at=None, next_run_at=None
    )
    Schedule.objects.filter(name="gamma").all().park("no such zone any more")
    api.post(f"jobs/{jobs['d']['id']}/pause")
    api.delete(f"jobs/{api.make(name='gone')['id']}")
    wanted = {
        "Enabled": ["alpha", "gamma"],
        "Paused": ["delta"],
        "Disabled": ["Beta"],
        "Completed": ["ended", "once"],
        "Deleted": ["gone"],
    }
    for status, expected in wanted.items():
        items = api.get(f"jobs?sortBy=name&status={status}").json()["items"]
        assert [item["name"] for item in items] == expected
        assert {item["status"] for item in items} == {status}


def test_failed_jobs_come_with_most_failures_first(api: Caller, jobs: Any) -> None:
    for name, count in (("alpha", 3), ("gamma", 9), ("delta", 2)):
        Schedule.objects.filter(name=name).update(consecutive_failures=count, last_state="failed")
    found = api.get("jobs/failed").json()
    assert [(job["name"], job["currentStatus"]) for job in found] == [
        ("gamma", "Failed"),
        ("alpha", "Failed"),
    ]
    assert [job["name"] for job in api.get("jobs/failed?threshold=2").json()][-1] == "delta"
    assert names(api, "status=failed&sortBy=name") == ["alpha", "delta", "gamma"]
    check_problem(api.get("jobs/failed?threshold=0"), 400, "validation_failed", "threshold")


def test_a_page_costs_the_same_number_of_questions_whatever_its_size(api: Caller) -> None:
    def questions() -> int:
        with CaptureQueriesContext(connections["cluster-alpha"]) as captured:
            assert api.get("jobs?pageSize=200").status_code == 200
        return len(captured)

    first = api.make(name="first")
    one = questions()
    for number in range(5):
        made = api.make(name=f"job {number}")
        body = {"dependsOnJobIds": [first["id"]], "condition": "AllSucceeded"}
        api.post(f"jobs/{made['id']}/dependencies", body)
    assert questions() == one


def test_tags_are_told_with_how_many_bear_them(api: Caller, jobs: Any) -> None:
    assert api.get("tags").json() == [
        {"name": "blue", "jobCount": 1},
        {"name": "red", "jobCount": 2},
        {"name": "redder", "jobCount": 1},
    ]
