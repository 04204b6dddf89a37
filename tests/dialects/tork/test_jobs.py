"""Jobs: what they answer from their submission to their end."""

from __future__ import annotations

import time
from typing import Any

import pytest

from clusters.policy import ClusterPolicy
from jobs.engine.prune import Pruner
from jobs.models import Job
from tests.dialects.tork.conftest import ID, TIME, Caller, check_message, checked, task
from tests.dialects.tork.work import Retried, node

SEED = {
    "name": "sample job",
    "tasks": [{"name": "sample task", "image": "ubuntu:mantic", "run": "echo hello world"}],
}


def test_the_examples_of_the_reference_work_as_printed(api: Caller) -> None:
    submitted = checked(api.post("jobs", SEED))
    assert submitted["state"] == "PENDING"
    assert submitted["name"] == "sample job"
    node(lambda payload: "").run()
    shown = api.job(submitted["id"])
    assert shown["state"] == "COMPLETED"
    assert shown["tasks"] == SEED["tasks"]
    (row,) = shown["execution"]
    names = {
        *("id", "jobId", "position", "name", "state", "createdAt", "scheduledAt", "startedAt"),
        *("completedAt", "run", "image", "queue"),
    }
    assert names <= set(row)
    page = api.read("jobs?page=1&size=10&q=sample")
    assert set(page) == {"items", "number", "size", "totalPages", "totalItems"}
    assert [one["id"] for one in page["items"]] == [submitted["id"]]
    assert api.read("health") == {"status": "UP"}
    assert {one["name"] for one in api.read("queues")} == {"default"}
    check_message(
        api.put(f"jobs/{submitted['id']}/restart"), 400, "job is COMPLETED and can not be restarted"
    )
    check_message(api.put(f"jobs/{submitted['id']}/cancel"), 400, "job in not running")


def test_a_new_job_is_told_as_a_summary(api: Caller) -> None:
    told = api.submit(
        name="nightly pack", tags=["etl"], inputs={"region": "eu"}, tasks=[task(), task("u")]
    )
    assert ID.match(told["id"])
    assert TIME.match(told["createdAt"])
    by = told.pop("createdBy")
    assert set(by) == {"id", "name", "username", "createdAt"}
    assert told == {
        "id": told["id"],
        "name": "nightly pack",
        "tags": ["etl"],
        "inputs": {"region": "eu"},
        "state": "PENDING",
        "createdAt": told["createdAt"],
        "position": 0,
        "taskCount": 2,
    }
    assert api.read("jobs")["items"] == [told | {"createdBy": by}]


def test_a_job_shows_its_tasks_and_where_it_is(api: Caller) -> None:
    told = api.submit(
        inputs={"region": "eu"},
        output="{{ tasks.b }}!",
        tasks=[
            task("a", var="a", env={"R": "{{ inputs.region }}"}),
            task("b", var="b", timeout="10m", priority=3),
        ],
    )
    fresh = api.job(told["id"])
    assert fresh["execution"] == []
    assert (fresh["position"], fresh["taskCount"]) == (0, 2)
    assert fresh["context"] == {
        "job": {"id": told["id"], "name": "one"},
        "inputs": {"region": "eu"},
    }
    worker = node()
    worker.turn()
    worker.turn()
    halfway = api.job(told["id"])
    assert halfway["state"] == "RUNNING"
    assert TIME.match(halfway["startedAt"])
    worker.run()
    done = api.job(told["id"])
    assert (done["state"], done["position"], done["result"]) == ("COMPLETED", 3, "b!")
    assert done["progress"] == 100
    assert done["context"]["tasks"] == {"a": "a", "b": "b"}
    first, second = done["execution"]
    assert first["env"] == {"R": "eu"}
    assert done["tasks"][0]["env"] == {"R": "{{ inputs.region }}"}
    assert (first["result"], first["var"], first["queue"]) == ("a", "a", "default")
    assert (second["position"], second["timeout"], second["priority"]) == (2, "10m", 3)
    assert first["jobId"] == told["id"]
    assert len(first["nodeId"]) == 22
    assert api.read(f"tasks/{first['id']}") == first


def test_a_failed_task_fails_the_job_and_a_restart_keeps_what_was_done(api: Caller) -> None:
    told = api.submit(tasks=[task("a", var="a"), task("b", run="echo fail"), task("c")])
    node().run()
    failed = api.job(told["id"])
    assert (failed["state"], failed["position"]) == ("FAILED", 2)
    assert TIME.match(failed["failedAt"])
    assert "fail" in failed["error"]
    assert [row["state"] for row in failed["execution"]] == ["COMPLETED", "FAILED"]
    assert checked(api.put(f"jobs/{told['id']}/restart")) == {"status": "OK"}
    worker = node(lambda payload: "fine")
    worker.run()
    assert worker.ran == ["b", "c"]
    again = api.job(told["id"])
    assert again["state"] == "COMPLETED"
    assert "failedAt" not in again
    assert again["context"]["tasks"] == {"a": "a"}


