"""What a cluster is doing now: the first page of its site."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse

from clusters.binding import current_cluster
from jobs.models import Failure
from ui import snapshot
from ui.charts import sparkline
from ui.fragments import show
from ui.snapshot import Snapshot
from ui.troubles import troubles
from ui.words import number

SHOWN_FAILURES = 5


def page(site: Any, request: HttpRequest) -> HttpResponse:
    using = current_cluster().alias
    seen = snapshot.read(using)
    failures = Failure.objects.using(using).order_by("-last_seen_at", "-fingerprint")
    context = {
        "snapshot": seen,
        "troubles": troubles(seen),
        "figures": figures(seen),
        "failures": [*failures[:SHOWN_FAILURES]],
    }
    return show(site, request, "now", context, title="Now")


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
