"""Is there room: rates, what no node can take, what runs longest, what is late."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from clusters.policy import ClusterPolicy
from jobs import capacity
from jobs.capacity import Flow
from jobs.engine import schedules
from jobs.metrics import Figures
from jobs.models import Job, Queue, Schedule, Tally
from tests.factories import make_job, make_node, make_queue

USING = "cluster-alpha"


def tally(event: str, count: int, **columns) -> None:
    minute = timezone.now().replace(second=0, microsecond=0) - timedelta(minutes=3)
    defaults = {"minute": minute, "queue": "mail", "type": "x"}
    Tally.objects.create(event=event, count=count, **{**defaults, **columns})


def test_what_comes_back_comes_in_as_well(alpha):
    for event, count in (("enqueued", 300), ("retried", 200), ("released", 100), ("started", 900)):
        tally(event, count)
    tally("enqueued", 5, queue="other")
    found = capacity.flows(USING, ClusterPolicy(), timezone.now())
    assert set(found) == {"mail", "other"}
    mail = found["mail"]
    # Of ten minutes and as much as has passed of this one.
    assert 600 / 660 <= mail.enqueued <= 600 / 599
    assert mail.taken == pytest.approx(mail.enqueued * 1.5)
    # What ends without another attempt, and nothing did.
    assert mail.finished == 0


@pytest.mark.parametrize(
    ("enqueued", "taken", "ready", "seconds"),
    [(1.0, 3.0, 10, 5.0), (3.0, 3.0, 10, None), (5.0, 3.0, 1, None), (5.0, 3.0, 0, 0.0)],
)
def test_the_time_until_a_queue_is_empty(enqueued, taken, ready, seconds):
    assert Flow(enqueued, taken).seconds_to_empty(ready) == seconds


def test_types_at_the_head_that_no_node_of_the_queue_knows(alpha):
    make_job(queue="mail", type="known")
    make_job(queue="mail", type="only:elsewhere")
    make_job(queue="mail", type="nobody")
    make_job(queue="mail", type="http", kind="http")
    make_job("scheduled", queue="mail", type="later")
    make_job(queue="unserved", type="nobody")
    nodes = [
        make_node(queues=["mail"], types=["known"]),
        make_node(queues=["default"], types=["only:elsewhere"]),
        make_node(queues=None, kinds=["http"], types=["nobody"]),
    ]
    assert capacity.unknown_types(USING, nodes) == {"mail": ["nobody", "only:elsewhere"]}
    assert capacity.unknown_types(USING, []) == {}


def test_only_the_head_of_a_queue_is_looked_at_and_by_its_index(alpha, is_postgresql):
    make_queue("mail")
    now = timezone.now()
    Job.objects.bulk_create(
        Job(
            queue="mail",
            state="ready",
            type="nobody" if n > 100 else "known",
            enqueued_by="test",
            timeout_seconds=1,
            max_attempts=1,
            created_at=now,
            run_at=now + timedelta(seconds=n),
        )
        for n in range(2000)
    )
    with connections[USING].cursor() as cursor:
        cursor.execute("ANALYZE job")
    node = make_node(types=["known"])
    with CaptureQueriesContext(connections[USING]) as asked:
        assert capacity.unknown_types(USING, [node]) == {}
    [statement] = [query["sql"] for query in asked.captured_queries]
    explain = "EXPLAIN" if is_postgresql else "EXPLAIN QUERY PLAN"
    with connections[USING].cursor() as cursor:
        cursor.execute(f"{explain} {statement}")
        plan = "\n".join(str(row) for row in cursor.fetchall())
    assert "job_ready" in plan
    assert "Seq Scan on job" not in plan


def test_the_jobs_that_run_longest(alpha):
    now = timezone.now()
    jobs = [make_job("running", started_at=now - timedelta(minutes=age)) for age in (1, 3, 2)]
    make_job("succeeded", started_at=now - timedelta(minutes=9))
    assert capacity.oldest_running(USING, 2) == [jobs[1], jobs[2]]


def test_schedules_that_should_have_run(alpha):
    now = timezone.now()
    assert capacity.late_schedules(USING, now) == (0, None, None)
    timing = {"type": "demo:noop", "timing": "cron", "expression": "0 3 * * *"}
    for name, seconds in (("a", 119), ("b", 125), ("c", 300)):
        made = schedules.create({"name": name, **timing}, by="test")
        due = now - timedelta(seconds=seconds)
        Schedule.objects.filter(pk=made.pk).update(next_due_at=due, next_run_at=due)
    assert capacity.late_schedules(USING, now) == (2, "c", now - timedelta(seconds=300))


def test_types_by_what_failed_and_by_how_long_it_took():
    quick, slow, idle = Figures(), Figures(), Figures()
    quick.counts["failed"], slow.counts["failed"] = 9, 2
    quick.run, slow.run = {1: 100}, {1: 90, 60: 10}
    types = [("quick", quick), ("slow", slow), ("idle", idle)]
    assert [one.name for one in capacity.most_failing(types, 5)] == ["quick", "slow"]
    assert [one.name for one in capacity.slowest(types, 5)] == ["slow", "quick"]
    assert [one.name for one in capacity.slowest(types, 1)] == ["slow"]


def test_how_much_of_the_limits_is_used(alpha):
    now = timezone.now()
    queue = Queue(name="mail")
    assert capacity.share_of_limits(queue, {}, now) == []
    queue.max_concurrency, queue.max_entries = 5, 10
    queue.rate_limit, queue.rate_period_seconds = 100, 60.0
    queue.rate_grants = [[now.timestamp() - 70, 50], [now.timestamp() - 10, 30]]
    used = capacity.share_of_limits(
        queue, {"running": 2, "ready": 3, "scheduled": 1, "blocked": 1, "waiting": 7}, now
    )
    assert used == [("running", 2, 5), ("started", 30, 100), ("waiting", 5, 10)]
