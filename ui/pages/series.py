"""What happened over time, of a cluster or of one queue: charts, their table, and what people changed.

A live part of its own, asked for less often than the rest: a minute's figures do not jump.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.core.exceptions import BadRequest
from django.db import connections
from django.db.models import Min
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import reverse

from clusters.binding import current_cluster
from clusters.models import AuditEntry, Node, current_policy
from jobs import capacity, metrics
from jobs.engine.clock import database_now
from jobs.metrics import Figures, Timeline
from jobs.models import Queue
from ui.callers import may, require
from ui.fragments import made_for_all, shared
from ui.navigation import site_name
from ui.words import DASH, number, span

DEFAULT = "1h"
SHARES = (0.5, 0.95, 0.99)
SHOWN_TYPES, SHOWN_MARKS = 5, 30
# So many times as old as other parts may a chart be that somebody else has asked for.
SHARED_TIMES = 4
# What people did that may show in the figures: verbs of the audit, in words.
DEEDS: Mapping[str, str] = {
    "queues.pause": "Queue {} paused",
    "queues.resume": "Queue {} resumed",
    "queues.change": "Queue {} changed",
    "queues.purge": "Queue {} purged",
    "settings.change": "Settings changed",
    "nodes.drain": "A node drained",
}


class Range(NamedTuple):
    """A stretch of time up to now, and the step of its points."""

    name: str
    length: timedelta
    step_seconds: int
    title: str
    # Behind "the last".
    said: str


RANGES = {
    one.name: one
    for one in (
        Range("1h", timedelta(hours=1), 60, "1 hour", "hour"),
        Range("6h", timedelta(hours=6), 300, "6 hours", "6 hours"),
        Range("24h", timedelta(hours=24), 900, "24 hours", "24 hours"),
        Range("7d", timedelta(days=7), 3600, "7 days", "7 days"),
    )
}


def asked_range(request: HttpRequest) -> Range:
    """The range that the address names."""
    found = RANGES.get(request.GET.get("range", DEFAULT))
    if found is None:
        raise BadRequest(f"range is one of {', '.join(RANGES)}")
    return found


def ranges(request: HttpRequest) -> list[dict[str, Any]]:
    """The choice of ranges, each with its address."""
    shown = asked_range(request).name
    return [
        {"title": one.title, "url": f"?range={one.name}", "is_shown": one.name == shown}
        for one in RANGES.values()
    ]


def of_cluster(site: Any, request: HttpRequest) -> HttpResponse:
    require(request, "stats.read")
    return _answer(site, request, None)


def of_queue(site: Any, request: HttpRequest, name: str) -> HttpResponse:
    require(request, "queues.read")
    queues: Any = Queue.objects.all()
    if not queues.named(name).exists():
        raise Http404
    return _answer(site, request, name)


def _answer(site: Any, request: HttpRequest, queue: str | None) -> HttpResponse:
    asked, may_read = asked_range(request), may(request, "audit.read")
    key = (current_cluster().id, "series", queue, asked.name, may_read)
    part = shared.get(
        key,
        lambda: made_for_all(site, "ui/series/live.html", _read(asked, queue, may_read)),
        times=SHARED_TIMES,
    )
    return part.answer(request)


def _read(asked: Range, queue: str | None, may_read_audit: bool) -> dict[str, Any]:
    using, policy = current_cluster().alias, current_policy()
    now = database_now(connections[using])
    start = now - asked.length
    line = _timeline(asked.step_seconds, start, now, queue)
    types: Sequence[tuple[str, Figures]] = metrics.stats(
        using, policy, start, now, queue=queue, group_by="type", now=now
    ).groups
    marks = _marks(using, line.start, queue, may_read_audit)
    filtered = {"created_after": _machine(line.start), **({"queue": queue} if queue else {})}
    return {
        "range": asked,
        "queue": queue,
        "data": _data(line, marks, queue),
        "rows": _rows(line),
        "marks": marks,
        "failing": capacity.most_failing(types, SHOWN_TYPES),
        "slowest": capacity.slowest(types, SHOWN_TYPES),
        "filter": urlencode(filtered),
        # Shown as a stretch of time that can be typed over; whole minutes, so that it stays the same.
        "from": _machine(line.start),
        "to": _machine(now.replace(second=0, microsecond=0)),
        "is_quiet": not any(
            figures.finished or figures.counts["enqueued"] for _, figures in line.points
        ),
    }


def _timeline(step_seconds: int, start: datetime, now: datetime, queue: str | None) -> Timeline:
    using, policy = current_cluster().alias, current_policy()
    for step in (step_seconds, 3600, 86400):
        with suppress(metrics.TooFine):
            return metrics.timeline(
                using, policy, start, now, step_seconds=step, queue=queue, now=now
            )
    raise AssertionError("days are kept for ever")


def _data(line: Timeline, marks: Sequence[dict[str, Any]], queue: str | None) -> dict[str, Any]:
    """What the script draws: times as seconds since 1970, rates a minute, durations in seconds."""
    minutes = line.step_seconds / 60
    counts = [figures.counts for _, figures in line.points]
    percentiles = [figures.percentiles(*SHARES) for _, figures in line.points]
    here = site_name(current_cluster().id)
    return {
        "times": [int(at.timestamp()) for at, _ in line.points],
        "step": line.step_seconds,
        "explorer": reverse("admin:jobs", current_app=here),
        "filter": {"queue": queue} if queue else {},
        "throughput": [
            [round(figures.finished / minutes, 3) for _, figures in line.points],
            [round(each["enqueued"] / minutes, 3) for each in counts],
            [round(each["failed"] / minutes, 3) for each in counts],
        ],
        "wait": [[wait[n] for wait, _ in percentiles] for n in range(len(SHARES))],
        "run": [[run[n] for _, run in percentiles] for n in range(len(SHARES))],
        "marks": [[int(mark["at"].timestamp()), mark["sign"]] for mark in marks],
    }


def _rows(line: Timeline) -> list[tuple[datetime, list[str]]]:
    """The same as a table, the newest first; what did not happen at all is left out."""
    found = []
    for at, figures in reversed(line.points):
        counts = figures.counts
        if not any(counts.values()):
            continue
        (w50, w95, w99), (r50, r95, r99) = figures.percentiles(*SHARES)
        told = [number(n) for n in (figures.finished, counts["enqueued"], counts["failed"])]
        found.append((at, [*told, *map(_short, (w50, w95, w99, r50, r95, r99))]))
    return found


def _short(seconds: float | None) -> str:
    return DASH if seconds is None else span(seconds)


def _marks(
    using: str, start: datetime, queue: str | None, may_read_audit: bool
) -> list[dict[str, Any]]:
    """New versions of nodes, and what people changed, the newest first."""
    deeds = AuditEntry.objects.using(using).filter(verb__in=DEEDS, at__gte=start)
    if queue is not None:
        deeds = deeds.filter(target_type="queue", target_id=queue)
    marks = [
        {
            "at": entry.at,
            "sign": "deed",
            "told": DEEDS[entry.verb].format(entry.target_id),
            "more": _who(entry) if may_read_audit else "",
        }
        for entry in deeds.order_by("-at", "-id")[:SHOWN_MARKS]
    ]
    versions = Node.objects.using(using).order_by().values_list("version")
    for version, at in versions.annotate(first=Min("started_at")).filter(first__gte=start):
        marks.append({"at": at, "sign": "version", "told": f"Nodes of {version}", "more": ""})
    return sorted(marks, key=lambda mark: mark["at"], reverse=True)[:SHOWN_MARKS]


def _who(entry: AuditEntry) -> str:
    return f"by {entry.actor}" + (f": {entry.reason}" if entry.reason else "")


def _machine(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


ROUTES = (
    ("series/", of_cluster, "series"),
    ("queues/<str:name>/series/", of_queue, "queue-series"),
)
