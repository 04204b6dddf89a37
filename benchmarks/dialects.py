"""Dialects: a job posted in their words beside the native POST, and forge's overview of many queues."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable

from benchmarks.bench import Bench
from benchmarks.history import fill
from benchmarks.load import Target, fetch, put_under_load
from benchmarks.payload import PAYLOAD, TYPE
from benchmarks.results import Measurement, median_of
from benchmarks.web import JOBS, WORKERS, served

CLIENTS = 8
WARM_UP_SECONDS = 1
QUEUES = 200
# How much of a measurement each surface gets in its turn: the machine drifts, and both see it.
TURNS = 4

POSTS: dict[str, Callable[[], tuple[str, bytes]]] = {
    "native": lambda: (JOBS, json.dumps({"type": TYPE, "payload": PAYLOAD}).encode()),
    "asyncjobs": lambda: (
        "/v1/tasks",
        json.dumps({"type": TYPE, "payload": PAYLOAD, "queue": "default"}).encode(),
    ),
    "forge": lambda: (
        "/jobs/enqueue",
        json.dumps({"kind": TYPE, "payload": PAYLOAD, "queue_name": "default"}).encode(),
    ),
}


def measure(bench: Bench) -> None:
    _posts(bench)
    _overview(bench)


def _posts(bench: Bench) -> None:
    rows = {
        surface: bench.add(
            Measurement("dialects", "POST one job", f"{bench.ours.name}, {surface}", how(), "/s")
        )
        for surface in POSTS
    }
    for run in range(bench.asked.runs):
        bench.ours.prepare()
        counts: dict[str, float] = defaultdict(float)
        seconds: dict[str, float] = defaultdict(float)
        with served(bench.ours) as target:
            requests = {name: target.request("POST", *make()) for name, make in POSTS.items()}
            for request in requests.values():
                put_under_load(target, request, CLIENTS, WARM_UP_SECONDS)
            for _ in range(TURNS):
                for surface, request in requests.items():
                    load = put_under_load(target, request, CLIENTS, bench.asked.seconds / TURNS)
                    counts[surface] += len(load.milliseconds)
                    seconds[surface] += load.seconds
        for surface, row in rows.items():
            row.values.append(counts[surface] / seconds[surface])
            native = rows["native"].values[-1]
            row.notes = {"of the native rate": round(row.values[-1] / native, 2)}
            bench.say(f"POST {surface} {run + 1}: {row.values[-1]:,.0f}/s {row.notes}")


def _overview(bench: Bench) -> None:
    row = bench.add(
        Measurement("dialects", "GET /queue/overview", bench.ours.name, how(1), "ms, p50")
    )
    bench.ours.prepare()
    bench.say(f"filling {bench.asked.rows:,} finished jobs in {QUEUES} queues")
    fill(bench.ours.url, bench.asked.rows, QUEUES)
    details = []
    with served(bench.ours) as target:
        request = target.request("GET", "/queue/overview")
        for run in range(bench.asked.runs):
            _check(target, request)
            load = put_under_load(target, request, 1, bench.asked.seconds)
            details.append(load.percentiles())
            row.values.append(details[-1]["p50 ms"])
            row.notes = {**median_of(details), "rows": bench.asked.rows, "queues": QUEUES}
            bench.say(f"overview {run + 1}: {details[-1]}")


def _check(target: Target, request: bytes) -> None:
    status, body = fetch(target, request)
    if status != 200 or len(json.loads(body)) < QUEUES:
        raise RuntimeError(f"the overview answered {status}: {body[:200]!r}")


def how(clients: int = CLIENTS) -> str:
    return f"{WORKERS} workers, {clients} clients"
