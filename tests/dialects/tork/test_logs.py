"""Logs of jobs and tasks: numbered parts, the newest first."""

from __future__ import annotations

from typing import Any

from jobs.models import Job, LogLine, Step
from tests.dialects.tork.conftest import ID, TIME, Caller, check_message, task
from tests.dialects.tork.work import Retried, node


def _write(job_id: Any, *messages: str, fence: int | None = None) -> None:
    fence = Job.objects.get(pk=job_id).fence if fence is None else fence
    for message in messages:
        LogLine.objects.create(job_id=job_id, fence=fence, stream="stdout", message=message)


def test_a_task_tells_its_parts_the_newest_first(api: Caller) -> None:
    told = api.submit(tasks=[task()])
    node().run()
    step = Step.objects.get(root_id=told["id"])
    _write(step.pk, *(f"line {number}\n" for number in range(30)))
    page = api.read(f"tasks/{step.pk.hex}/log")
    assert (page["size"], page["totalItems"], page["totalPages"]) == (25, 30, 2)
    assert [part["number"] for part in page["items"]] == [*range(30, 5, -1)]
    part = page["items"][0]
    assert set(part) == {"id", "number", "taskId", "contents", "createdAt"}
    assert ID.match(part["id"])
    assert TIME.match(part["createdAt"])
    assert (part["taskId"], part["contents"]) == (step.pk.hex, "line 29\n")
    assert [p["number"] for p in api.read(f"tasks/{step.pk.hex}/log?page=2")["items"]] == [
        *range(5, 0, -1)
    ]
    assert api.read(f"tasks/{step.pk.hex}/log?size=1000")["size"] == 30
    found = api.read(f"tasks/{step.pk.hex}/log?q=LINE+7")
    assert [(p["contents"], p["number"]) for p in found["items"]] == [
        ("line 27\n", 28), ("line 17\n", 18), ("line 7\n", 8),
    ]  # fmt: skip
    # Totals are of all parts, as in the original.
    assert (found["size"], found["totalItems"]) == (3, 30)
    assert api.read(f"tasks/{step.pk.hex}/log?q=tag:x")["size"] == 25
    check_message(api.get(f"tasks/{step.pk.hex}/log?page=x"), 404, "invalid page number: x")


def test_a_job_tells_those_of_all_tasks_the_last_one_first(api: Caller) -> None:
    told = api.submit(
        tasks=[task("a"), {"name": "g", "parallel": {"tasks": [task("b")]}}, task("c")]
    )
    node().run()
    steps = {step.name: step.pk for step in Step.objects.filter(root_id=told["id"])}
    for name in ("c", "a", "b"):
        _write(steps[name], f"{name}1", f"{name}2")
    page = api.read(f"jobs/{told['id']}/log?size=4")
    assert [part["contents"] for part in page["items"]] == ["c2\n", "c1\n", "b2\n", "b1\n"]
    assert [part["number"] for part in page["items"]] == [2, 1, 2, 1]
    assert page["items"][0]["taskId"] == steps["c"].hex
    assert (page["totalItems"], page["totalPages"]) == (6, 2)
    last = api.read(f"jobs/{told['id']}/log?size=4&page=2")
    assert [part["contents"] for part in last["items"]] == ["a2\n", "a1\n"]


def test_each_try_has_its_own_log(api: Caller) -> None:
    told = api.submit(tasks=[task(retry={"limit": 1})])
    Retried(1).run()
    first, second = api.job(told["id"])["execution"]
    step = Step.objects.get(root_id=told["id"])
    last = Job.objects.get(pk=step.pk).fence
    _write(step.pk, "first try", fence=1)
    _write(step.pk, "second try", fence=last)
    logs = {row["id"]: api.read(f"tasks/{row['id']}/log")["items"] for row in (first, second)}
    assert [part["contents"] for part in logs[first["id"]]] == ["first try\n"]
    assert [part["contents"] for part in logs[second["id"]]] == ["second try\n"]
    whole = api.read(f"jobs/{told['id']}/log")["items"]
    assert [part["taskId"] for part in whole] == [second["id"], first["id"]]


def test_an_empty_line_is_a_part_that_says_so(api: Caller) -> None:
    told = api.submit(tasks=[task()])
    node().run()
    step = Step.objects.get(root_id=told["id"])
    _write(step.pk, "one", "", "two\n")
    for path in (f"tasks/{step.pk.hex}/log", f"jobs/{told['id']}/log"):
        parts = api.read(path)["items"]
        assert "".join(part["contents"] for part in reversed(parts)) == "one\n\ntwo\n"


def test_a_page_of_a_log_takes_a_fixed_number_of_questions(
    api: Caller, django_assert_max_num_queries: Any
) -> None:
    told = api.submit(
        tasks=[{"name": "g", "parallel": {"tasks": [task(f"t{n}") for n in range(8)]}}]
    )
    node().run()
    for step in Step.objects.filter(root_id=told["id"], job__kind="shell"):
        _write(step.pk, *(f"x{n}" for n in range(10)))
    with django_assert_max_num_queries(10):
        assert api.read(f"jobs/{told['id']}/log?size=100")["size"] == 80
    with django_assert_max_num_queries(16):
        assert len(api.job(told["id"])["execution"]) == 9
