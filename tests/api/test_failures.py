"""{cluster}/failures"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from clusters.binding import cluster_bound
from jobs.api.failures import FailureDetail, FailureItem
from jobs.models import Failure, FailureHour
from tests.api.conftest import Api, check_problem, fields

JOB = "0190a1b2-0000-7000-8000-000000000000"


def make_failure(number: int, *, hours_ago: float = 0, count: int = 1, **columns: Any) -> Failure:
    seen = timezone.now() - timedelta(hours=hours_ago)
    fingerprint = f"{number:016x}"
    FailureHour.objects.create(
        fingerprint=fingerprint,
        starts_at=seen.replace(minute=0, second=0, microsecond=0),
        count=count,
    )
    defaults: dict[str, Any] = {
        "error_type": "ValueError",
        "message": "no order <number>",
        "frame": "mail/tasks.py:send",
        "type": "mail:send",
        "queue": "mail",
        "job_id": JOB,
        "example": "ValueError: no order 17",
        "count": count,
        "first_seen_at": seen - timedelta(days=1),
        "last_seen_at": seen,
    }
    return Failure.objects.create(fingerprint=fingerprint, **{**defaults, **columns})


def listed(api: Api, query: str = "") -> list[int]:
    return [int(i["fingerprint"], 16) for i in api.get(f"alpha/failures{query}").json()["items"]]


def test_a_group_is_shown_with_its_counts_and_its_jobs(alpha: object, viewer: Api) -> None:
    failure = make_failure(7, hours_ago=2, count=3)
    body = viewer.get("alpha/failures").json()
    assert (body["next"], body["previous"]) == (None, None)
    (item,) = body["items"]
    assert list(item) == list(FailureItem().fields)
    assert item["message"] == "no order <number>"
    assert (item["count"], item["count_24h"], item["count_7d"]) == (3, 3, 3)
    assert item["jobs"] == f"/jm-api/alpha/jobs?failure={failure.fingerprint}"
    assert item["last_seen_at"].endswith("Z")


def test_counts_of_a_day_and_a_week_are_of_their_time(alpha: object, viewer: Api) -> None:
    failure = make_failure(7, hours_ago=1, count=100)
    hour = timezone.now().replace(minute=0, second=0, microsecond=0)
    for hours, count in ((30, 10), (24 * 8, 1000)):
        FailureHour.objects.create(
            fingerprint=failure.fingerprint, starts_at=hour - timedelta(hours=hours), count=count
        )
    (item,) = viewer.get("alpha/failures").json()["items"]
    assert (item["count_24h"], item["count_7d"]) == (100, 110)


def test_the_newest_come_first_or_the_most(alpha: object, viewer: Api) -> None:
    make_failure(1, hours_ago=3, count=5)
    make_failure(2, hours_ago=1, count=2)
    make_failure(3, hours_ago=2, count=9)
    make_failure(4, hours_ago=50, count=99)
    assert listed(viewer) == [2, 3, 1, 4]
    assert listed(viewer, "?order=newest") == [2, 3, 1, 4]
    assert listed(viewer, "?order=most") == [3, 1, 2]
    since = (timezone.now() - timedelta(hours=60)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert listed(viewer, f"?order=most&since={since}") == [4, 3, 1, 2]


def test_filters_choose(alpha: object, viewer: Api) -> None:
    make_failure(1, queue="mail", type="send", hours_ago=5)
    make_failure(2, queue="mail", type="read")
    make_failure(3, queue="web", type="send")
    assert listed(viewer, "?queue=mail") == [2, 1]
    assert listed(viewer, "?type=send") == [3, 1]
    assert listed(viewer, "?queue=mail&type=send") == [1]
    since = (timezone.now() - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert listed(viewer, f"?since={since}") == [3, 2]
    assert viewer.get("alpha/failures/count").json() == {"count": 3, "is_exact": True}
    assert viewer.get("alpha/failures/count?queue=mail").json()["count"] == 2


@pytest.mark.parametrize("order", ["newest", "most"])
def test_pages_follow_each_other_both_ways(order: str, alpha: object, viewer: Api) -> None:
    for number in range(1, 8):
        # Ties, so that the second column of the order counts too.
        make_failure(number, hours_ago=number // 3, count=1 + number // 3)
    every = listed(viewer, f"?order={order}")
    assert len(every) == 7
    seen: list[int] = []
    path: str | None = f"alpha/failures?order={order}&limit=3"
    last: dict[str, Any] = {}
    while path:
        last = viewer.get(path).json()
        seen += [int(item["fingerprint"], 16) for item in last["items"]]
        path = last["next"]
    assert seen == every
    before = viewer.get(last["previous"]).json()["items"]
    assert [int(item["fingerprint"], 16) for item in before] == every[3:6]


def test_a_list_takes_a_fixed_number_of_queries(
    alpha: object, viewer: Api, django_assert_max_num_queries: Any
) -> None:
    for number in range(20):
        make_failure(number)
    viewer.get("alpha/failures")
    with django_assert_max_num_queries(4, using="cluster-alpha"):
        assert len(listed(viewer)) == 20


def test_one_group_has_its_example_and_its_hours(alpha: object, viewer: Api) -> None:
    failure = make_failure(7, hours_ago=2, count=3)
    body = viewer.get(f"alpha/failures/{failure.fingerprint}").json()
    assert list(body) == list(FailureDetail().fields)
    assert body["example"] == "ValueError: no order 17"
    assert len(body["hours"]) == 168
    moments = [datetime.fromisoformat(hour["at"]) for hour in body["hours"]]
    assert moments == sorted(moments)
    assert [hour["count"] for hour in body["hours"][-4:]] == [0, 3, 0, 0]
    assert sum(hour["count"] for hour in body["hours"]) == 3


@pytest.mark.parametrize(
    "fingerprint", ["0" * 16, "0" * 15, "0" * 17, "A" * 16, "x", "%00", "0" * 16 + "%0A", "ü"]
)
def test_a_group_that_is_not_there_is_404(fingerprint: str, alpha: object, viewer: Api) -> None:
    make_failure(7)
    check_problem(viewer.get(f"alpha/failures/{fingerprint}"), 404, "not_found")


def test_the_other_cluster_has_its_own_failures(alpha: object, viewer: Api) -> None:
    with cluster_bound("beta"):
        failure = make_failure(7)
    assert listed(viewer) == []
    check_problem(viewer.get(f"alpha/failures/{failure.fingerprint}"), 404, "not_found")


@pytest.mark.once
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?order=oldest", "order"),
        ("?order=", "order"),
        ("?since=yesterday", "since"),
        ("?since=2026-01-31T12:00:00", "since"),
        ("?queue=", "queue"),
        ("?queue=a&queue=b", "queue"),
        ("?queue=a%00", "queue"),
        ("?queue=" + "q" * 101, "queue"),
        ("?type=%ff", "type"),
        ("?limit=0", "limit"),
        ("?limit=201", "limit"),
        ("?cursor=x", "cursor"),
        ("?message=x", "message"),
        ("/count?order=most", "order"),
        ("/count?limit=5", "limit"),
        (f"/{7:016x}?since=2026-01-31T12:00:00Z", "since"),
    ],
)
def test_a_bad_parameter_is_400_and_named(
    query: str, field: str, alpha: object, viewer: Api
) -> None:
    make_failure(7)
    assert fields(viewer.get(f"alpha/failures{query}")) == [field]


@pytest.mark.parametrize("since", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
@pytest.mark.parametrize("order", ["newest", "most"])
def test_the_ends_of_time_are_no_error(since: str, order: str, alpha: object, viewer: Api) -> None:
    make_failure(7)
    assert listed(viewer, f"?since={since}&order={order}") == ([7] if since < "2" else [])


def test_a_cursor_of_one_order_is_refused_in_the_other(alpha: object, viewer: Api) -> None:
    for number in range(3):
        make_failure(number)
    following = viewer.get("alpha/failures?order=most&limit=1").json()["next"]
    assert fields(viewer.get(following.replace("most", "newest"))) == ["cursor"]


# -- What people say -------------------------------------------------------------------------------


def test_people_say_what_a_group_is(alpha: object, api: Api) -> None:
    path = f"alpha/failures/{make_failure(7).fingerprint}"
    until = (timezone.now() + timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    body = {"mark": "muted", "muted_until": until, "owner": "ann", "reason": "later"}
    answer = api.patch(path, body).json()
    assert list(answer) == list(FailureDetail().fields)
    assert (answer["mark"], answer["muted_until"], answer["owner"]) == ("muted", until, "ann")
    assert answer["mark_reason"] == "later" and answer["marked_by"].startswith("key:")
    assert listed(api, "?mark=muted") == [7] and listed(api, "?mark=new") == []
    again = api.patch(path, {"mark": "known"}).json()
    assert (again["mark"], again["muted_until"], again["owner"]) == ("known", None, "ann")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body"),
        ({"reason": "only"}, "body"),
        ({"mark": "returned"}, "mark"),
        ({"mark": "muted", "muted_until": "2020-01-01T00:00:00Z"}, "muted_until"),
        ({"muted_until": "2040-01-01T00:00:00Z"}, "muted_until"),
        ({"ticket": "ftp://x/"}, "ticket"),
        ({"count": 1}, "count"),
    ],
)
def test_what_cannot_be_said_is_400(
    body: dict[str, Any], field: str, alpha: object, api: Api
) -> None:
    failure = make_failure(7)
    answer = api.patch(f"alpha/failures/{failure.fingerprint}", body)
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    check_problem(answer, 400, "invalid")
    assert Failure.objects.get().mark == "new"


def test_of_a_group_that_is_not_there_nothing_is_said(alpha: object, api: Api) -> None:
    for name in ("0" * 16, "x", "0" * 17):
        check_problem(api.patch(f"alpha/failures/{name}", {"mark": "known"}), 404, "not_found")