def test_tries_that_failed_are_rows_of_their_own(api: Caller) -> None:
    told = api.submit(tasks=[task(retry={"limit": 2})])
    Retried(2).run()
    rows = api.job(told["id"])["execution"]
    assert [(row["state"], row["retry"]) for row in rows] == [
        ("FAILED", {"limit": 2}),
        ("FAILED", {"limit": 2, "attempts": 1}),
        ("COMPLETED", {"limit": 2, "attempts": 2}),
    ]
    assert [row.get("error") for row in rows] == ["try 1", "try 2", None]
    assert len({row["id"] for row in rows}) == 3
    for row in rows:
        assert api.read(f"tasks/{row['id']}") == row
    check_message(api.get(f"tasks/{told['id']}"), 404, "task not found")


def test_a_task_that_waits_for_its_next_try_has_not_begun(api: Caller) -> None:
    told = api.submit(tasks=[task(retry={"limit": 1})])
    worker = Retried(1)
    worker.turn()
    worker.turn()
    failed, waiting = api.job(told["id"])["execution"]
    assert TIME.match(failed["startedAt"])
    assert waiting["state"] in ("PENDING", "SCHEDULED")
    assert not {"startedAt", "failedAt", "nodeId", "progress"} & set(waiting)
    assert api.read(f"tasks/{waiting['id']}") == waiting
    worker.run()
    assert TIME.match(api.job(told["id"])["execution"][1]["startedAt"])


def test_a_job_is_cancelled_whether_or_not_it_has_begun(api: Caller) -> None:
    waiting = api.submit(tasks=[task()])
    assert checked(api.put(f"jobs/{waiting['id']}/cancel")) == {"status": "OK"}
    assert api.job(waiting["id"])["state"] == "CANCELLED"
    running = api.submit(tasks=[task("x")])
    worker = node()
    worker.turn()
    assert api.job(running["id"])["state"] == "RUNNING"
    checked(api.put(f"jobs/{running['id']}/cancel"))
    worker.run()
    cancelled = api.job(running["id"])
    assert cancelled["state"] == "CANCELLED"
    assert not {"completedAt", "failedAt"} & set(cancelled)
    check_message(api.put(f"jobs/{running['id']}/cancel"), 400, "job in not running")
    assert checked(api.put(f"jobs/{running['id']}/restart")) == {"status": "OK"}
    worker.run()
    assert api.job(running["id"])["state"] == "COMPLETED"


def test_a_job_whose_output_cannot_be_worked_out_has_nothing_more_to_run(api: Caller) -> None:
    told = api.submit(tasks=[task(var="a")], output="{{ fromJSON(tasks.a) }}")
    node(lambda payload: "{").run()
    shown = api.job(told["id"])
    assert (shown["state"], shown["position"]) == ("FAILED", 2)
    assert "is not JSON" in shown["error"]
    check_message(api.put(f"jobs/{told['id']}/restart"), 400, "job has no more tasks to run")


@pytest.mark.parametrize("job_id", ["x", "0" * 32, "0" * 31 + "g", "a" * 400, "%00"])
def test_jobs_and_tasks_that_are_not_there(job_id: str, api: Caller) -> None:
    for method, path in (
        ("GET", "jobs/{}"),
        ("GET", "jobs/{}/log"),
        ("PUT", "jobs/{}/cancel"),
        ("PUT", "jobs/{}/restart"),
    ):
        check_message(api(method, path.format(job_id)), 404, "job not found")
    for path in ("tasks/{}", "tasks/{}/log"):
        check_message(api.get(path.format(job_id)), 404, "task not found")


def test_pages_are_told_as_the_original_does(api: Caller) -> None:
    for number in range(12):
        api.submit(name=f"job {number}", tasks=[task()])
    first = api.read("jobs")
    assert [one["name"] for one in first["items"]] == [f"job {n}" for n in range(11, 1, -1)]
    told = {key: first[key] for key in ("number", "size", "totalPages", "totalItems")}
    assert told == {"number": 1, "size": 10, "totalPages": 2, "totalItems": 12}
    second = api.read("jobs?page=2")
    assert (second["number"], second["size"]) == (2, 2)
    beyond = api.read("jobs?page=9&size=5")
    assert (beyond["items"], beyond["size"], beyond["totalPages"]) == ([], 0, 3)
    assert api.read("jobs?page=-3&size=0")["size"] == 1
    assert api.read("jobs?size=500")["size"] == 12
    check_message(api.get("jobs?page=x"), 404, "invalid page number: x")
    check_message(api.get("jobs?size=1.5"), 404, "invalid size: 1.5")


def test_what_is_empty_is_left_out(api: Caller) -> None:
    told = api.submit(description="", tags=[], inputs={}, tasks=[task(env={}, queue="")])
    assert not {"description", "tags", "inputs", "parentId", "progress"} & set(told)
    shown = api.job(told["id"])
    assert shown["tasks"] == [task()]
    assert {"createdAt", "tasks", "execution", "position", "context"} <= set(shown)


