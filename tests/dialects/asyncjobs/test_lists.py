"""Lists of tasks: filters come before the limit, and a page costs what a page costs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from jobs.dialects.asyncjobs.views import slices
from jobs.models import Job
from tests.dialects.asyncjobs.conftest import MISSING, Caller, check_error
from tests.factories import make_job

USING = "cluster-alpha"


@pytest.fixture
def tasks(alpha: object) -> list[Job]:
    """Of two queues and two types, a second apart, the oldest first."""
    begin = timezone.now() - timedelta(minutes=1)
    return [
        make_job(
            type=f"t{number % 2}",
            queue=f"q{number // 3}",
            created_at=begin + timedelta(seconds=number),
        )
        for number in range(6)
    ]


def numbers(api: Caller, tasks: list[Job], query: str) -> list[int]:
    ids = [str(job.pk) for job in tasks]
    return [ids.index(task["id"]) for task in api.listed(query)]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", [5, 4, 3, 2, 1, 0]),
        ("?limit=2", [5, 4]),
        ("?type=t0", [4, 2, 0]),
        ("?type=t0&limit=2", [4, 2]),
        ("?type=%20t0%20&queue=", [4, 2, 0]),
        ("?queue=q0", [2, 1, 0]),
        ("?queue=q0&type=t1", [1]),
        ("?queue=q0&type=t1&state=new&state=retry", [1]),
        ("?state=complete", []),
        ("?queue=none", []),
        ("?stream=&nonsense=7", [5, 4, 3, 2, 1, 0]),
    ],
)
def test_filters(query: str, found: list[int], api: Caller, tasks: list[Job]) -> None:
    assert numbers(api, tasks, query) == found


def test_created_since_includes_the_moment_itself(api: Caller, tasks: list[Job]) -> None:
    at = quote(tasks[3].created_at.isoformat().replace("+00:00", "Z"))
    assert numbers(api, tasks, f"?created_since={at}") == [5, 4, 3]
    assert numbers(api, tasks, "?created_since=2000-01-01") == [5, 4, 3, 2, 1, 0]
    assert numbers(api, tasks, "?created_since=2999-01-01T00:00:00%2B02:00") == []


@pytest.mark.once
@pytest.mark.parametrize(
    ("query", "reason", "field"),
    [
        ("limit=0", "limit_invalid", "limit"),
        ("limit=-1", "limit_invalid", "limit"),
        ("limit=1001", "limit_invalid", "limit"),
        ("limit=0&stream=ndjson", "limit_invalid", "limit"),
        ("limit=", None, None),
        ("limit=1.5", None, None),
        ("limit=ten", None, None),
        ("limit=1&limit=2", None, None),
        (f"limit={'9' * 400}", None, None),
        ("type=a&type=b", None, None),
        ("queue=a&queue=b", None, None),
        ("created_since=yesterday", None, None),
        ("created_since=", None, None),
        ("created_since=2026-02-30", None, None),
        ("created_since=2026-01-01T00:00:00Z&created_since=2026-01-01T00:00:00Z", None, None),
        ("stream=sse", "stream_invalid", "stream"),
        ("stream=ndjson&stream=ndjson", None, None),
        ("state=a%zz", None, None),
        ("type=a%00b", None, None),
    ],
)
def test_a_query_that_cannot_be_read_is_refused(
    query: str, reason: str | None, field: str | None, api: Caller
) -> None:
    check_error(api.get(f"v1/tasks?{query}"), 400, "invalid_argument", reason, field)


def test_a_page_takes_the_same_statements_however_long_it_is(api: Caller) -> None:
    parent = api.make()["id"]

    def statements() -> int:
        with CaptureQueriesContext(connections[USING]) as found:
            assert all(task["created"] for task in api.listed("?limit=1000"))
        return len(found)

    api.make(dependencies=[parent], load_dependencies=True)
    before = statements()
    for _ in range(10):
        api.make(dependencies=[parent], load_dependencies=True)
        api.make()
    assert statements() == before <= 6


def test_a_list_of_large_tasks_ends_early(api: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slices, "MAX_ANSWER_BYTES", 40_000)
    small = [api.make()["id"] for _ in range(2)]
    large = [api.make(payload="x" * 9000)["id"] for _ in range(4)]
    assert [task["id"] for task in api.listed()] == large[:0:-1]
    assert [task["id"] for task in api.listed("?limit=2")] == large[:1:-1]
    monkeypatch.setattr(slices, "MAX_ANSWER_BYTES", 1)
    assert [task["id"] for task in api.listed()] == large[-1:]
    monkeypatch.undo()
    assert [task["id"] for task in api.listed()] == [*reversed(small + large)]


def test_fewer_tasks_are_read_at_a_time_the_larger_they_are(alpha: object) -> None:
    def sizes(data: bytes) -> list[int]:
        Job.objects.all().delete()
        pks = [make_job(payload=None, payload_bytes=data).pk for _ in range(120)]
        return [len(told) for told in slices.task_slices(Job.objects.using(USING), pks)]

    assert sizes(b"x") == [32, 64, 24]
    assert sizes(b"x" * 300_000) == [32, *[10] * 8, 8]


def test_jobs_of_other_surfaces_are_tasks_too(api: Caller) -> None:
    from tests.api.conftest import Api

    native = Api(api.headers["x-api-key"])
    parent = native.post("alpha/jobs", {"type": "a.b/c", "payload": {"x": 1}}).json()["id"]
    child = native.post("alpha/jobs", {"type": "a", "depends_on": [parent]}).json()["id"]
    http = {"url": "https://example.com/", "headers": {"Authorization": "hush"}}
    native.post("alpha/jobs", {"kind": "http", "payload": http})
    tasks = {task["id"]: task for task in api.listed()}
    assert tasks[parent]["type"] == "a.b/c" and tasks[parent]["payload"] == "eyJ4IjoxfQ=="
    assert tasks[child]["dependencies"] == [parent] and tasks[child]["state"] == "blocked"
    assert tasks[child]["payload"] == ""
    assert len(tasks) == 3
    shown = next(task for task in tasks.values() if task["type"] == "http")
    import base64

    text = base64.b64decode(shown["payload"])
    assert b"hush" not in text and b'"***"' in text


def test_a_task_tells_of_its_tries(api: Caller) -> None:
    job = make_job("failed", attempts=3, max_attempts=3)
    task = api.task(str(job.pk))
    assert (task["state"], task["tries"], task["max_tries"]) == ("expired", 3, 3)
    assert task["last_err"] == "RuntimeError: as the test wanted" and task["tried"]
    done: dict[str, Any] = api.task(str(make_job("succeeded", result=[1]).pk))
    assert done["result"]["payload"] == [1] and done["result"]["completed"]
    assert "last_err" not in done
    assert not {"tried", "tries", "result", "last_err", "deadline"} & set(api.make())


@pytest.mark.parametrize(
    "task_id",
    ["x", "*", ">", "..", "%00", MISSING.upper(), MISSING.replace("-", ""), f"{{{MISSING}}}", "é"],
)
def test_an_id_that_is_none_is_a_missing_one(task_id: str, admin: Caller) -> None:
    make_job("failed", pk=MISSING)
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/retry")):
        response = admin(method, f"v1/tasks/{quote(task_id, safe='%')}{path}")
        check_error(response, 404, "not_found", "task_not_found")
    assert Job.objects.get().state == "failed"
