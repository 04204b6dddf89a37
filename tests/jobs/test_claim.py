from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta

import psycopg
import pytest
from django.db import connection, connections
from django.utils import timezone

from clusters.binding import cluster_bound
from jobs.engine import claim, turn
from jobs.engine.claim import Appetite, Claimed
from jobs.engine.enqueue import NewJob, enqueue_many
from jobs.engine.turn import take_turn
from jobs.models import Job
from jobs.states import State
from tests.factories import make_job, make_node, make_queue

POOLS = {"python": "process", "http": "io"}


def claims(
    n: int = 10,
    *,
    io: int = 0,
    types: tuple[str, ...] = ("demo:noop",),
    queues: list[str] | None = None,
    node: str | None = None,
) -> list[Claimed]:
    node = node or str(make_node().pk)
    appetite = Appetite(node, {"process": n, "io": io}, POOLS, types, queues)
    return take_turn(connections["cluster-alpha"], [], appetite).claimed


def test_jobs_are_claimed_by_priority_then_due_time_then_id(alpha):
    now = timezone.now()
    late = make_job(run_at=now - timedelta(seconds=1))
    early = make_job(run_at=now - timedelta(seconds=5))
    urgent = make_job(priority=-5, run_at=now)
    lazy = make_job(priority=5, run_at=now - timedelta(hours=1))
    assert [job.id for job in claims()] == [str(j.pk) for j in (urgent, early, late, lazy)]


def test_a_claimed_job_is_running_under_a_new_fence_and_counts_the_attempt(alpha):
    job, node = make_job(fence=7, attempts=2), make_node()
    (claimed,) = claims(node=str(node.pk))
    job.refresh_from_db()
    assert (claimed.fence, claimed.attempts) == (8, 3)
    assert (job.state, job.fence, job.attempts, job.node_id) == (State.RUNNING, 8, 3, node.pk)
    assert job.started_at is not None


def test_no_more_is_claimed_than_asked_for(alpha):
    for _ in range(9):
        make_job()
    make_job(queue="other")
    assert len(claims(4)) == 4
    assert Job.objects.filter(state=State.RUNNING).count() == 4


def test_places_are_counted_by_pool(alpha):
    for _ in range(3):
        make_job()
        make_job(kind="http", type="http", payload={"url": "http://example.com/"})
    assert Counter(job.kind for job in claims(2, io=1)) == {"python": 2, "http": 1}


def test_the_best_of_several_queues_come_first(alpha):
    for priority in (3, 1):
        make_job(queue="one", priority=priority)
    for priority in (2, 0):
        make_job(queue="two", priority=priority)
    priorities = [Job.objects.get(pk=job.id).priority for job in claims(3)]
    assert priorities == [0, 1, 2]


def test_a_paused_queue_is_left_out(alpha):
    make_queue("closed", is_paused=True)
    make_job(queue="closed")
    open_job = make_job()
    assert [job.id for job in claims()] == [str(open_job.pk)]


def test_only_the_queues_of_the_node_are_served(alpha):
    make_job(queue="other")
    mine = make_job(queue="mine")
    assert [job.id for job in claims(queues=["mine"])] == [str(mine.pk)]


def test_a_type_that_the_node_does_not_know_stays_ready(alpha):
    job = make_job(type="from:the-future")
    assert claims() == []
    job.refresh_from_db()
    assert job.state == State.READY


def test_a_kind_that_the_node_does_not_run_stays_ready(alpha):
    make_job(kind="shell", type="shell", payload={"argv": ["true"]})
    assert claims(io=5) == []


def test_jobs_of_another_cluster_are_never_claimed(alpha):
    with cluster_bound("beta"):
        make_job()
    assert claims() == []


def test_the_payload_is_handed_on_as_it_was_sent(alpha):
    make_job(payload={"a": [1, None, "ü"]})
    make_job(payload=None, payload_bytes=b"\x00\xff", priority=1)
    first, second = claims()
    assert first.payload is not None and '"ü"' in first.payload.replace("\\u00fc", "ü")
    assert bytes(second.payload_bytes or b"") == b"\x00\xff"


@pytest.mark.django_db(transaction=True)
def test_claimers_at_the_same_time_never_get_the_same_job():
    """Eight real connections; every job goes to exactly one, and nobody gets more than asked for."""
    count, batch = 2000, 50
    with cluster_bound("alpha"):
        enqueue_many([NewJob(type="demo:noop") for _ in range(count)], by="test")
        nodes = [str(make_node().pk) for _ in range(8)]
    got: list[str] = []
    errors: list[BaseException] = []

    def work(node: str) -> None:
        try:
            with cluster_bound("alpha") as cluster:
                mine = connections[cluster.alias]
                appetite = Appetite(node, {"process": batch}, POOLS, ("demo:noop",), None)
                empty = 0
                while empty < 3:
                    claimed = take_turn(mine, [], appetite).claimed
                    assert len(claimed) <= batch
                    empty = 0 if claimed else empty + 1
                    got.extend(job.id for job in claimed)
        except BaseException as error:
            errors.append(error)
        finally:
            connections["cluster-alpha"].close()

    threads = [threading.Thread(target=work, args=(node,)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not errors
    assert len(got) == count
    assert len(set(got)) == count


def test_the_pick_goes_by_the_index_made_for_it(alpha, is_postgresql):
    for _ in range(50):
        make_job()
    alias = "cluster-alpha"
    if not is_postgresql:
        # The statement names the index itself, and fails where it cannot be used.
        plan = (
            connections[alias]
            .cursor()
            .execute(
                "EXPLAIN QUERY PLAN SELECT priority, run_at, id FROM job INDEXED BY job_ready"
                " WHERE state = 'ready' AND queue = 'default' AND kind = 'http'"
                " ORDER BY priority, run_at, id LIMIT 5"
            )
        )
        text = str(plan.fetchall())
        assert "job_ready" in text and "TEMP B-TREE" not in text
        return
    appetite = Appetite(str(make_node().pk), {"process": 5}, POOLS, ("demo:noop",), None)
    raw = connections[alias].connection
    with psycopg.Cursor(raw) as cursor:
        # A table of a few rows would be scanned; what counts is that the index fits the order.
        cursor.execute("ANALYZE job")
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute(
            "EXPLAIN " + turn._statement("", "0", True), claim.postgres_parameters(appetite)
        )
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert plan.count("using job_ready on job") == 2, plan
    assert "job_pkey" in plan


def test_the_default_connection_is_not_a_cluster(db):
    assert connection.alias == "default"
