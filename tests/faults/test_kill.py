"""Nodes and children that are killed while they work."""

from __future__ import annotations

import signal
import time

import psutil

from tests.faults.harness import batches, new_jobs
from tests.faults.report import percentile, scaled


def test_killed_nodes_lose_no_job_and_run_none_twice_without_reason(yard, figures):
    """Red without: the rescue loop."""
    kills = scaled(5)
    # What a dead node held begins again at the front, and in the hands of the next to be killed.
    news = new_jobs(
        scaled(3000, least=300),
        payload=lambda n: {"seconds": 0.002 * (n % 20)},
        max_attempts=kills + 1,
    )
    more = lambda: new_jobs(  # noqa: E731
        100, payload=lambda n: {"seconds": 0.02}, max_attempts=kills + 1
    )
    waves = list(batches(news, max(len(news) // (kills + 1), 1)))
    for _ in range(2):
        yard.start_and_wait(concurrency=4)
    for number in range(kills):
        for part in batches(waves[number], 100):
            yard.submit(part)
        time.sleep(yard.random.uniform(0.2, 1.0))
        yard.kill_busy(lambda: yard.open_jobs() > 50 or yard.submit(more()))
        yard.start_and_wait(concurrency=4)
    for wave in waves[kills:]:
        yard.submit(wave)
    yard.wait_until_all_ended(90)
    yard.stop()
    verdict = yard.judge()
    recoveries = yard.recoveries()
    figures |= verdict.figures
    figures |= {"kills": kills, "recovery_p99_seconds": percentile(recoveries, 0.99)}
    verdict.assert_sound()
    assert verdict.figures["states"].keys() == {"succeeded"}
    # Each of them had work in hand, or nothing was shown.
    assert len(recoveries) == kills
    # Lease, a sweep of a sixth of it, and a busy host.
    assert not recoveries or max(recoveries) < 3.0 + 0.6 + 15.0


def test_a_killed_child_is_replaced_and_disturbs_nobody_else(yard, figures):
    """Red without: the marks in shared memory, which tell whom to charge."""
    kills, count = scaled(20), scaled(2000, least=200)
    news = new_jobs(count, payload=lambda n: {"seconds": 0.5 if n % 50 == 0 else 0.005})
    # Without the child of http jobs, which would die without having worked, and wait a little longer.
    node = yard.start_and_wait(concurrency=4, env={"YARDMASTER_WORKER_KINDS": "python"})
    for part in batches(news, 500):
        yard.submit(part)
    restarts: list[float] = []
    for _ in range(kills):
        time.sleep(yard.random.uniform(0.05, 0.25))
        if yard.open_jobs() < count // 4:
            yard.submit(new_jobs(count // 4, payload=lambda n: {"seconds": 0.01}))
        restarts.append(_kill_a_child(yard, node))
    yard.wait_until_all_ended(90)
    assert node.is_running
    yard.stop()
    verdict = yard.judge()
    outcomes = verdict.figures["outcomes"]
    figures |= verdict.figures
    charged = yard.database.value("SELECT count(*) FROM job WHERE crashes > 0")
    figures |= {
        "kills": kills,
        "restart_p99_seconds": percentile(restarts, 0.99),
        "jobs_charged": charged,
    }
    verdict.assert_sound()
    assert max(restarts) <= 10.0
    # Each death costs the one job that was in the child at that moment its attempt, and no other.
    assert outcomes.get("lost", 0) <= kills
    assert set(outcomes) <= {"succeeded", "lost"}
    assert verdict.figures["states"] == {"succeeded": len(yard.accepted)}


def _kill_a_child(yard, node) -> float:
    """Seconds until there are as many children as before, one of them new."""
    before = {child.pid for child in node.children()}
    victim = yard.random.choice(sorted(before))
    killed = time.monotonic()
    psutil.Process(victim).send_signal(signal.SIGKILL)
    yard.wait(
        lambda: len({c.pid for c in node.children()} - {victim}) == len(before), 10, every=0.01
    )
    return time.monotonic() - killed


def test_what_a_job_returned_is_out_before_the_next_one_kills_the_process(yard, figures):
    """Red without: the flush of urgent reports. A result is not in the shared marks."""
    pairs = scaled(50, least=10)
    node = yard.start_and_wait(concurrency=1, env={"YARDMASTER_WORKER_KINDS": "python"})
    # The node learns that both types are short, and hands them out in batches.
    yard.submit(new_jobs(200, type_name="fault:keep"))
    yard.wait_until_all_ended(30)
    news = []
    for keep, poison in zip(
        new_jobs(pairs, type_name="fault:keep"),
        new_jobs(pairs, type_name="poison:exit", on_lost="fail"),
        strict=True,
    ):
        news += [keep, poison]
    yard.submit(news)
    yard.wait_until_all_ended(60)
    assert node.is_running
    yard.stop()
    verdict = yard.judge()
    disturbed = yard.database.value(
        "SELECT count(*) FROM job WHERE type = 'fault:keep' AND (attempts <> 1 OR crashes <> 0)"
    )
    figures |= verdict.figures
    figures |= {"deaths": pairs, "others_disturbed": disturbed}
    verdict.assert_sound()
    assert disturbed == 0
    assert verdict.figures["states"] == {"succeeded": 200 + pairs, "failed": pairs}


def test_a_job_that_takes_its_process_down_is_poisoned_after_three_times(yard, figures):
    """Red without: the crash budget. Attempts are many, crashes are not."""
    node = yard.start_and_wait(concurrency=2)
    bad = yard.submit(new_jobs(5, type_name="poison:exit", max_attempts=8))
    yard.submit(new_jobs(200))
    yard.wait_until_all_ended(90)
    assert node.is_running
    yard.stop()
    verdict = yard.judge()
    reasons = yard.database.rows("SELECT reason, crashes, attempts FROM job WHERE state = 'failed'")
    figures |= verdict.figures | {"poisoned": len(reasons)}
    verdict.assert_sound()
    assert reasons == [("poisoned", 3, 3)] * len(bad)
    assert verdict.figures["states"] == {"succeeded": 200, "failed": len(bad)}
