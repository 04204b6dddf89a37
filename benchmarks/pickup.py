"""Pick-up: an idle worker, one job every 50 ms; from the return of the enqueue call to the handler.

The clock is CLOCK_REALTIME of one machine on both sides. A handler may begin before the enqueue call
has returned; that counts as no time at all.
"""

from __future__ import annotations

import time

from benchmarks import marks
from benchmarks.bench import Bench
from benchmarks.contestants import Contestant, OursOnSqlite
from benchmarks.results import Measurement, median_of, percentiles

JOBS, GAP_SECONDS, SETTLE_SECONDS = 200, 0.05, 5


def measure(bench: Bench) -> None:
    rows, details = {}, {}
    for one in bench.contestants:
        where = " on SQLite" if isinstance(one, OursOnSqlite) else ""
        row = Measurement("pickup", f"pick-up, p50{where}", one.name, one.idle.name, "ms")
        rows[one.name], details[one.name] = bench.add(row), []
    for run in range(bench.asked.runs):
        for one in bench.contestants:
            found = _pick_up(one)
            rows[one.name].values.append(found["p50"])
            details[one.name].append(found)
            rows[one.name].notes = median_of(details[one.name])
            bench.say(f"pick-up {run + 1}: {one.name}: {found}")


def _pick_up(one: Contestant) -> dict[str, float]:
    one.prepare()
    with one.workers(one.idle):
        time.sleep(SETTLE_SECONDS)
        sent = one.produce("latency", JOBS, GAP_SECONDS)
        deadline = time.monotonic() + 10
        while marks.read(one.marks).count < JOBS and time.monotonic() < deadline:
            time.sleep(0.2)
    began = marks.read_times(one.marks)
    if len(began) < JOBS:
        raise RuntimeError(f"{JOBS - len(began)} jobs were not picked up\n{one.log_tail()}")
    waits = [max(0.0, began[i] - returned) * 1000 for i, (_, returned) in enumerate(sent)]
    return percentiles(waits, 50, 95, 99)
