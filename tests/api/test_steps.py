"""GET {cluster}/jobs/{id}/steps, /logs of all of them, and /logs/stream"""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from jobs.models import Job, LogLine, Step
from jobs.states import State
from jobs.step_logs import OVERLAP_SECONDS, Follower
from tests.api.conftest import Api, fields
from tests.factories import make_job
from tests.jobs.steps.cases import TestNode, do, run, submit


def nested() -> Job:
    inner = {"steps": [do("deep", 1)], "output": "{{ 1 }}"}
    return run(
        do("first", {"a": 1}, var="v"),
        {
            "name": "both",
            "parallel": [do("left"), do("right", {"fail": "why"}, continue_on_error=True)],
        },
        {"name": "sub", "subjob": inner},
        do("not", **{"if": "false"}),
    )


def names(items: list[dict[str, Any]]) -> list[str]:
    return [item["name"] for item in items]


def write(job_id: UUID, *messages: str) -> None:
    LogLine.objects.bulk_create(
        LogLine(job_id=job_id, fence=1, stream="stdout", message=message) for message in messages
    )


def step_id(name: str) -> UUID:
    return Step.objects.get(name=name).job_id


def test_all_steps_are_listed_each_after_the_one_it_is_below(alpha: object, viewer: Api) -> None:
    job = nested()
    body = viewer.get(f"alpha/jobs/{job.pk}/steps").json()
    assert names(body["items"]) == ["first", "both", "left", "right", "sub", "deep", "not"]
    assert body["next"] is None
    first, both, left, right, sub, deep, skipped = body["items"]
    assert (first["parent_id"], first["position"], first["var"]) == (str(job.pk), 1, "v")
    assert (left["parent_id"], left["root_id"]) == (both["id"], str(job.pk))
    assert (deep["parent_id"], deep["root_id"]) == (sub["id"], sub["id"])
    assert (right["state"], right["error"], right["is_tolerated"]) == ("failed", "why", True)
    assert (both["form"], sub["form"], first["form"]) == ("parallel", "subjob", None)
    assert (skipped["state"], skipped["started_at"]) == ("skipped", None)
    assert first["finished_at"] >= first["started_at"] >= first["created_at"]


def test_steps_have_pages(alpha: object, viewer: Api) -> None:
    job = nested()
    path, found = f"alpha/jobs/{job.pk}/steps?limit=3", []
    while path:
        body = viewer.get(path).json()
        found.append(names(body["items"]))
        path = body["next"]
    assert found == [["first", "both", "left"], ["right", "sub", "deep"], ["not"]]


def test_steps_and_lines_cost_the_same_however_many_there_are(alpha: object, viewer: Api) -> None:
    few = run(*(do(f"s{n}") for n in range(3)))
    many = run(*(do(f"s{n}", needs=[]) for n in range(60)))
    for job in (few, many):
        for step in Step.objects.filter(root_id=job.pk):
            write(step.job_id, "one", "two")
    for path, most in (("steps", 3), ("logs", 2)):
        counts = []
        for job in (few, many):
            with CaptureQueriesContext(connections["cluster-alpha"]) as queries:
                assert viewer.get(f"alpha/jobs/{job.pk}/{path}?limit=100").status_code == 200
            counts.append(len(queries))
        assert counts == [most, most], path


def test_a_job_that_is_not_made_of_steps_has_none(alpha: object, viewer: Api) -> None:
    assert viewer.get(f"alpha/jobs/{make_job().pk}/steps").json() == {"items": [], "next": None}
    missing = "0190a1b2-0000-7000-8000-000000000000"
    for path in ("steps", "logs", "logs/stream"):
        assert viewer.get(f"alpha/jobs/{missing}/{path}").status_code == 404


def test_the_log_of_a_job_has_the_lines_of_its_steps_in_one_order(
    alpha: object, viewer: Api
) -> None:
    job = nested()
    for number in range(3):
        for name in ("first", "left", "deep"):
            write(step_id(name), f"{name} {number}")
    write(make_job().pk, "another's")
    body = viewer.get(f"alpha/jobs/{job.pk}/logs?limit=4").json()
    assert [line["message"] for line in body["items"]] == ["first 0", "left 0", "deep 0", "first 1"]
    assert names([{"name": line["step"]} for line in body["items"]]) == [
        "first",
        "left",
        "deep",
        "first",
    ]
    rest = viewer.get(body["next"]).json()
    assert [line["message"] for line in rest["items"]][-1] == "left 2"
    assert viewer.get(f"alpha/jobs/{job.pk}/logs?steps=false").json()["items"] == []
    own = viewer.get(f"alpha/jobs/{step_id('left')}/logs").json()["items"]
    assert [line["message"] for line in own] == ["left 0", "left 1", "left 2"]
    # Of a group those of what is below it.
    assert len(viewer.get(f"alpha/jobs/{step_id('both')}/logs").json()["items"]) == 3


