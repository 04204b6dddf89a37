"""Jobs that take everything they can get, among others that only want to work."""

from __future__ import annotations

import os
import time

import psutil
import pytest

from jobs.engine.enqueue import NewJob
from tests.faults.database import plain_id, seconds
from tests.faults.harness import batches, new_jobs
from tests.faults.report import percentile, scaled

pytestmark = [pytest.mark.long, pytest.mark.django_db(transaction=True)]

MARKER = f"fault-daemon-{os.getpid()}"
# Those that take their process down, each time; and those that are stopped by their clock.
DEADLY = ("poison:exit", "poison:segfault", "poison:signal", "poison:memory", "poison:disk")
STUCK = ("poison:gil", "poison:forks")
# These end by themselves, one way or the other; what they leave behind is what counts.
HARMLESS = ("poison:descriptors", "poison:daemon", "poison:line")


def _payload(name: str, directory: str) -> dict[str, object]:
    return {
        "poison:forks": {"forks": 200},
        "poison:daemon": {"marker": MARKER},
        "poison:disk": {"directory": directory, "megabytes": 64},
        "poison:line": {"megabytes": 50},
    }.get(name, {})


@pytest.mark.parametrize("name", [*DEADLY, *STUCK, *HARMLESS])
def test_a_poisonous_job_harms_nobody_but_itself(name, yard, figures, tmp_path):
    """Red without: the crash budget."""
    count, good = scaled(20, least=2), scaled(2000, least=100)
    directory = tmp_path / "scratch"
    directory.mkdir()
    node = yard.start_and_wait(concurrency=4, env={"YARDMASTER_WORKER_KINDS": "python"})
    memory = _Highest(node)
    is_stuck = name in STUCK
    bad = yard.submit(
        [
            NewJob(
                type=name,
                payload=_payload(name, str(directory)),
                # Enough for the crash budget to be what ends it; one is enough for the clock.
                max_attempts=1 if is_stuck else 8,
                timeout_seconds=2.0 if is_stuck else 60.0,
            )
            for _ in range(count)
        ]
    )
    for part in batches(new_jobs(good, payload=lambda n: {"seconds": 0.005}), 200):
        yard.submit(part)
    begun = time.monotonic()
    while yard.open_jobs():
        memory.look()
        time.sleep(0.2)
        assert time.monotonic() - begun < 120 + count * 30, yard.tails()
    assert node.is_running
    time.sleep(1.0)
    survivors = _survivors(node)
    ends = yard.database.rows(
        "SELECT state, reason, crashes, count(*) FROM job WHERE type = %s GROUP BY 1, 2, 3", [name]
    )
    yard.stop()
    verdict = yard.judge()
    good_ones = dict(
        yard.database.rows(
            "SELECT state, count(*) FROM job WHERE type = 'fault:work' GROUP BY state"
        )
    )
    figures |= verdict.figures
    figures |= {
        "poison": name,
        "ends": ends,
        "good_failed": good - good_ones.get("succeeded", 0),
        "survivors": len(survivors),
        "node_restarts": 0,
        "highest_mebibytes": memory.highest >> 20,
    }
    verdict.assert_sound()
    assert len(bad) == count
    assert good_ones == {"succeeded": good}
    assert not survivors, survivors
    if name in DEADLY:
        assert ends == [("failed", "poisoned", 3, count)]
    elif is_stuck:
        assert ends == [("failed", "timeout", 0, count)]
    else:
        assert sum(row[3] for row in ends) == count


class _Highest:
    """The most memory that a node with all its processes was seen to hold."""

    def __init__(self, node) -> None:
        self.node = node
        self.highest = 0

    def look(self) -> None:
        self.highest = max(self.highest, self.node.memory())


def _survivors(node) -> list[str]:
    """Processes that jobs have started, and all of the node's family that is no child of its own."""
    children = {child.pid for child in node.children()}
    template = psutil.Process(node.pid).children()[0].pid
    strangers = [
        f"{one.pid} {one.name()}"
        for one in node.processes()
        if one.pid not in children | {node.pid, template}
    ]
    for one in psutil.process_iter(["cmdline"]):
        if any(MARKER in word for word in one.info["cmdline"] or ()):
            strangers.append(f"{one.pid} daemon")
            one.kill()
    return strangers


def test_a_flood_of_output_blocks_nobody_and_is_bounded(yard, figures):
    """Red without: the drain of the pipe."""
    floods, others = scaled(200, least=4), scaled(300, least=60)
    alone = _waits(yard, others)
    node = yard.running()[0]
    before = node.memory()
    highest = _Highest(node)
    yard.submit([NewJob(type="flood:lines", payload={"lines": 100_000}) for _ in range(floods)])
    script = "head -c 10000000 /dev/urandom | base64; head -c 1000000 /dev/urandom; yes | head -c 5000000"
    shells = yard.submit(
        [NewJob(kind="shell", payload={"script": script}) for _ in range(max(floods // 10, 2))]
    )
    wait = scaled(120, least=10)
    beside: list[float] = []
    end = time.monotonic() + wait
    while time.monotonic() < end and yard.open_jobs():
        highest.look()
        beside += _waits(yard, 20, start=False)
    yard.wait_until_all_ended(120 + floods * 3)
    highest.look()
    yard.stop()
    verdict = yard.judge()
    largest = yard.database.value(
        "SELECT max(size) FROM (SELECT sum(length(message) + 1) AS size FROM job_log"
        " GROUP BY job_id, fence) AS sizes"
    )
    figures |= verdict.figures
    figures |= {
        "largest_log_bytes": int(largest),
        "node_grew_mebibytes": (highest.highest - before) >> 20,
        "wait_p99_alone": percentile(alone, 0.99),
        "wait_p99_beside": percentile(beside, 0.99),
        "shell_jobs": len(shells),
    }
    verdict.assert_sound()
    assert largest <= (64 + 192 + 2) * 1024 * 4  # characters may be escaped
    assert verdict.figures["states"].keys() == {"succeeded"}


def _waits(yard, count: int, *, start: bool = True) -> list[float]:
    """How long short jobs of the highest priority take from enqueue to end."""
    if start:
        yard.start_and_wait("--enable-shell", concurrency=4)
    ids = yard.submit(new_jobs(count, priority=-100))
    wanted = {plain_id(one) for one in ids}

    def ended() -> bool:
        return (
            yard.database.value(
                "SELECT count(*) FROM job WHERE priority = -100 AND finished_at IS NULL"
            )
            == 0
        )

    yard.wait(ended, 120)
    return [
        seconds(finished) - seconds(created)
        for pk, created, finished in yard.database.rows(
            "SELECT id, created_at, finished_at FROM job WHERE priority = -100"
        )
        if plain_id(pk) in wanted
    ]
