"""HTTP: the metrics of a cluster with many jobs and queues, as Prometheus asks for them."""

from __future__ import annotations

from benchmarks.bench import Bench
from benchmarks.contestants import Ours
from benchmarks.load import Target, fetch, put_under_load
from benchmarks.results import Measurement, median_of
from benchmarks.web import WORKERS, served

METRICS = "/jm-api/metrics"
QUEUES, READY_SHARE = 200, 10


def measure(bench: Bench) -> None:
    for one in bench.contestants:
        if isinstance(one, Ours):
            _measure(bench, one)


def _measure(bench: Bench, ours: Ours) -> None:
    rows = bench.asked.rows
    row = bench.add(
        Measurement("scrape", "GET /metrics", ours.name, f"{WORKERS} workers, 1 client", "ms, p50")
    )
    ours.prepare()
    bench.say(f"filling {rows:,} jobs in {QUEUES} queues: {ours.name}")
    ours.produce("busy", rows, rows // READY_SHARE, QUEUES)
    details = []
    with served(ours) as target:
        request = target.request("GET", METRICS)
        for run in range(bench.asked.runs):
            size = _check(target, request)
            load = put_under_load(target, request, 1, bench.asked.seconds)
            details.append(load.percentiles())
            row.values.append(details[-1]["p50 ms"])
            row.notes = {**median_of(details), "rows": rows, "queues": QUEUES, "bytes": size}
            bench.say(f"scrape {run + 1}: {ours.name}: {details[-1]}")


def _check(target: Target, request: bytes) -> int:
    status, body = fetch(target, request)
    ready = body.count(b'state="ready"')
    if status != 200 or ready < QUEUES:
        raise RuntimeError(f"a scrape of {ready} queues, status {status}")
    return len(body)
