"""Long runs of ordinary work: drains, memory, hints, large tables."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest
from django.db import connections

from clusters.policy import ClusterPolicy
from jobs.api.items import item_sql
from jobs.engine import bulk
from jobs.engine.claim import Appetite
from jobs.engine.turn import take_turn
from jobs.listing import newest
from jobs.models import BulkStatus, Job
from tests import settings as test_settings
from tests.factories import make_node
from tests.faults.harness import ALIAS, batches, new_jobs
from tests.faults.report import percentile, scale, scaled

pytestmark = [pytest.mark.long, pytest.mark.django_db(transaction=True)]

IS_POSTGRES = test_settings.BACKEND == "postgresql"
POSTGRES_ONLY = pytest.mark.skipif(not IS_POSTGRES, reason="PostgreSQL only")


@pytest.mark.short_leases
def test_nodes_that_are_stopped_all_the_time_run_nothing_twice(yard, figures):
    """Red without: beats during the drain. Now and then a second signal, which cuts it short."""
    stops, grace = scaled(100, least=3), 10.0
    took: list[float] = []
    nodes = [yard.start_and_wait(concurrency=4) for _ in range(2)]
    for number in range(stops):
        yard.submit(new_jobs(100, payload=lambda n: {"seconds": 0.01 * (n % 10)}))
        # Every fifth has work that outlasts any grace, and is told twice.
        is_cut = number % 5 == 4
        if is_cut:
            yard.submit(
                new_jobs(1, payload=lambda n: {"seconds": 15.0}, priority=-1, max_attempts=20)
            )
        time.sleep(yard.random.uniform(0.1, 0.5))
        node = nodes[number % 2]
        node.process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        if is_cut:
            time.sleep(0.3)
            node.process.send_signal(signal.SIGTERM)
        status = node.process.wait(grace + 20)
        took.append(time.monotonic() - begun)
        assert status == 0
        nodes[number % 2] = yard.start_and_wait(concurrency=4)
    yard.wait_until_all_ended(120)
    yard.stop()
    verdict = yard.judge()
    outcomes = verdict.figures["outcomes"]
    figures |= verdict.figures
    figures |= {"stops": stops, "exit_p99_seconds": percentile(took, 0.99)}
    verdict.assert_sound()
    assert outcomes.get("lost", 0) == 0
    # Whatever began twice was released by a drain that was cut short.
    assert verdict.figures["explained"] <= outcomes.get("released", 0)
    assert max(took) <= grace + 2


def test_the_memory_of_a_node_stays_flat_over_a_million_jobs(yard, figures):
    count = scaled(1_000_000, least=3000)
    node = yard.start_and_wait(concurrency=2, env={"YARDMASTER_WORKER_KINDS": "python"})
    sizes: list[tuple[int, int]] = []
    submitted = 0
    begun = time.monotonic()
    while submitted < count or yard.open_jobs():
        open_jobs = yard.open_jobs()
        if submitted < count and open_jobs < 20_000:
            part = new_jobs(min(2000, count - submitted), type_name="demo:noop")
            submitted += len(yard.submit(part))
        sizes.append((submitted - open_jobs, node.memory()))
        time.sleep(0.2)
        assert time.monotonic() - begun < 300 + count * 0.01
    warm = next(size for done, size in sizes if done >= count / 10)
    growth = sizes[-1][1] / warm - 1
    figures |= {
        "jobs": count,
        "jobs_per_second": round(count / (time.monotonic() - begun)),
        "mebibytes_warm": warm >> 20,
        "mebibytes_end": sizes[-1][1] >> 20,
        "growth_percent": round(growth * 100, 1),
    }
    assert node.is_running
    # In a trial the first tenth is too short to have warmed anything.
    assert growth <= 0.10 or count < 200_000


@POSTGRES_ONLY
@pytest.mark.parametrize("how", ["dropped", "doubled", "storm"])
def test_hints_may_be_lost_or_come_in_masses(how, yard, figures):
    """Red without: polling."""
    count = scaled(400, least=40)
    env = {"YARDMASTER_NOTIFY": "no"} if how == "dropped" else {}
    node = yard.start_and_wait(concurrency=2, env=env)
    stop = threading.Event()
    sent = [0]

    def say() -> None:
        connection = yard.database.connect()
        try:
            while not stop.is_set():
                rows = 1 if how == "doubled" else 200
                connection.execute(
                    f"SELECT pg_notify('yardmaster_ready', 'default ' || n % {rows + 1})"
                    f" FROM generate_series(1, {rows}) AS n"
                )
                sent[0] += rows
                stop.wait(0.02)
        finally:
            connection.close()

    thread = threading.Thread(target=say)
    if how != "dropped":
        thread.start()
    try:
        for part in batches(new_jobs(count), 1):
            yard.submit(part)
            time.sleep(0.05)
        yard.wait_until_all_ended(60)
    finally:
        stop.set()
        if thread.is_alive():
            thread.join()
    assert node.is_running
    yard.stop()
    waits = [
        float(row[0])
        for row in yard.database.rows("SELECT extract(epoch FROM started_at - run_at) FROM job")
    ]
    verdict = yard.judge()
    figures |= verdict.figures
    figures |= {"how": how, "hints_per_second": sent[0], "pick_up_p99": percentile(waits, 0.99)}
    verdict.assert_sound()
    assert verdict.figures["states"] == {"succeeded": count}
    # Where there are no hints a node asks four times a second.
    assert percentile(waits, 0.99) <= 0.25 * 1.2 + 0.1 + 0.15


FILL = """
INSERT INTO job (id, kind, type, queue, state, is_held, priority, tags, enqueued_by, on_lost,
                 timeout_seconds, max_attempts, attempts, crashes, fence, run_at, created_at, finished_at,
                 metadata)
