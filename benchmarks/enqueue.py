"""Enqueue: one job a call, each call durable when it returns; and 1,000 jobs a call."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.contestants import OursOnSqlite
from benchmarks.results import Measurement

MOST, SECONDS, BULK = 10_000, 3, 1000


def measure(bench: Bench) -> None:
    for what, verb, numbers in (
        ("enqueue, one a call", "enqueue", (MOST, SECONDS)),
        ("enqueue, 1,000 a call", "bulk", (10 * BULK, BULK)),
    ):
        rows = {}
        for one in bench.contestants:
            where = " on SQLite" if isinstance(one, OursOnSqlite) else ""
            rows[one.name] = bench.add(Measurement("enqueue", what + where, one.name, "", "/s"))
        for run in range(bench.asked.runs):
            for one in bench.contestants:
                one.prepare()
                count, seconds = one.produce(verb, *numbers)
                rows[one.name].values.append(count / seconds)
                bench.say(f"{what} {run + 1}: {one.name}: {count / seconds:,.0f}/s")