@pytest.mark.parametrize("with_steps", [True, False])
def test_newest_lines_come_first_where_that_is_asked_for(
    alpha: object, viewer: Api, with_steps: bool
) -> None:
    job = nested()
    of = step_id("left") if with_steps else job.pk
    write(of, *(f"{number}" for number in range(7)))
    path, found = (
        f"alpha/jobs/{job.pk}/logs?order=newest&limit=3&steps={str(with_steps).lower()}",
        [],
    )
    while path:
        body = viewer.get(path).json()
        found.append([line["message"] for line in body["items"]])
        path = body["next"]
    assert found == [["6", "5", "4"], ["3", "2", "1"], ["0"]]
    ids = list(LogLine.objects.order_by("pk").values_list("pk", flat=True))
    asked = f"after={ids[1]}&before={ids[4]}&steps={str(with_steps).lower()}"
    between = viewer.get(f"alpha/jobs/{job.pk}/logs?{asked}")
    assert [line["message"] for line in between.json()["items"]] == ["2", "3"]


def test_a_stream_gives_all_lines_and_ends_with_the_job(alpha: object, viewer: Api) -> None:
    job = nested()
    write(step_id("first"), *(f"{number}" for number in range(1100)))
    answer = viewer.get(f"alpha/jobs/{job.pk}/logs/stream")
    assert answer["Content-Type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.getvalue().splitlines()]  # type: ignore[attr-defined]
    assert [line["message"] for line in lines] == [f"{number}" for number in range(1100)]
    assert {line["step"] for line in lines} == {"first"}
    for asked, count in (("tail=3", 3), ("tail=0", 0), (f"after={lines[-3]['id']}", 2)):
        some = viewer.get(f"alpha/jobs/{job.pk}/logs/stream?{asked}")
        assert len(some.getvalue().splitlines()) == count, asked  # type: ignore[attr-defined]


def test_a_line_that_becomes_visible_late_is_not_missed(alpha: object) -> None:
    """Two nodes write at once: the greater id may be committed first."""
    job = submit(do("a", needs=[]), do("b", needs=[]))
    TestNode().turn()
    one, other = Step.objects.filter(root_id=job.pk)
    follower = Follower("cluster-alpha", job.pk, with_steps=True)
    seen = iter(follower)
    LogLine.objects.create(pk=1000, job_id=one.job_id, fence=1, stream="log", message="second")
    assert [line.message for line in next(seen)] == ["second"]
    assert next(seen) == []
    LogLine.objects.create(pk=999, job_id=other.job_id, fence=1, stream="log", message="first")
    assert [line.message for line in next(seen)] == ["first"]
    assert next(seen) == []
    follower._settle(1e12)
    assert (follower._until, follower._given, OVERLAP_SECONDS > 1) == (1000, {}, True)
    assert next(seen) == []


def test_what_is_asked_for_is_checked(alpha: object, viewer: Api) -> None:
    job = make_job()
    assert fields(viewer.get(f"alpha/jobs/{job.pk}/logs?order=best")) == ["order"]
    assert fields(viewer.get(f"alpha/jobs/{job.pk}/logs?steps=maybe")) == ["steps"]
    assert fields(viewer.get(f"alpha/jobs/{job.pk}/logs/stream?tail=1&after=1")) == ["tail"]
    assert fields(viewer.get(f"alpha/jobs/{job.pk}/steps?limit=201")) == ["limit"]
    assert fields(viewer.get(f"alpha/jobs/{job.pk}/steps?after=x")) == ["after"]


def test_nobody_reads_without_a_key(alpha: object, anonymous: Api) -> None:
    job = make_job(State.RUNNING)
    for path in ("steps", "logs", "logs/stream"):
        assert anonymous.get(f"alpha/jobs/{job.pk}/{path}").status_code == 401
