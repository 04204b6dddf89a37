"""Long runs under load: nodes killed and frozen, the database restarted, the wire cut and slow."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest
from django.db import connections

from tests import settings as test_settings
from tests.faults.harness import Yard, batches, new_jobs
from tests.faults.report import percentile, scaled

pytestmark = [pytest.mark.long, pytest.mark.django_db(transaction=True)]

IS_POSTGRES = test_settings.BACKEND == "postgresql"
POSTGRES_ONLY = pytest.mark.skipif(not IS_POSTGRES, reason="PostgreSQL only")
NODES = {True: 3, False: 2}[IS_POSTGRES]


def small_work(count: int, **more):
    """Jobs of 1 to 50 ms."""
    return new_jobs(count, payload=lambda n: {"seconds": 0.001 + 0.001 * (n % 50)}, **more)


def end_bound(lease: float, jobs: int) -> float:
    """Seconds after which everything must have ended: the work itself, and what leases hold back."""
    return 60 + 3 * lease + jobs * 0.03


class Feeder:
    """Enqueues from a thread of its own, in batches, as fast as it is told; never gives up."""

    def __init__(self, yard: Yard, count: int, *, keep_open: int) -> None:
        self.yard, self.keep_open = yard, keep_open
        self.waiting = list(batches(small_work(count), 200))

    def feed(self) -> None:
        """As much as keeps the yard busy; an unknown batch counts as submitted."""
        try:
            open_jobs = self.yard.open_jobs()
        except psycopg.Error:
            return
        while self.waiting and open_jobs < self.keep_open:
            batch = self.waiting.pop()
            self.yard.submit(batch)
            open_jobs += len(batch)

    def feed_some(self) -> None:
        """Something for every slot there is, out of what waits, or beside it."""
        if self.yard.open_jobs() < 100:
            self.yard.submit(self.waiting.pop() if self.waiting else small_work(200))

    def feed_one(self) -> None:
        """There is something to do, however far the work has come."""
        self.yard.submit(small_work(1))

    def feed_all(self) -> None:
        while self.waiting:
            self.yard.submit(self.waiting.pop())


def test_nodes_killed_under_load_lose_nothing(yard, figures, lease):
    """Red without: the rescue loop, and its test that the node is dead."""
    count = scaled(100_000 if IS_POSTGRES else 30_000, least=500)
    kills = scaled(50, least=3)
    feeder = Feeder(yard, count, keep_open=max(count // 10, 400))
    integrity: list[str] = []
    for _ in range(NODES):
        yard.start_and_wait(concurrency=8)
    for number in range(kills):
        feeder.feed()
        time.sleep(yard.random.uniform(0.5, 3.0))
        yard.kill_busy(feeder.feed_some)
        if not IS_POSTGRES:
            integrity += [row[0] for row in yard.database.rows("PRAGMA integrity_check")]
        yard.start_and_wait(concurrency=8)
        # The kills are spread over the work.
        while len(feeder.waiting) > (kills - number) * count / 200 / kills:
            feeder.feed()
            time.sleep(0.1)
    feeder.feed_all()
    yard.wait_until_all_ended(end_bound(lease, count))
    yard.stop()
    verdict = yard.judge()
    recoveries = yard.recoveries()
    figures |= verdict.figures
    figures |= {
        "kills": kills,
        "recovery_p99_seconds": percentile(recoveries, 0.99),
        "integrity_ok": integrity.count("ok"),
        "locked_surfaced": yard.said("database is locked"),
    }
    verdict.assert_sound()
    assert verdict.figures["states"].keys() == {"succeeded"}
    # Each of them had work in hand, or nothing was shown.
    assert len(recoveries) == kills
    # The lease, a sweep, and a busy host: 40 s with the defaults.
    assert not recoveries or max(recoveries) <= lease + min(5.0, lease / 6) * 1.2 + 4.0
    if not IS_POSTGRES:
        assert integrity == ["ok"] * kills
        assert figures["locked_surfaced"] == 0


def test_frozen_nodes_write_nothing_when_they_wake_up(yard, figures, lease):
    """Red without: `AND fence AND node`."""
    count, freezes, length = scaled(20_000, least=300), scaled(40, least=2), lease * 1.5
    feeder = Feeder(yard, count, keep_open=400)
    at_once = 3
    for _ in range(at_once + 2):
        yard.start_and_wait(concurrency=4)
    # Work that is under way whenever the node is frozen.
    yard.submit(new_jobs(freezes * 4, payload=lambda n: {"seconds": 2.0}, max_attempts=20))
    frozen = []
    begun = 0
    while begun < freezes or frozen:
        feeder.feed()
        time.sleep(0.2)
        for one in [one for one in frozen if _now() - one.begun_at > length]:
            yard.thaw(one)
            frozen.remove(one)
        awake = [n for n in yard.running() if n not in [one.node for one in frozen]]
        if begun < freezes and len(frozen) < at_once and len(awake) > 1:
            frozen.append(yard.freeze(yard.random.choice(awake)))
            begun += 1
        for _ in range(at_once + 2 - len(yard.running())):
            # Not waited for: a frozen node may hold SQLite's write lock, and only we can thaw it.
            yard.start(concurrency=4)
    feeder.feed_all()
    yard.wait_until_all_ended(end_bound(lease, count))
    yard.stop()
    verdict = yard.judge()
    figures |= verdict.figures
    figures |= {"freezes": begun, "seconds_each": length, "told_too_late": yard.said("too late")}
    verdict.assert_sound()
    assert verdict.figures["states"].keys() == {"succeeded"}


def _now() -> float:
    from tests.faults import ledger

    return ledger.now()


@POSTGRES_ONLY
@pytest.mark.parametrize("how", ["immediate", "fast"])
def test_a_restarted_database_is_worked_with_again_at_once(how, yard, figures, lease, server):
    """Red without: results kept in memory."""
    count, restarts = scaled(25_000, least=500), scaled(20, least=2)
    feeder = Feeder(yard, count, keep_open=max(count // restarts, 300))
    nodes = [yard.start_and_wait(concurrency=6) for _ in range(2)]
    resumed: list[float] = []
    for _ in range(restarts):
        feeder.feed()
        time.sleep(yard.random.uniform(0.5, 2.0))
        server.stop(signal.SIGQUIT if how == "immediate" else signal.SIGINT)
        time.sleep(yard.random.uniform(0.0, 3.0))
        server.start()
        ready = time.monotonic()
        connections.close_all()
        resumed.append(_until_the_next_completion(yard, feeder) - ready)
    while feeder.waiting:
        feeder.feed()
        time.sleep(0.2)
    yard.settle_unknown()
    yard.wait_until_all_ended(end_bound(lease, count))
    by_hand = sum(not node.is_running for node in nodes)
    yard.stop()
    yard.settle_unknown()
    verdict = yard.judge()
    figures |= verdict.figures
    figures |= {
        "how": how,
        "restarts": restarts,
        "first_completion_p99_seconds": percentile(resumed, 0.99),
        "restarts_by_hand": by_hand,
    }
    verdict.assert_sound()
    assert verdict.figures["states"] == {"succeeded": len(yard.accepted)}
    assert by_hand == 0
    assert max(resumed) <= 10.0


def _until_the_next_completion(yard: Yard, feeder: Feeder) -> float:
    done = yard.final_jobs()

    def is_done() -> bool:
        feeder.feed_one()
        return yard.final_jobs() > done

    yard.wait(is_done, 30)
    return time.monotonic()


@contextmanager
def every(seconds: float, work: Callable[[], None]) -> Iterator[None]:
    """Do something again and again beside the block."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(seconds):
            work()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@POSTGRES_ONLY
