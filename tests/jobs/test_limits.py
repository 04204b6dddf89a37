"""Limits of queues hold over all claimers, whatever they do at the same time."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta

import pytest
from django.db import connections
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from clusters.binding import cluster_bound
from jobs.engine import limits
from jobs.engine.claim import Appetite, Claimed
from jobs.engine.complete import Success
from jobs.engine.enqueue import NewJob, enqueue_many
from jobs.engine.limits import Limit
from jobs.engine.turn import take_turn
from jobs.models import Job, Queue
from jobs.states import State
from tests.factories import make_job, make_node, make_queue

ALIAS = "cluster-alpha"
POOLS = {"python": "process", "http": "io"}


def claims(n: int = 10, *, io: int = 0, node: str | None = None) -> list[Claimed]:
    node = node or str(make_node().pk)
    appetite = Appetite(node, {"process": n, "io": io}, POOLS, ("demo:noop",), None)
    return take_turn(connections[ALIAS], [], appetite, with_limits=True).claimed


def fill(queue: str, count: int, **columns: object) -> None:
    for _ in range(count):
        make_job(queue=queue, **columns)


def finish(job: Claimed, node: str) -> None:
    done = Success(job.id, job.fence, node, 1.0, 2.0, None)
    assert take_turn(connections[ALIAS], [done], None).superseded == []


def test_no_more_jobs_of_a_queue_run_at_once_than_it_allows(alpha):
    make_queue("narrow", max_concurrency=3)
    fill("narrow", 10)
    first, second = str(make_node().pk), str(make_node().pk)
    got = claims(node=first)
    assert len(got) == 3
    assert claims(node=second) == []
    finish(got[0], first)
    assert len(claims(node=second)) == 1


def test_what_runs_on_a_node_that_is_gone_still_counts(alpha):
    make_queue("narrow", max_concurrency=2)
    make_job(State.RUNNING, queue="narrow", node=make_node("dead"))
    fill("narrow", 5)
    assert len(claims()) == 1


def test_a_queues_room_is_for_all_its_kinds_together(alpha):
    make_queue("narrow", max_concurrency=3)
    fill("narrow", 4)
    fill("narrow", 4, kind="http", type="http")
    assert len(claims(io=10)) == 3


def test_limits_of_one_queue_leave_room_for_others_in_their_order(alpha):
    make_queue("narrow", max_concurrency=2)
    fill("narrow", 5, priority=-10)
    fill("default", 5)
    assert Counter(job.queue for job in claims(5)) == {"narrow": 2, "default": 3}


def test_a_claim_that_does_not_hold_the_limits_leaves_such_queues_alone(alpha, is_postgresql):
    if not is_postgresql:
        pytest.skip("on SQLite every claim has the database to itself, and looks at the limits")
    make_queue("narrow", max_concurrency=2)
    fill("narrow", 5)
    appetite = Appetite(str(make_node().pk), {"process": 5}, POOLS, ("demo:noop",), None)
    assert take_turn(connections[ALIAS], [], appetite).claimed == []


def test_a_rate_holds_over_its_period(alpha):
    queue = make_queue("slow", rate_limit=4, rate_period_seconds=60)
    fill("slow", 12)
    assert len(claims()) == 4
    assert claims() == []
    # A minute later.
    queue.refresh_from_db()
    earlier = [[at - 61, count] for at, count in queue.rate_grants]
    Queue.objects.filter(pk=queue.pk).update(rate_grants=earlier)
    assert len(claims()) == 4
    assert claims() == []


def test_both_limits_hold_together(alpha):
    make_queue("both", rate_limit=5, rate_period_seconds=60, max_concurrency=2)
    fill("both", 10)
    node = str(make_node().pk)
    got = claims(node=node)
    assert len(got) == 2
    for job in got:
        finish(job, node)
    assert len(claims(node=node)) == 2
    Job.objects.filter(state=State.RUNNING).update(
        state=State.SUCCEEDED, finished_at=timezone.now()
    )
    assert len(claims()) == 1


def test_a_paused_queue_with_limits_is_left_out(alpha):
    make_queue("narrow", max_concurrency=2, is_paused=True)
    fill("narrow", 3)
    assert claims() == []


@pytest.mark.parametrize("column", ["expires_at", "deadline_at"])
def test_a_job_whose_time_is_over_is_not_claimed(alpha, column):
    make_job(**{column: timezone.now() - timedelta(seconds=1)})
    fresh = make_job(**{column: timezone.now() + timedelta(minutes=1)})
    assert [job.id for job in claims()] == [str(fresh.pk)]


def test_an_attempt_gets_what_is_left_until_the_deadline(alpha):
    make_job(timeout_seconds=30, deadline_at=timezone.now() + timedelta(seconds=5))
    make_job(timeout_seconds=30, deadline_at=timezone.now() + timedelta(hours=1))
    short, long = sorted(job.timeout_seconds for job in claims())
    assert 3 < short <= 5
    assert long == 30


@pytest.mark.django_db(transaction=True)
def test_limits_hold_while_many_claim_and_complete_at_once():
    """Eight claimers; after each claim the claimer looks how many run, and finishes some."""
    with cluster_bound("alpha"):
        make_queue("narrow", max_concurrency=5)
        make_queue("slow", rate_limit=40, rate_period_seconds=600)
        make_queue("wide")
        for queue in ("narrow", "slow", "wide"):
            enqueue_many([NewJob(type="demo:noop", queue=queue) for _ in range(150)], by="test")
        nodes = [str(make_node().pk) for _ in range(8)]
    seen: list[int] = []
    done: list[str] = []
    errors: list[BaseException] = []
    start = threading.Barrier(len(nodes))

    def work(node: str) -> None:
        try:
            with cluster_bound("alpha"):
                start.wait()
                for _ in range(60):
                    got = claims(7, node=node)
                    running = Job.objects.filter(queue="narrow", state=State.RUNNING).count()
                    seen.append(running)
                    for job in got:
                        finish(job, node)
                    done.extend(job.id for job in got)
        except BaseException as error:
            errors.append(error)
        finally:
            connections[ALIAS].close()

    threads = [threading.Thread(target=work, args=(node,)) for node in nodes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert max(seen) <= 5
    assert len(done) == len(set(done))
    with cluster_bound("alpha"):
        started = Counter(Job.objects.exclude(attempts=0).values_list("queue", flat=True))
        # All that could run did: nobody starved, and the rate was used up but not passed.
        assert started == {"narrow": 150, "wide": 150, "slow": 40}


@given(
    limit=st.integers(1, 20),
    steps=st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 30)), max_size=60),
)
def test_in_no_stretch_of_the_period_start_more_than_the_rate_allows(limit, steps):
    now, grants, starts = 1000.0, [], []
    for pause, wanted in steps:
        now += pause
        row = Limit("q", None, limit, 1.0, grants, now)
        count = min(wanted, limits.rate_room(row))
        if count:
            grants = limits.granted(row, count)
            starts += [now] * count
        assert len(grants) <= limits.SLOTS + 1
        if not limits.rate_room(Limit("q", None, limit, 1.0, grants, now)):
            again = limits.room_again_at(Limit("q", None, limit, 1.0, grants, now))
            assert limits.rate_room(Limit("q", None, limit, 1.0, grants, again)) > 0
    for first in starts:
        assert sum(first <= other < first + 1.0 for other in starts) <= limit
