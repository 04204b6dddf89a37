"""Steps: how long a job of ten no-op steps takes; how many steps a second one node does of 1,000 such."""

from __future__ import annotations

import time

from benchmarks.bench import Bench
from benchmarks.contestants import Contestant, Ours, OursOnSqlite
from benchmarks.results import Measurement, percentiles

STEPS, ALONE, TOGETHER = 10, 30, 1000
SETTLE_SECONDS, LONGEST_SECONDS = 5, 240


def measure(bench: Bench) -> None:
    for one in bench.contestants:
        if not isinstance(one, (Ours, OursOnSqlite)):
            continue
        where = " on SQLite" if isinstance(one, OursOnSqlite) else ""
        alone = bench.add(
            Measurement("steps", f"10 steps, idle, p50{where}", one.name, one.idle.name, "ms")
        )
        rate = bench.add(
            Measurement("steps", f"1,000 jobs of 10 steps{where}", one.name, "1 node", "steps/s")
        )
        for run in range(bench.asked.runs):
            found = _alone(one)
            alone.values.append(found["p50"])
            alone.notes = found
            rate.values.append(_together(one))
            bench.say(f"steps {run + 1}: {one.name}: {found}, {rate.values[-1]:,.0f} steps/s")


def _alone(one: Contestant) -> dict[str, float]:
    one.prepare()
    with one.workers(one.idle):
        time.sleep(SETTLE_SECONDS)
        took = one.produce("one_of_steps", ALONE, STEPS)
    return percentiles([seconds * 1000 for seconds in took], 50, 95)


def _together(one: Contestant) -> float:
    one.prepare()
    one.produce("steps", TOGETHER, STEPS)
    with one.workers(one.settings[0]):
        deadline = time.monotonic() + LONGEST_SECONDS
        while (seen := one.produce("steps_done"))["jobs"] < TOGETHER:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{seen} after {LONGEST_SECONDS} s\n{one.log_tail()}")
            time.sleep(1)
    return float(seen["steps"] / seen["seconds"])