def test_connections_that_are_killed_all_the_time_stop_nobody(yard, figures, lease):
    """Red without: the retry of transient errors."""
    seconds = scaled(180, least=8)
    nodes = [yard.start_and_wait(concurrency=4) for _ in range(2)]
    killed = [0]

    def kill_one() -> None:
        killed[0] += len(
            yard.database.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid IN"
                " (SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                "  AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
                "  ORDER BY random() LIMIT 1)"
            )
        )

    end = time.monotonic() + seconds
    with every(0.2, kill_one):
        while time.monotonic() < end:
            try:
                open_jobs = yard.open_jobs()
            except psycopg.Error:
                continue  # it was our own connection's turn
            if open_jobs < 200:
                yard.submit(small_work(50))
            time.sleep(0.05)
    yard.settle_unknown()
    done_before = yard.final_jobs()
    yard.wait_until_all_ended(end_bound(lease, 500))
    dead = sum(not node.is_running for node in nodes)
    yard.stop()
    verdict = yard.judge()
    figures |= verdict.figures
    figures |= {"killed": killed[0], "dead_loops": dead, "done_meanwhile": done_before}
    verdict.assert_sound()
    assert dead == 0
    assert done_before > 0
    assert verdict.figures["states"] == {"succeeded": len(yard.accepted)}


@POSTGRES_ONLY
def test_a_slow_network_ends_no_lease(yard, proxy, figures, lease):
    """Red without: the heartbeat's own connection."""
    count = scaled(10_000, least=300)
    for part in batches(small_work(count), 1000):
        yard.submit(part)
    with proxy.between():
        nodes = [yard.start(concurrency=8) for _ in range(2)]
        proxy.delay_seconds = 0.1
        yard.wait(lambda: all(node.is_up() for node in nodes), 120)
        begun = time.monotonic()
        spikes = 0
        while yard.open_jobs():
            time.sleep(yard.random.uniform(2.0, 5.0))
            if lease > 10:
                proxy.delay_seconds = 2.0
                time.sleep(1.0)
                spikes += 1
                proxy.delay_seconds = 0.1
            assert time.monotonic() - begun < 600 + count * 0.1
        took = time.monotonic() - begun
        proxy.calm()
        yard.stop()
    verdict = yard.judge()
    lost = yard.database.value("SELECT count(*) FROM node WHERE status = 'dead'")
    figures |= verdict.figures
    figures |= {"false_lease_ends": lost, "spikes": spikes, "jobs_per_second": round(count / took)}
    verdict.assert_sound()
    assert lost == 0
    assert verdict.figures["outcomes"] == {"succeeded": count}
