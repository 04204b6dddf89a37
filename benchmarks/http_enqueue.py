"""HTTP: one job a POST, with an API key, from 8 clients to `serve` with 2 worker processes."""

from __future__ import annotations

import json

from benchmarks.bench import Bench
from benchmarks.load import put_under_load
from benchmarks.payload import PAYLOAD, TYPE
from benchmarks.results import Measurement, median_of
from benchmarks.web import JOBS, WORKERS, served

CLIENTS = 8
WARM_UP_SECONDS = 1


def measure(bench: Bench) -> None:
    how = f"{WORKERS} workers, {CLIENTS} clients"
    row = bench.add(Measurement("http", "POST one job", bench.ours.name, how, "/s"))
    body = json.dumps({"type": TYPE, "payload": PAYLOAD}).encode()
    details = []
    for run in range(bench.asked.runs):
        bench.ours.prepare()
        with served(bench.ours) as target:
            request = target.request("POST", JOBS, body)
            put_under_load(target, request, CLIENTS, WARM_UP_SECONDS)
            load = put_under_load(target, request, CLIENTS, bench.asked.seconds)
        row.values.append(load.per_second)
        details.append(load.percentiles())
        row.notes = median_of(details)
        bench.say(f"POST one job {run + 1}: {load.per_second:,.0f}/s {load.percentiles()}")