"""


@POSTGRES_ONLY
def test_tables_of_millions_are_claimed_from_listed_and_cleared(yard, figures):
    """Red without: the partial index. Two million rows are written in SQL, not through the front door."""
    rows = scaled(1_000_000, least=20_000)
    yard.database.rows("ALTER TABLE job DISABLE TRIGGER fault_edge")
    for state in ("ready", "succeeded"):
        finished = "now()" if state == "succeeded" else "NULL"
        yard.database.rows(
            f"{FILL} SELECT gen_random_uuid(), 'python', 'fault:work', 'default', '{state}', false, 0,"
            " '[]', 'fault', 'retry', 30, 3, 0, 0, 0, now(), now() - n * interval '1 ms',"
            f" {finished}, '{{}}' FROM generate_series(1, {rows}) AS n"
        )
    yard.database.rows("ALTER TABLE job ENABLE TRIGGER fault_edge")
    yard.database.rows("ANALYZE job")
    node = str(make_node(types=["fault:work"]).pk)
    appetite = Appetite(node, {"process": 50}, {"python": "process"}, ("fault:work",), None)
    claims, lists = [], []
    for _ in range(scaled(200, least=20)):
        begun = time.monotonic()
        assert len(take_turn(connections[ALIAS], [], appetite).claimed) == 50
        claims.append(time.monotonic() - begun)
    for state in ("ready", "succeeded", "running"):
        for _ in range(10):
            begun = time.monotonic()
            assert len(newest(ALIAS, {"state": [state]}, item_sql("postgresql"), 50)) == 50
            lists.append(time.monotonic() - begun)
    begun = time.monotonic()
    operation = bulk.request("cancel", {"state": ["ready"]}, reason="a test", by="cli:test")
    beside = []
    while bulk.advance(ALIAS, ClusterPolicy()):
        turn = time.monotonic()
        take_turn(connections[ALIAS], [], appetite)
        beside.append(time.monotonic() - turn)
    seconds = time.monotonic() - begun
    operation.refresh_from_db()
    states = dict(yard.database.rows("SELECT state, count(*) FROM job GROUP BY state"))
    figures |= {
        "rows": 2 * rows,
        "claim_p99_seconds": percentile(claims, 0.99),
        "claim_p99_seconds_beside_the_bulk_operation": percentile(beside, 0.99),
        "list_p99_seconds": percentile(lists, 0.99),
        "cancelled_per_second": round(states.get("cancelled", 0) / seconds),
    }
    assert operation.status == BulkStatus.FINISHED, operation.error
    assert operation.outcomes["cancelled"] == states["cancelled"]
    assert states["cancelled"] + states["running"] == states["succeeded"] == rows
    is_large = scale() >= 0.5
    assert percentile(claims, 0.99) <= 0.020 * (1 if is_large else 5)
    # The batches are cut to take 150 ms, so that nobody waits longer for a row.
    assert percentile(beside, 0.99) <= 0.25 * (1 if is_large else 5)
    assert percentile(lists, 0.99) <= 0.3 * (1 if is_large else 5)


@pytest.mark.skipif(not os.environ.get("SOAK"), reason="SOAK=1 asks for it")
def test_half_an_hour_of_everything_leaves_nothing_behind(yard, figures, lease):
    end = time.monotonic() + scaled(1800, least=30)
    nodes = [yard.start_and_wait(concurrency=4) for _ in range(3)]
    sizes: list[tuple[float, int, int]] = []
    while time.monotonic() < end:
        yard.submit(
            new_jobs(200, payload=lambda n: {"seconds": 0.001 * (n % 20), "fails": n % 40 == 0})
        )
        what = yard.random.choice(("kill", "stop", "freeze", "nothing", "nothing", "cancel"))
        node = yard.random.choice(nodes)
        if what == "kill":
            yard.kill(node)
        elif what == "stop":
            yard.stop_one(node)
        elif what == "freeze":
            frozen = yard.freeze(node)
            time.sleep(lease * 1.2)
            yard.thaw(frozen)
        elif what == "cancel":
            Job.objects.filter(state__in=("ready", "scheduled")).cancel()
        nodes = yard.running()
        while len(nodes) < 3:
            nodes.append(yard.start_and_wait(concurrency=4))
        oldest = nodes[0]
        handles = sum(process.num_fds() for process in oldest.processes())
        sizes.append((time.monotonic(), oldest.memory(), handles))
        time.sleep(1.0)
    yard.wait_until_all_ended(3 * lease + 60)
    yard.stop()
    verdict = yard.judge()
    figures |= verdict.figures
    figures |= {"mebibytes": [size >> 20 for _, size, _ in sizes[:: max(len(sizes) // 10, 1)]]}
    verdict.assert_sound()
