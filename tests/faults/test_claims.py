"""Many claimers at once: never more than asked for, each job to exactly one, limits kept."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections, transaction

from clusters.binding import cluster_bound
from clusters.policy import ClusterPolicy
from jobs.engine.claim import Appetite, Claimed
from jobs.engine.clock import countdown
from jobs.engine.complete import Report, decide
from jobs.engine.turn import take_turn
from jobs.models import Queue
from jobs.states import Outcome
from tests.factories import make_node, make_queue
from tests.faults import report
from tests.faults.harness import ALIAS, batches, new_jobs
from tests.faults.report import scaled

CLAIMERS = 8
POLICY = ClusterPolicy()


def at_once(count: int, work: Callable[[int], Any]) -> None:
    """Run the same work in threads, each with a connection of its own; the first error is raised."""
    errors: list[BaseException] = []
    gate = threading.Barrier(count)

    def run(number: int) -> None:
        try:
            with cluster_bound("alpha"):
                gate.wait(30)
                work(number)
        except BaseException as error:
            errors.append(error)
            gate.abort()
        finally:
            connections[ALIAS].close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    if errors:
        raise errors[0]


def appetite(node: str, process: int, io: int = 0) -> Appetite:
    pools = {"python": "process", "http": "io"}
    return Appetite(node, {"process": process, "io": io}, pools, ("fault:work",), None)


def claim(node: str, process: int, io: int = 0) -> list[Claimed]:
    """Claim, from queues with limits too."""
    turn = take_turn(connections[ALIAS], [], appetite(node, process, io), with_limits=True)
    return turn.claimed


def succeed(node: str, jobs: list[Claimed]) -> None:
    now = countdown()
    rows = [decide(job, node, Report(Outcome.SUCCEEDED, now, now), POLICY) for job in jobs]
    assert take_turn(connections[ALIAS], rows, None).superseded == []


@pytest.mark.skipif(connections[ALIAS].vendor == "sqlite", reason="on SQLite one writes at a time")
def test_a_claim_that_is_not_committed_holds_up_nobody(yard):
    """Red without: the lock of the pick. Others would pick the same jobs and wait for them."""
    yard.submit(new_jobs(20))
    nodes = [str(make_node().pk) for _ in range(2)]
    others: list[Claimed] = []

    def claim_others() -> None:
        try:
            with cluster_bound("alpha"):
                others.extend(claim(nodes[1], 5))
        finally:
            connections[ALIAS].close()

    with transaction.atomic(using=ALIAS):
        mine = claim(nodes[0], 5)
        thread = threading.Thread(target=claim_others)
        thread.start()
        thread.join(5)
        got = [one.id for one in others]
    thread.join(30)
    assert len(mine) == len(got) == 5
    assert not {one.id for one in mine} & {*got}


def test_eight_claimers_get_each_job_once_and_never_more_than_they_asked_for(yard, figures):
    """Red without: the materialized pick, its lock, and the guard of the update."""
    count = scaled(10_000, least=1000)
    for part in batches(new_jobs(count), 2500):
        yard.submit(part)
    nodes = [str(make_node().pk) for _ in range(CLAIMERS)]
    got: list[list[Claimed]] = [[] for _ in range(CLAIMERS)]
    over: list[tuple[int, int]] = []
    claims = [0] * CLAIMERS

    def work(number: int) -> None:
        dice = random.Random(f"{report.seed()} {number}")
        empty = 0
        while empty < 3:
            wanted = dice.choice((1, 2, 7, 40, 100, 300))
            claimed = claim(nodes[number], wanted)
            claims[number] += 1
            if len(claimed) > wanted:
                over.append((wanted, len(claimed)))
            got[number] += claimed
            empty = 0 if claimed else empty + 1

    begun = time.monotonic()
    at_once(CLAIMERS, work)
    ids = [job.id for jobs in got for job in jobs]
    figures |= {
        "ready": count,
        "claimed": len(ids),
        "twice": len(ids) - len(set(ids)),
        "over": len(over),
        "claims": sum(claims),
        "claim_seconds": round(time.monotonic() - begun, 2),
    }
    assert not over
    assert len(set(ids)) == len(ids) == count
    assert {job.fence for jobs in got for job in jobs} == {1}
    for number, jobs in enumerate(got):
        succeed(nodes[number], jobs)
    yard.judge().assert_sound()


class Watch:
    """The most jobs of one queue that were seen running at once, looked at all the time."""

    def __init__(self, yard: Any, queue: str) -> None:
        self.yard, self.queue = yard, queue
        self.most = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        connection = self.yard.database.connect()
        try:
            while not self._stop.is_set():
                row = connection.execute(
                    f"SELECT count(*) FROM job WHERE state = 'running' AND queue = '{self.queue}'"
                ).fetchone()
                self.most = max(self.most, row[0])
                time.sleep(0.002)
        finally:
            connection.close()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._stop.set()
        self._thread.join()


def drain(yard: Any, nodes: list[str], wanted: int, seconds: float) -> None:
    """Claim and complete until nothing of the yard is left, all claimers at once."""
    deadline = time.monotonic() + seconds

    def work(number: int) -> None:
        dice = random.Random(f"{report.seed()} {number}")
        while time.monotonic() < deadline:
            claimed = claim(nodes[number], wanted)
            if not claimed and yard.open_jobs() == 0:
                return
            time.sleep(dice.uniform(0, 0.01))
            if claimed:
                succeed(nodes[number], claimed)

    at_once(CLAIMERS, work)
    assert yard.open_jobs() == 0


def test_the_concurrency_of_a_queue_is_kept_over_all_claimers(yard, figures):
    """Red without: the limits in the pick."""
    make_queue("narrow", max_concurrency=5)
    count = scaled(300, least=50)
    yard.submit(new_jobs(count, queue="narrow"))
    yard.submit(new_jobs(count))
    nodes = [str(make_node().pk) for _ in range(CLAIMERS)]
    with Watch(yard, "narrow") as watch:
        drain(yard, nodes, 20, 60)
    figures |= {"limit": 5, "most_at_once": watch.most, "jobs": count}
    assert 1 <= watch.most <= 5
    yard.judge().assert_sound()


def test_the_rate_of_a_queue_is_kept_over_all_claimers(yard, figures):
    """Red without: the limits in the pick. The bucket holds one period's worth."""
    limit, period, busy_host = 20, 2.0, 0.5
    make_queue("slow", rate_limit=limit, rate_period_seconds=period)
    count = scaled(100, least=60)
    yard.submit(new_jobs(count, queue="slow"))
    nodes = [str(make_node().pk) for _ in range(CLAIMERS)]
    drain(yard, nodes, 20, 60)
    starts = sorted(
        row[0] for row in yard.database.rows("SELECT at FROM fault_edge WHERE after = 'running'")
    )
    # Over any span: a full bucket, and what flows in meanwhile.
    over = [
        (later - earlier, j - i + 1)
        for i, earlier in enumerate(starts)
        for j, later in enumerate(starts)
        if j > i and j - i + 1 > limit + limit * (later - earlier + busy_host) / period + 1
    ]
    figures |= {
        "limit": limit,
        "period_seconds": period,
        "starts": len(starts),
        "spans_over": len(over),
        "per_second": round(len(starts) / max(starts[-1] - starts[0], 1e-9), 1),
    }
    assert not over, over[:5]
    yard.judge().assert_sound()


def test_a_queue_that_is_paused_while_it_is_drained_starts_nothing_more(yard, figures):
    """Red without: the look at paused queues in the pick."""
    make_queue("stopped")
    count = scaled(2000, least=400)
    for part in batches(new_jobs(count, queue="stopped"), 1000):
        yard.submit(part)
    nodes = [str(make_node().pk) for _ in range(CLAIMERS)]
    paused_at: list[float] = []
    late: list[Any] = []

    def work(number: int) -> None:
        if number == 0:
            time.sleep(0.1)
            with transaction.atomic(using=ALIAS):
                Queue.objects.filter(name="stopped").pause(by="test")
            paused_at.append(time.time())
            return
        while not paused_at:
            succeed(nodes[number], claim(nodes[number], 1))
            time.sleep(0.005)
        for _ in range(20):
            late.extend(claim(nodes[number], 1))
            time.sleep(0.02)

    at_once(CLAIMERS, work)
    figures |= {"jobs": count, "left": yard.open_jobs(), "late_starts": len(late)}
    assert not late
    assert yard.open_jobs() > 0