def test_parallel_tasks_and_items_are_shown_below_their_own(api: Caller) -> None:
    told = api.submit(
        tasks=[
            {"name": "both", "parallel": {"tasks": [task("p"), task("q")]}},
            {
                "name": "all",
                "each": {
                    "list": "{{ fromJSON(inputs.items) }}",
                    "concurrency": 1,
                    "task": {"name": "do {{ item.value }}", "run": "echo x"},
                },
            },
            {"name": "sub", "var": "s", "subjob": {"name": "inner", "tasks": [task("i")]}},
        ],
        inputs={"items": '["a","b"]'},
    )
    node().run()
    done = api.job(told["id"])
    assert done["state"] == "COMPLETED"
    rows = {row["name"]: row for row in done["execution"]}
    assert set(rows) == {"both", "p", "q", "all", "do a", "do b", "sub"}
    assert rows["p"]["parentId"] == rows["both"]["id"]
    assert rows["p"]["position"] == rows["both"]["position"] == 1
    assert rows["both"]["parallel"]["completions"] == 2
    each = rows["all"]["each"]
    assert (each["size"], each["completions"], each["concurrency"]) == (2, 2, 1)
    inner = api.job(rows["sub"]["id"])
    assert (inner["name"], inner["state"]) == ("inner", "COMPLETED")
    assert inner["parentId"] == rows["sub"]["id"]
    assert [row["name"] for row in inner["execution"]] == ["i"]
    assert api.listed() == ["inner", "one"]


def test_an_empty_list_ends_its_task_at_once(api: Caller) -> None:
    told = api.submit(tasks=[{"name": "none", "each": {"list": "[]", "task": task()}}])
    node().run()
    assert api.job(told["id"])["state"] == "COMPLETED"


def test_jobs_of_other_surfaces_are_shown_as_far_as_there_are_words(api: Caller) -> None:
    from tests.jobs.steps.cases import do, submit

    job = submit(
        do("a", max_attempts=4, timeout_seconds=90),
        {"name": "b", "kind": "shell", "payload": {"script": "true"}},
        name="native",
    )
    shown = api.job(job.pk.hex)
    assert shown["name"] == "native"
    assert shown["tasks"] == [
        {"name": "a", "retry": {"limit": 3}, "timeout": "1m30s"},
        {"name": "b", "run": "true"},
    ]


def test_one_list_takes_a_fixed_number_of_questions(
    api: Caller, django_assert_max_num_queries: Any
) -> None:
    for number in range(3):
        api.submit(name=f"few {number}", tasks=[task(f"t{number}")])
    node().run()
    with django_assert_max_num_queries(14):
        api.read("jobs?size=20")
    for number in range(12):
        api.submit(
            name=f"more {number}", tasks=[task(), {"name": "s", "parallel": {"tasks": [task("x")]}}]
        )
    node().run()
    with django_assert_max_num_queries(14):
        assert len(api.read("jobs?size=20")["items"]) == 15


def test_a_job_may_say_how_long_it_is_kept(api: Caller, alpha: Any) -> None:
    kept = api.submit(name="kept", autoDelete={"after": "1h"}, tasks=[task()])
    gone = api.submit(name="gone", autoDelete={"after": "1ms"}, tasks=[task()])
    failed = api.submit(name="failed", autoDelete={"after": "1ms"}, tasks=[task(run="echo fail")])
    pruner = Pruner()
    while pruner(alpha.alias, ClusterPolicy()):
        pass
    assert len(api.listed()) == 3
    node().run()
    shown = api.job(kept["id"])
    assert TIME.match(shown["deleteAt"])
    assert "deleteAt" not in api.job(failed["id"])
    time.sleep(0.002)
    while pruner(alpha.alias, ClusterPolicy()):
        pass
    assert sorted(api.listed()) == ["failed", "kept"]
    check_message(api.get(f"jobs/{gone['id']}"), 404, "job not found")


GOOD, BAD = {"name": "a", "image": "alpine"}, {"name": "x" * 300, "image": "alpine"}


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        (BAD, "tasks[1].name"),
        ({"name": "p", "parallel": {"tasks": [GOOD, BAD]}}, "tasks[1].parallel.tasks[1].name"),
        ({"name": "e", "each": {"list": "[1]", "task": BAD}}, "tasks[1].each.task.name"),
        (
            {"name": "s", "subjob": {"name": "x", "tasks": [GOOD, BAD]}},
            "tasks[1].subjob.tasks[1].name",
        ),
        ({**GOOD, "image": "UPPER//x"}, "tasks[1].image"),
    ],
)
def test_a_mistake_is_placed_in_the_definition_that_was_sent(
    wrong: dict[str, Any], place: str, api: Caller, alpha: Any
) -> None:
    told = check_message(api.post("jobs", {"name": "one", "tasks": [GOOD, wrong]}), 400)
    assert told.partition(": ")[0] == place
    assert not Job.objects.exists()
