"""GET {base}/{cluster}/logs: the cluster's log, by filters and page by page."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from clusters.api import logs
from clusters.log import LogEntry
from tests.api.conftest import Api, check_problem, fields

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


def make_line(number: int = 0, **columns: Any) -> LogEntry:
    given = {
        "category": "api",
        "level": "info",
        "message": f"line {number}",
        "actor": "key:reader",
        "address": "192.0.2.1",
        "request_id": f"request-{number}",
        "surface": "native",
        "method": "GET",
        "path": "/jm-api/alpha/jobs",
        "status": 200,
        "duration_ms": 1.5,
        "logged_at": NOW + timedelta(seconds=number),
        **columns,
    }
    return LogEntry.objects.create(**given)


def messages(api: Api, query: str = "") -> list[str]:
    response = api.get(f"alpha/logs{query}")
    assert response.status_code == 200, response.content
    return [item["message"] for item in response.json()["items"]]


def test_lines_come_newest_first_with_all_that_is_known(alpha: object, api: Api) -> None:
    for number in range(3):
        line = make_line(number)
    assert messages(api) == ["line 2", "line 1", "line 0"]
    assert api.get(f"alpha/logs/{line.pk}").json() == {
        "id": line.pk,
        "logged_at": "2026-05-01T12:00:02.000000Z",
        "category": "api",
        "level": "info",
        "message": "line 2",
        "actor": "key:reader",
        "address": "192.0.2.1",
        "request_id": "request-2",
        "surface": "native",
        "method": "GET",
        "path": "/jm-api/alpha/jobs",
        "status": 200,
        "duration_ms": 1.5,
    }


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("status=404", {1}),
        ("min_status=400", {1, 2}),
        ("level=error", {2}),
        ("actor=key:other", {3}),
        ("request_id=request-4", {4}),
        ("method=POST", {0}),
        ("category=api", {0, 1, 2, 3, 4}),
        ("logged_after=2026-05-01T12:00:03Z", {3, 4}),
        ("logged_before=2026-05-01T12:00:01Z", {0}),
        ("min_status=400&level=info", {1}),
    ],
)
def test_filters(query: str, found: set[int], alpha: object, api: Api) -> None:
    make_line(0, method="POST")
    make_line(1, status=404)
    make_line(2, status=500, level="error")
    make_line(3, actor="key:other")
    make_line(4)
    assert messages(api, f"?{query}") == [f"line {n}" for n in sorted(found, reverse=True)]
    count = api.get(f"alpha/logs/count?{query}").json()
    assert count == {"count": len(found), "is_exact": True}


def test_pages_hold_each_line_once(alpha: object, api: Api) -> None:
    for number in range(7):
        # Three of one moment: the key settles their order.
        make_line(number, logged_at=NOW + timedelta(seconds=number // 3))
    seen: list[str] = []
    address: str | None = "/jm-api/alpha/logs?limit=2"
    while address:
        page = api.get(address).json()
        seen += [item["message"] for item in page["items"]]
        address = page["next"]
    assert seen == [f"line {number}" for number in range(6, -1, -1)]


def test_a_count_has_an_end(alpha: object, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "COUNT_LIMIT", 2)
    for number in range(3):
        make_line(number)
    assert api.get("alpha/logs/count").json() == {"count": 2, "is_exact": False}


def test_who_was_not_known_is_null(alpha: object, api: Api) -> None:
    make_line(actor="")
    assert api.get("alpha/logs").json()["items"][0]["actor"] is None


@pytest.mark.once
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=abc", "status"), ("status=99", "status"), ("level=x", "level"),
        ("category=job", "category"), ("method=TRACE", "method"), ("order=x", "order"),
        ("logged_after=today", "logged_after"), ("actor=" + "x" * 201, "actor"),
        ("limit=201", "limit"), ("cursor=x", "cursor"),
    ],
)  # fmt: skip
def test_what_is_no_filter_is_told(query: str, field: str, alpha: object, api: Api) -> None:
    assert fields(api.get(f"alpha/logs?{query}")) == [field]


@pytest.mark.parametrize("line_id", ["0", "-1", "x", "1.0", "9" * 19, "9" * 30, "٣", "1e3"])
def test_what_is_no_line_is_missing(line_id: str, alpha: object, api: Api) -> None:
    check_problem(api.get(f"alpha/logs/{line_id}"), 404, "not_found")


def test_viewers_may_not_read_who_asked(alpha: object, viewer: Api) -> None:
    line = make_line()
    for path in ("alpha/logs", "alpha/logs/count", f"alpha/logs/{line.pk}"):
        check_problem(viewer.get(path), 403, "permission_denied")


def test_another_clusters_line_is_missing(beta: object, make_key: Any) -> None:
    line = make_line()
    api = Api(make_key("operator", "alpha"))
    check_problem(api.get(f"alpha/logs/{line.pk}"), 404, "not_found")
    check_problem(api.get(f"beta/logs/{line.pk}"), 404, "not_found")
    assert messages(api) == []


def test_a_page_is_one_statement(alpha: Any, api: Api) -> None:
    for number in range(5):
        make_line(number)
    with CaptureQueriesContext(connections[alpha.alias]) as asked:
        messages(api)
    assert len([q for q in asked.captured_queries if "cluster_log" in q["sql"]]) == 1
