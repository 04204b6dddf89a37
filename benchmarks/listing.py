"""HTTP: list 50 jobs of many, newest first, by keyset, unfiltered and filtered."""

from __future__ import annotations

import json
from collections import defaultdict

from benchmarks.bench import Bench
from benchmarks.history import fill
from benchmarks.load import Target, fetch, put_under_load
from benchmarks.results import Measurement, median_of
from benchmarks.web import JOBS, WORKERS, served

LISTS = {
    "list 50": "",
    "list 50, 20th page": "",
    "list 50, state=failed": "?state=failed",
    "list 50, queue=q3": "?queue=q3",
    "list 50, type=type:7": "?type=type:7",
    "list 50, tag=nightly": "?tag=nightly",
    "list 50, two states": "?state=failed&state=cancelled",
    "list 50, queue and state": "?queue=q0&state=failed",
}
PAGES = 20
CLIENTS = (1, 8)
WARM_UP_SECONDS = 0.5


def measure(bench: Bench) -> None:
    bench.ours.prepare()
    bench.say(f"filling {bench.asked.rows:,} finished jobs")
    fill(bench.ours.url, bench.asked.rows)
    rows = {
        (what, clients): bench.add(
            Measurement(
                "list", what, bench.ours.name, f"{WORKERS} workers, {clients} clients", "/s"
            )
        )
        for what in LISTS
        for clients in CLIENTS
    }
    details = defaultdict(list)
    with served(bench.ours) as target:
        for run in range(bench.asked.runs):
            for key, row in rows.items():
                what, clients = key
                path = _twentieth_page(target) if "page" in what else JOBS + LISTS[what]
                request = target.request("GET", path)
                _check(target, request)
                put_under_load(target, request, clients, WARM_UP_SECONDS)
                load = put_under_load(target, request, clients, bench.asked.seconds)
                row.values.append(load.per_second)
                details[key].append(load.percentiles())
                row.notes = {**median_of(details[key]), "rows": bench.asked.rows}
                bench.say(
                    f"{what} {run + 1}: {row.how}: {load.per_second:,.0f}/s {details[key][-1]}"
                )


def _check(target: Target, request: bytes) -> None:
    status, body = fetch(target, request)
    items = json.loads(body)["items"]
    if status != 200 or not items:
        raise RuntimeError(f"a list of {len(items)} items, status {status}")


def _twentieth_page(target: Target) -> str:
    path = JOBS
    for _ in range(PAGES - 1):
        _, body = fetch(target, target.request("GET", path))
        path = json.loads(body)["next"]
    return path
