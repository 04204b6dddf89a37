"""Schedules: a look that finds nothing due among many, and many that are due at the same moment."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.contestants import Ours
from benchmarks.results import Measurement, percentiles

SCHEDULES, LOOKS, BURST = 50_000, 200, 5000


def measure(bench: Bench) -> None:
    ours = [one for one in bench.contestants if isinstance(one, Ours)]
    looks = {
        one.name: bench.add(
            Measurement("schedules", f"nothing due of {SCHEDULES:,}", one.name, "one look", "ms")
        )
        for one in ours
    }
    bursts = {
        one.name: bench.add(
            Measurement("schedules", f"{BURST:,} due at once", one.name, "one node", "/s")
        )
        for one in ours
    }
    for run in range(bench.asked.runs):
        for one in ours:
            one.prepare()
            times = [1000 * seconds for seconds in one.produce("ticks", SCHEDULES, LOOKS)]
            found = percentiles(times, 50, 99)
            looks[one.name].values.append(found["p50"])
            looks[one.name].notes = {"p99": found["p99"]}
            one.prepare()
            count, seconds = one.produce("fire", BURST)
            bursts[one.name].values.append(count / seconds)
            bench.say(f"schedules {run + 1}: {one.name}: {found} ms, {count / seconds:,.0f}/s")
