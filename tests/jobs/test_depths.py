"""How deep queues are, and how old."""

from __future__ import annotations

import re
from datetime import timedelta

from django.db import connections
from django.utils import timezone

from jobs import depths as depths_module
from jobs.depths import Depth, depths, oldest_ready
from jobs.models import Job
from jobs.states import State
from tests.factories import make_job, make_node, make_queue

USING = "cluster-alpha"


def make_many(number: int, **columns: object) -> None:
    defaults = {"type": "t", "state": State.READY, "timeout_seconds": 1, "max_attempts": 1}
    Job.objects.bulk_create(Job(**{**defaults, **columns}) for _ in range(number))


def test_every_queue_has_a_depth_of_every_open_state(alpha):
    node = make_node()
    make_queue("idle")
    for state, number in (
        (State.BLOCKED, 1),
        (State.SCHEDULED, 2),
        (State.READY, 3),
        (State.RUNNING, 4),
        (State.WAITING, 5),
    ):
        columns = {"node": node} if state == State.RUNNING else {}
        for _ in range(number):
            make_job(state, queue="mail", **columns)
    make_job(State.SUCCEEDED, queue="mail")
    found = depths(USING)
    assert set(found) == {"default", "idle", "mail"}
    assert found["mail"] == {
        State.BLOCKED: Depth(1, True),
        State.SCHEDULED: Depth(2, True),
        State.READY: Depth(3, True),
        State.RUNNING: Depth(4, True),
        State.WAITING: Depth(5, True),
    }
    assert set(found["idle"].values()) == {Depth(0, True)}


def test_counting_a_deep_queue_stops_and_says_so(alpha, monkeypatch):
    monkeypatch.setattr(depths_module, "_FIRST_LOOK", 5)
    monkeypatch.setattr(depths_module, "_LOOK_BUDGET", 40)
    for queue, number in (("shallow", 5), ("deep", 12), ("deeper", 30)):
        make_queue(queue)
        make_many(number, queue=queue)
    found = {queue: by_state[State.READY] for queue, by_state in depths(USING).items()}
    assert found["shallow"] == Depth(5, True)
    # The budget of 40 is for two queues.
    assert found["deep"] == Depth(12, True)
    assert found["deeper"] == Depth(20, False)


def test_counting_scheduled_jobs_stops_and_says_so(alpha, monkeypatch):
    monkeypatch.setattr(depths_module, "_ROWS_LOOKED_AT", 4)
    make_many(4, state=State.SCHEDULED, queue="default")
    assert depths(USING)["default"][State.SCHEDULED] == Depth(4, True)
    make_many(4, state=State.SCHEDULED, queue="default")
    assert depths(USING)["default"][State.SCHEDULED].is_exact is False


def test_the_oldest_ready_job_is_found_whatever_its_kind_and_priority(alpha):
    now = timezone.now()
    for queue, kind, priority, minutes in (
        ("a", "python", 0, 5),
        ("a", "python", 0, 2),
        ("a", "http", 7, 9),
        ("a", "python", -3, 7),
        ("b", "python", 0, 1),
    ):
        make_job(queue=queue, kind=kind, priority=priority, run_at=now - timedelta(minutes=minutes))
    make_job(State.SUCCEEDED, queue="c", run_at=now - timedelta(days=1))
    make_job(State.SCHEDULED, queue="a", run_at=now - timedelta(days=1))
    found = oldest_ready(USING)
    assert found == {"a": now - timedelta(minutes=9), "b": now - timedelta(minutes=1)}


def test_no_ready_job_has_no_age(alpha):
    make_job(State.RUNNING)
    assert oldest_ready(USING) == {}


def explain(sql: str, parameters: list[object]) -> str:
    word = "EXPLAIN" if connections[USING].vendor == "postgresql" else "EXPLAIN QUERY PLAN"
    with connections[USING].cursor() as cursor:
        if connections[USING].vendor == "postgresql":
            cursor.execute("ANALYZE job")
        cursor.execute(f"{word} {sql}", parameters)
        return "\n".join(str(row) for row in cursor.fetchall())


READ_FROM = [
    (depths_module._READY, "job_ready"),
    (depths_module._OLDEST, "job_ready"),
    *(
        (f"SELECT queue FROM job WHERE {depths_module._OTHERS[state]} LIMIT %s", index)
        for state, index in (
            (State.BLOCKED, "job_open"),
            (State.SCHEDULED, "job_due"),
            (State.RUNNING, "job_holder"),
            (State.WAITING, "job_open"),
        )
    ),
]


def test_depth_and_age_are_read_from_an_index(alpha):
    make_queue("mail")
    for queue in ("default", "mail"):
        make_many(1500, queue=queue)
    make_many(3000, state=State.SUCCEEDED, finished_at=timezone.now())
    for sql, index in READ_FROM:
        plan = explain(sql, [100])
        assert index in plan, plan
        assert not re.search("Seq Scan on job|Sort Key|TEMP B-TREE FOR ORDER BY", plan), plan
