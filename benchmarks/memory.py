"""Memory: all processes of a node together, pages they share counted once (PSS)."""

from __future__ import annotations

import time

import psutil

from benchmarks import marks
from benchmarks.bench import Bench
from benchmarks.results import Measurement

SETTLE_SECONDS = 8
DRAIN_SECONDS = 60
MIB = 1 << 20


def measure(bench: Bench) -> None:
    idle, after = (
        bench.add(Measurement("memory", what, bench.ours.name, "1 node, concurrency 2", "MiB"))
        for what in ("memory of an idle node", "the same after a drain")
    )
    for _ in range(bench.asked.runs):
        bench.ours.prepare()
        with bench.ours.workers(bench.ours.idle) as (node,):
            time.sleep(SETTLE_SECONDS)
            idle.values.append(_proportional(node.pid))
            _drain(bench)
            after.values.append(_proportional(node.pid))
        idle.notes = {"processes": "the node, its template, 2 process children, 1 io child"}
        after.notes = {"jobs": bench.asked.jobs}
        bench.say(f"memory: {idle.values[-1]:.0f} MiB, {after.values[-1]:.0f} MiB after a drain")


def _drain(bench: Bench) -> None:
    jobs = max(bench.asked.jobs // 1000, 1) * 1000
    bench.ours.produce("bulk", jobs, 1000)
    deadline = time.monotonic() + DRAIN_SECONDS
    while marks.read(bench.ours.marks).count < jobs and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(2)


def _proportional(pid: int) -> float:
    node = psutil.Process(pid)
    processes = [node, *node.children(recursive=True)]
    return sum(process.memory_full_info().pss for process in processes) / MIB
