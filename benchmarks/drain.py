"""Drain: the queue is filled first, then workers start; the rate is from the first handler to the last.

So a worker's start costs nothing, nor do the last completions; that favours who completes late. For
Yardmaster the notes give two more rates from its own rows, medians too: by the starts of the attempts,
and from the first start to the commit of the last completion.
"""

from __future__ import annotations

import time

from benchmarks import marks
from benchmarks.bench import Bench
from benchmarks.contestants import Contestant, Ours, OursOnSqlite, Setting
from benchmarks.processes import Processes
from benchmarks.results import Measurement, median_of

BULK = 1000
# What must be there afterwards, a row for each job.
HISTORY = ("job rows", "succeeded", "attempt rows")
RATES_OF_ROWS = ("started_per_s", "finished_per_s")
# A drain ends after this long, whatever is left.
LONGEST_SECONDS = 60
START_SECONDS = 20


def measure(bench: Bench) -> None:
    entries = [(one, setting) for one in bench.contestants for setting in one.settings]
    entries.sort(key=lambda entry: entry[1].nodes)
    rows = [bench.add(_row(one, setting)) for one, setting in entries]
    rates: list[list[dict[str, float]]] = [[] for _ in entries]
    for run in range(bench.asked.runs):
        for (one, setting), row, seen in zip(entries, rows, rates, strict=True):
            jobs = max(min(bench.asked.jobs, one.most_jobs) // BULK, 1) * BULK
            _drain(one, setting, jobs, row, seen)
            bench.say(f"drain {run + 1}: {one.name}, {setting.name}: {row.values[-1]:,.0f}/s")


def _row(one: Contestant, setting: Setting) -> Measurement:
    where = " on SQLite" if isinstance(one, OursOnSqlite) else ""
    plural = "node" if setting.nodes == 1 else "nodes"
    what = f"drain, {setting.nodes} {plural}{where}"
    return Measurement("drain", what, one.name, setting.name, "/s")


def _drain(
    one: Contestant, setting: Setting, jobs: int, row: Measurement, rates: list[dict[str, float]]
) -> None:
    one.prepare()
    one.produce("bulk", jobs, BULK)
    with one.workers(setting) as processes:
        seen = _wait(one, jobs, processes)
        time.sleep(0.5)
    row.values.append(seen.per_second)
    kept = one.produce("kept")
    rates.append({name: kept.pop(name) for name in RATES_OF_ROWS if name in kept})
    row.notes = {"jobs": jobs, **kept, **median_of(rates)}
    if seen.count < jobs:
        row.notes["not begun"] = jobs - seen.count
    if isinstance(one, Ours) and any(kept[name] != jobs for name in HISTORY):
        raise RuntimeError(f"the history of the drain is not whole: {row.notes}\n{one.log_tail()}")


def _wait(one: Contestant, jobs: int, processes: Processes) -> marks.Marks:
    begun = time.monotonic()
    while True:
        seen = marks.read(one.marks)
        waited = time.monotonic() - begun
        is_over = waited > LONGEST_SECONDS or (not seen.count and waited > START_SECONDS)
        if seen.count >= jobs or is_over or any(p.poll() is not None for p in processes):
            return marks.read(one.marks)
        time.sleep(0.1)
