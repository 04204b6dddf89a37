"""HTTP: every page of the screen, one after the other, in a cluster with a day of very many jobs."""

from __future__ import annotations

import gzip
import re

from benchmarks.bench import Bench
from benchmarks.contestants import Ours
from benchmarks.load import fetch
from benchmarks.producer import CLUSTER
from benchmarks.results import Measurement, percentiles
from benchmarks.screen import Visitor, load, signed_in
from benchmarks.web import WORKERS, watched

SITE = f"/admin/{CLUSTER}/"
MOST_MILLISECONDS, MOST_BYTES = 150, 60_000
# Name, address, and the first link on it that is followed, as what comes behind the cluster's own.
PAGES: dict[str, tuple[str, str]] = {
    "fleet": ("/admin/", ""),
    "card": (f"{SITE}card/", ""),
    "now": (SITE, ""),
    "charts": (f"{SITE}series/?range=24h", ""),
    "jobs": (f"{SITE}jobs/", ""),
    "jobs, failed": (f"{SITE}jobs/?state=failed", ""),
    "jobs, queue and type": (f"{SITE}jobs/?queue=mail&type=letter:send", ""),
    "jobs, tag": (f"{SITE}jobs/?tag=eu", ""),
    "job": (f"{SITE}jobs/?state=failed", r"jobs/[0-9a-f-]{36}/"),
    "new bulk operation": (f"{SITE}bulk-operations/new/?action=retry&state=failed", ""),
    "bulk operations": (f"{SITE}bulk-operations/", ""),
    "failures": (f"{SITE}failures/", ""),
    "failure": (f"{SITE}failures/", r"failures/[0-9a-f]{16}/"),
    "alerts": (f"{SITE}alerts/", ""),
    "queues": (f"{SITE}queues/", ""),
    "queue": (f"{SITE}queues/mail/", ""),
    "nodes": (f"{SITE}nodes/", ""),
    "schedules": (f"{SITE}schedules/", ""),
    "schedule": (f"{SITE}schedules/", r"schedules/[0-9a-f-]{36}/"),
    "workflows": (f"{SITE}workflows/", ""),
    "audit": (f"{SITE}governance/", ""),
    "settings": (f"{SITE}governance/settings/", ""),
    "secrets": (f"{SITE}governance/secrets/", ""),
    "roles": ("/admin/governance/", ""),
    "keys": ("/admin/governance/keys/", ""),
}


def measure(bench: Bench) -> None:
    for one in bench.contestants:
        if isinstance(one, Ours):
            _measure(bench, one)


def _measure(bench: Bench, ours: Ours) -> None:
    rows = bench.asked.rows
    ours.prepare()
    bench.say(f"filling a day of {rows:,} jobs: {ours.name}")
    ours.manage("demo", "--jobs", str(rows), "--cluster", CLUSTER)
    with watched(ours) as (target, _):
        visitor = signed_in(ours, target)
        for name, (path, link) in PAGES.items():
            found = _followed(visitor, path, link)
            seen = load(visitor, found)
            _, body = fetch(target, visitor.request(found, None))
            size = len(gzip.compress(body))
            times = percentiles(seen.milliseconds, 50, 95)
            how = f"{WORKERS} workers, 1 visitor"
            row = bench.add(Measurement("pages", f"GET {name}", ours.name, how, "ms, p95"))
            row.values.append(times["p95"])
            row.notes = {"p50 ms": times["p50"], "gzipped bytes": size, "rows": rows}
            if times["p95"] > MOST_MILLISECONDS or size > MOST_BYTES:
                bench.say(f"{name} misses its bar: {times['p95']:.0f} ms, {size:,} bytes")


def _followed(visitor: Visitor, path: str, link: str) -> str:
    if not link:
        return path
    _, body = fetch(visitor.target, visitor.request(path, None))
    match = re.search(rf'href="({re.escape(SITE)}{link})"', body.decode())
    if match is None:
        raise RuntimeError(f"{path} leads to nothing like {link}")
    return match[1]
