"""What a cluster is doing now: the first page of its site. What it did of late is drawn by ``series``."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse

from clusters.binding import current_cluster
from jobs import capacity
from jobs.models import Failure
from ui import snapshot
from ui.charts import sparkline
from ui.fragments import show_shared
from ui.pages.series import asked_range, ranges
from ui.snapshot import Snapshot
from ui.troubles import Severity, cause, troubles
from ui.words import number

RIGHTS = {"may_pause": "queues.pause"}
SHOWN_FAILURES, SHOWN_QUEUES, SHOWN_NODES = 5, 5, 10


def page(site: Any, request: HttpRequest) -> HttpResponse:
    span = asked_range(request)
    beside = {"ranges": ranges(request), "span": span}
    return show_shared(site, request, "now", _read, title="Now", rights=RIGHTS, beside=beside)


def _read() -> dict[str, Any]:
    using = current_cluster().alias
    seen = snapshot.read(using)
    failures = Failure.objects.using(using).order_by("-last_seen_at", "-fingerprint")
    found = troubles(seen)
    return {
        "snapshot": seen,
        "troubles": [(trouble, cause(trouble)) for trouble in found],
        "severity": (found[0].severity if found else Severity.FINE).name.lower(),
        "figures": figures(seen),
        "is_wide": True,
        "failures": [*failures[:SHOWN_FAILURES]],
        "queues": _oldest(seen),
        "oldest_running": next(iter(capacity.oldest_running(using)), None),
        "nodes": seen.nodes[:SHOWN_NODES],
    }


def _oldest(seen: Snapshot) -> list[snapshot.QueueNow]:
    """The queues whose jobs have waited longest; where none waits, those in which most happens."""
    waiting = [one for one in seen.queues if one.oldest_ready_at is not None]
    idle = [one for one in seen.queues if one.oldest_ready_at is None]
    waiting.sort(key=lambda one: (one.oldest_ready_at, one.queue.name))
    idle.sort(key=lambda one: (-one.running.count, one.queue.name))
    return [*waiting, *idle][:SHOWN_QUEUES]


def figures(seen: Snapshot) -> dict[str, Any]:
    """The hour in numbers, and as a small chart."""
    hour = seen.hour
    (wait_p50, wait_p95), (run_p50, run_p95) = hour.percentiles(0.5, 0.95)
    finished = [figures.finished for _, figures in seen.minutes]
    failed = [figures.counts["failed"] for _, figures in seen.minutes]
    told = (
        f"{number(hour.finished)} jobs finished in the last hour, "
        f"{number(hour.counts['failed'])} of them failed."
    )
    return {
        "finished": hour.finished,
        "failed": hour.counts["failed"],
        "enqueued": hour.counts["enqueued"],
        "retried": hour.counts["retried"],
        "wait_p50": wait_p50,
        "wait_p95": wait_p95,
        "run_p50": run_p50,
        "run_p95": run_p95,
        "chart": sparkline(finished, told, bad=failed),
        "told": told,
    }


# The root of the site is the theme's index, which leads here.
ROUTES = (("", page, "index"),)
