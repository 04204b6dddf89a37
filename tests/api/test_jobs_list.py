"""GET {cluster}/jobs and {cluster}/jobs/count"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from clusters.api.fields import format_time
from jobs import listing
from jobs.api.items import LISTED_ERROR_LENGTH
from jobs.api.job_wire import JobDetail, JobItem
from jobs.states import State
from tests.api.conftest import Api, fields
from tests.factories import make_job

AN_ID = UUID("01a20191-868c-7979-8cdf-31c02d86b8b8")
A_NODE = UUID("01a20191-868c-7979-8cdf-31c02d86b8b9")
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def listed(api: Api, query: str = "") -> list[str]:
    response = api.get(f"alpha/jobs?{query}")
    assert response.status_code == 200, response.content
    return [job["type"] for job in response.json()["items"]]


@pytest.fixture
def jobs(alpha: object) -> None:
    """One job a minute from noon on, of several sorts; the newest is `t:5`."""
    sorts: list[dict[str, Any]] = [
        {"state": State.READY, "unique_key": "monday"},
        {"state": State.SCHEDULED, "queue": "mail", "copy_of": AN_ID},
        {"state": State.RUNNING, "kind": "http", "node_id": A_NODE},
        {
            "state": State.FAILED,
            "tags": ["red", "blue"],
            "is_held": True,
            "fingerprint": "0123456789abcdef",
            "node_id": A_NODE,
            "metadata": {"size": "1", "eu": True},
        },
        {
            "state": State.SUCCEEDED,
            "tags": ["red"],
            "queue": "mail",
            "metadata": {"size": 1.0, "eu": True},
        },
        {"state": State.CANCELLED, "unique_key": "monday"},
    ]
    for minute, columns in enumerate(sorts):
        when = NOON + timedelta(minutes=minute)
        if columns["state"] in (State.FAILED, State.SUCCEEDED, State.CANCELLED):
            columns["finished_at"] = when + timedelta(hours=1)
        make_job(type=f"t:{minute}", created_at=when, **columns)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "543210"),
        ("state=failed", "3"),
        ("state=failed&state=ready&state=failed", "30"),
        ("queue=mail", "41"),
        ("queue=nope", ""),
        ("kind=http", "2"),
        ("type=t:4", "4"),
        ("tag=red", "43"),
        ("tag=red&queue=mail", "4"),
        ("tag=%25", ""),
        ("created_after=2026-01-31T12:04:00Z", "54"),
        ("created_before=2026-01-31T12:01:00Z", "0"),
        ("created_after=2026-01-31T13:02:00%2B01:00&created_before=2026-01-31T12:04:00Z", "32"),
        ("finished_after=2026-01-31T13:04:00.000000Z", "54"),
        ("finished_before=2026-01-31T13:04:00Z", "3"),
        ("limit=2", "54"),
        ("metadata=size:1", "4"),
        ("metadata=size:%221%22", "3"),
        ("metadata=size:%221%22&metadata=eu:true", "3"),
        ("metadata=size:1&metadata=eu:false", ""),
        ("metadata=eu:true&state=succeeded&state=failed", "43"),
        ("reason=error", "3"),
        ("reason=lost", ""),
        ("is_held=true", "3"),
        ("is_held=false", "54210"),
        ("failure=0123456789abcdef", "3"),
        ("copy_of=01A20191-868c-7979-8cdf-31c02d86b8b8", "1"),
        ("unique_key=monday", "50"),
        ("node=01a20191-868c-7979-8cdf-31c02d86b8b9", "2"),
        ("node=01a20191-868c-7979-8cdf-31c02d86b8b9&state=failed", ""),
    ],
)
def test_filters_choose_and_the_newest_comes_first(
    query: str, expected: str, jobs: None, viewer: Api
) -> None:
    assert listed(viewer, query) == [f"t:{digit}" for digit in expected]
    if "limit" not in query:
        count = viewer.get(f"alpha/jobs/count?{query}").json()
        assert count == {"count": len(expected), "is_exact": True}


@pytest.mark.once
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("nonsense=1", "nonsense"),
        ("state__in=ready", "state__in"),
        ("_connector=OR", "_connector"),
        ("order_by=id", "order_by"),
        ("offset=10", "offset"),
        ("page=1", "page"),
        ("state=", "state"),
        ("state=ready&state=nope", "state"),
        ("state=READY", "state"),
        ("&".join(["state=ready"] * 10), "state"),
        ("queue=a&queue=b", "queue"),
        ("queue=", "queue"),
        ("queue=" + "a" * 101, "queue"),
        ("type=%00", "type"),
        ("tag=" + "a" * 61, "tag"),
        ("kind=nope", "kind"),
        ("created_after=yesterday", "created_after"),
        ("created_after=2026-01-31", "created_after"),
        ("created_after=2026-01-31T12:00:00", "created_after"),
        ("created_after=2026-01-31T12:00:00+01:00", "created_after"),
        ("created_after=1769860800", "created_after"),
        ("finished_before=0000-00-00T00:00:00Z", "finished_before"),
        ("metadata=size", "metadata"),
        ("metadata=:1", "metadata"),
        ("metadata=" + "k" * 61 + ":1", "metadata"),
        ("metadata=" + "&metadata=".join(["a:1"] * 6), "metadata"),
        ("metadata=a:%22%5Cud800%22", "metadata"),
        ("metadata=a:%00", "metadata"),
        ("metadata=", "metadata"),
        ("reason=nope", "reason"),
        ("is_held=1", "is_held"),
        ("is_held=True", "is_held"),
        ("is_held=true&is_held=true", "is_held"),
        ("failure=" + "a" * 17, "failure"),
        ("copy_of=1", "copy_of"),
        ("node=nope", "node"),
        ("unique_key=" + "a" * 201, "unique_key"),
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=201", "limit"),
        ("limit=1e2", "limit"),
        ("limit=" + "9" * 5000, "limit"),
        ("limit=%D9%A3", "limit"),
        ("limit=10&limit=10", "limit"),
        ("cursor=x", "cursor"),
        ("cursor=" + "x" * 5000, "cursor"),
        ("count=yes", "count"),
    ],
)
def test_a_bad_query_is_400_and_names_the_parameter(
    query: str, field: str, alpha: object, viewer: Api
) -> None:
    assert set(fields(viewer.get(f"alpha/jobs?{query}"))) == {field}


def test_items_have_all_but_payload_and_result(jobs: None, viewer: Api) -> None:
    item = viewer.get("alpha/jobs").json()["items"][0]
    assert list(item) == list(JobItem().fields)
    whole = viewer.get(f"alpha/jobs/{item['id']}").json()
    assert list(whole) == list(JobDetail().fields)
    assert item.items() <= whole.items()


def test_a_list_shows_the_beginning_of_a_long_error(alpha: object, viewer: Api) -> None:
    job = make_job(State.FAILED, error="é" * 10_000)
    assert viewer.get("alpha/jobs").json()["items"][0]["error"] == "é" * LISTED_ERROR_LENGTH
    assert viewer.get(f"alpha/jobs/{job.pk}").json()["error"] == "é" * 10_000


def test_times_are_utc_with_six_digits_and_z(jobs: None, viewer: Api) -> None:
    item = viewer.get("alpha/jobs?type=t:0").json()["items"][0]
    assert item["created_at"] == "2026-01-31T12:00:00.000000Z"


def test_a_list_is_one_query_and_so_is_finding_the_caller(jobs: None, viewer: Api) -> None:
    # Once a minute it is noted that a key was used.
    viewer.get("whoami")
    for path in (
        "alpha/jobs",
        "alpha/jobs?state=failed&state=ready",
        "alpha/queues",
        "alpha/nodes",
    ):
        with (
            CaptureQueriesContext(connections["cluster-alpha"]) as cluster,
            CaptureQueriesContext(connections["default"]) as control,
        ):
            assert viewer.get(path).json()["items"]
        assert (len(cluster), len(control)) == (1, 1), path
        sql = cluster[0]["sql"].upper()
        assert "COUNT(" not in sql
        assert "OFFSET" not in sql


def test_counting_stops_at_its_limit(
    jobs: None, viewer: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "COUNT_LIMIT", 5)
    assert viewer.get("alpha/jobs/count").json() == {"count": 5, "is_exact": False}
    assert viewer.get("alpha/jobs/count?queue=mail").json() == {"count": 2, "is_exact": True}
    monkeypatch.setattr(listing, "COUNT_LIMIT", 6)
    assert viewer.get("alpha/jobs/count").json() == {"count": 6, "is_exact": True}


def test_a_list_may_bring_a_count(jobs: None, viewer: Api) -> None:
    body = viewer.get("alpha/jobs?count=exact&limit=1&queue=mail").json()
    assert (body["count"], body["is_exact"], len(body["items"])) == (2, True, 1)
    body = viewer.get("alpha/jobs?count=estimate").json()
    assert isinstance(body["count"], int)
    assert "count" not in viewer.get("alpha/jobs").json()


def test_a_count_has_no_pages(alpha: object, viewer: Api) -> None:
    assert fields(viewer.get("alpha/jobs/count?limit=5")) == ["limit"]


PATH = "alpha/jobs"


# -- The line, and what no index knows -------------------------------------------------------------


def test_the_line_says_what_the_parameters_say(api, alpha):
    wanted = make_job("failed", queue="mail", error="timed out", payload={"user": {"id": 7}})
    make_job("failed", queue="mail", error="no route", payload={"user": {"id": 7}})
    for query in (
        {"q": 'state:failed queue:mail error:"timed out" args.user.id:7'},
        {"q": "state:failed", "queue": "mail", "error": "TIMED"},
        {"error": "timed", "args": "user.id:7", "attempt": ">0", "since": "1h"},
    ):
        body = api.get(f"{PATH}?{urlencode(query)}").json()
        assert [job["id"] for job in body["items"]] == [str(wanted.pk)], query
        assert body["searched_to"] is None
    assert api.get(f"{PATH}/count?q=queue:mail").json() == {"count": 2, "is_exact": True}


@pytest.mark.once
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("q=state:failed&state=ready", "state"),
        ("q=colour:red", "colour"),
        ("q=nonsense", "nonsense"),
        ("q=", "q"),
        ("attempt=x", "attempt"),
        ("args=x", "args"),
        ("since=soon", "since"),
        ("error=x&count=exact", "error"),
    ],
)
def test_what_is_wrong_with_the_line_is_said_by_its_word(api, alpha, query, field):
    response = api.get(f"{PATH}?{query}")
    assert response.status_code == 400
    assert response.json()["errors"][0]["field"] == field


@pytest.mark.parametrize("word", ["attempt=3", "error=x", "args=a:b", "q=error:x"])
def test_what_is_looked_for_job_by_job_is_not_counted(api, alpha, word):
    response = api.get(f"{PATH}/count?{word}")
    assert response.status_code == 400
    assert "cannot be counted" in response.json()["errors"][0]["message"]


def test_a_search_goes_on_from_where_it_got_to(api, alpha, monkeypatch):
    from jobs import job_search

    now = timezone.now()
    jobs = [
        make_job("failed", error=f"e{n}", created_at=now - timedelta(minutes=n)) for n in range(20)
    ]
    monkeypatch.setattr(job_search, "SECONDS", 0.0)
    monkeypatch.setattr(job_search, "PAGE", 6)
    body = api.get(f"{PATH}?error=e13").json()
    assert body["items"] == []
    assert body["searched_to"] == format_time(jobs[5].created_at)
    found = []
    while body["next"]:
        body = api.get(body["next"]).json()
        found += [job["id"] for job in body["items"]]
    assert found == [str(jobs[13].pk)]
    assert body["searched_to"] is None
