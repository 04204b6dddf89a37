"""Nodes that cannot be heard, that hang, and that are asked to leave."""

from __future__ import annotations

import signal
import sqlite3
import time
from contextlib import closing

import psutil
import pytest

from tests import settings as test_settings
from tests.faults.harness import batches, new_jobs
from tests.faults.report import percentile, scaled

LEASE, GRACE = 3.0, 10.0
# Three periods of the watchdog.
HANGS_AT_MOST = 35.0
ON_A_WIRE = pytest.mark.skipif(
    test_settings.BACKEND != "postgresql", reason="SQLite has no wire that could go silent"
)


@ON_A_WIRE
def test_a_node_that_is_cut_off_stops_its_work_before_others_may_start_it(yard, proxy, figures):
    """Red without: the fuse. Packets vanish, and no call of the node returns or fails."""
    rounds = scaled(1)
    yard.start_and_wait(concurrency=4)
    for _ in range(rounds):
        yard.submit(new_jobs(2, payload=lambda n: {"seconds": 2 * LEASE}, max_attempts=50))
        with proxy.between():
            lonely = yard.start_and_wait(concurrency=4)
        yard.submit(new_jobs(4, payload=lambda n: {"seconds": 2 * LEASE}, max_attempts=50))
        _wait_for_work(yard, lonely)
        proxy.is_stalled = True
        _wait_for_rescue(yard, lonely)
        time.sleep(1.0)
        proxy.is_stalled = False
        yard.wait_until_all_ended(60)
        figures["node_ended"] = not lonely.is_running
        if lonely.is_running:
            yard.stop_one(lonely)
    yard.stop()
    verdict = yard.judge()
    figures |= verdict.figures | {"rounds": rounds}
    verdict.assert_sound()
    assert verdict.figures["explained"] >= rounds


def _wait_for_work(yard, node) -> None:
    yard.wait(lambda: _held_by(yard, node) > 0, 20)


def _wait_for_rescue(yard, node) -> None:
    yard.wait(lambda: _held_by(yard, node) == 0, LEASE + 5)


def _held_by(yard, node) -> int:
    return int(
        yard.database.value(
            "SELECT count(*) FROM job JOIN node ON node.id = job.node_id"
            " WHERE job.state = 'running' AND node.pid = %s",
            [node.pid],
        )
    )


def test_a_node_whose_loop_hangs_ends_itself_and_its_jobs_go_on_elsewhere(yard, figures):
    """Red without: whoever watches the loop."""
    node = yard.start_and_wait(concurrency=2, env={"YARDMASTER_WORKER_KINDS": "python"})
    yard.submit(new_jobs(2, payload=lambda n: {"seconds": 6.0}))
    yard.wait(lambda: _held_by(yard, node) == 2, 10)
    other = yard.start_and_wait(concurrency=4)
    template = psutil.Process(node.pid).children()[0]
    victim = template.children()[0]
    template.suspend()  # whoever asks it for another child waits for ever
    victim.kill()
    begun = time.monotonic()
    yard.wait(lambda: not node.is_running, HANGS_AT_MOST + 5)
    figures["ended_after_seconds"] = round(time.monotonic() - begun, 2)
    assert node.process.returncode != 0
    yard.wait_until_all_ended(40)
    assert other.is_running
    yard.stop()
    verdict = yard.judge()
    figures |= verdict.figures
    verdict.assert_sound()
    assert figures["ended_after_seconds"] <= HANGS_AT_MOST


def test_nodes_that_drain_keep_their_lease_and_run_nothing_twice(yard, figures):
    """Red without: beats during the drain. Some jobs are longer than the lease."""
    drains = scaled(4, least=2)
    took: list[float] = []
    nodes = [yard.start_and_wait(concurrency=3) for _ in range(2)]
    for number in range(drains):
        yard.submit(new_jobs(2, payload=lambda n: {"seconds": LEASE + 1.5}, priority=-1))
        for part in batches(new_jobs(60, payload=lambda n: {"seconds": 0.01 * (n % 5)}), 30):
            yard.submit(part)
        node = nodes[number % 2]
        yard.wait(lambda: yard.database.value(LONG_RUN) is not None, 20, every=0.02)
        node.process.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        yard.wait(lambda node=node: not node.is_running, GRACE + 5, every=0.02)
        took.append(time.monotonic() - begun)
        assert node.process.returncode == 0
        nodes[number % 2] = yard.start_and_wait(concurrency=3)
    yard.wait_until_all_ended(60)
    yard.stop()
    verdict = yard.judge()
    figures |= verdict.figures
    figures |= {"drains": drains, "exit_p99_seconds": percentile(took, 0.99)}
    verdict.assert_sound()
    assert verdict.figures["starts"] == len(yard.accepted)
    assert verdict.figures["outcomes"] == {"succeeded": len(yard.accepted)}
    assert max(took) <= GRACE + 10


LONG_RUN = "SELECT 1 FROM job WHERE state = 'running' AND priority = -1 LIMIT 1"


def test_what_waits_in_the_hands_of_a_draining_node_goes_to_others_at_once(yard, figures):
    """Red without: the recall at the start of a drain."""
    env = {"YARDMASTER_WORKER_KINDS": "python"}
    node = yard.start_and_wait(concurrency=1, env=env)
    yard.submit(new_jobs(300))
    yard.wait_until_all_ended(30)  # the node has learned that these are short
    other = yard.start_and_wait(concurrency=1, env=env)
    waits: list[float] = []
    for _ in range(scaled(2, least=1)):
        waits.append(_drain_with_full_hands(yard, node, other))
        node, other = other, yard.start_and_wait(concurrency=1, env=env)
    yard.stop()
    figures |= {"handed_back_p99_seconds": percentile(waits, 0.99)}
    yard.judge().assert_sound()
    assert max(waits) < 4  # a second before the long job in front of them ends


def _stop_between_writes(yard, node) -> None:
    """On SQLite whoever stands still in a transaction keeps all others from writing."""
    while True:
        node.process.send_signal(signal.SIGSTOP)
        if yard.database.is_postgresql:
            return
        with closing(sqlite3.connect(yard.database.path, timeout=1)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError:
                node.process.send_signal(signal.SIGCONT)
                time.sleep(0.02)


def _drain_with_full_hands(yard, node, other) -> float:
    """A long job in front, which nobody expects, and short ones behind it in the same hands."""
    _stop_between_writes(yard, other)
    # In one call: a node that saw the long one alone would claim nothing beside it.
    yard.submit([*new_jobs(1, payload=lambda n: {"seconds": 5.0}, priority=-2), *new_jobs(40)])
    yard.wait(lambda: _held_by(yard, node) > 1, 5, every=0.005)
    node.process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    yard.wait(lambda: _held_by(yard, node) <= 1, 5, every=0.005)
    waited = time.monotonic() - begun
    other.process.send_signal(signal.SIGCONT)
    yard.wait(lambda: not node.is_running, 10)
    yard.wait_until_all_ended(10)
    return waited
