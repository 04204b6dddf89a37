"""The jobs of a cluster: those that match, newest first, a page at a time and never counted."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

from django.db import connections
from django.http import HttpRequest, HttpResponse

from clusters.api.fields import parse_time
from clusters.api.paging import NEWEST_FIRST, Turning
from clusters.binding import current_cluster
from config.problems import InvalidInput
from jobs import listing
from jobs.api.filters import JobListQuery
from jobs.api.items import item_sql, key_of
from jobs.executors import KINDS
from jobs.models import Queue
from jobs.states import State
from ui.asking import Asked
from ui.fragments import show

PAGE_SIZE = 50
# What the fields of the bar ask for; the address may use every word of the API's list.
FIELDS = ("queue", "type", "kind", "tag")
MAX_NAMES = 200
_TIMES = ("created_at", "started_at", "finished_at", "run_at")


def page(site: Any, request: HttpRequest) -> HttpResponse:
    asked = Asked(request, JobListQuery)
    rows: list[dict[str, Any]] = []
    following = previous = None
    try:
        if not asked.errors:
            rows, following, previous = _read(request, asked)
    except InvalidInput as error:
        asked.refuse(error)
    names = Queue.objects.order_by("name").values_list("name", flat=True)
    states = asked.words.get("state", [])
    context = {
        "rows": rows,
        "next": following,
        "previous": previous,
        "asked": asked.words,
        "errors": asked.errors,
        "is_filtered": bool(set(asked.words) - {"limit", "cursor"}),
        "fields": {name: asked.given.get(name, "") for name in FIELDS},
        "others": _others(asked),
        "tabs": _tabs(asked, states),
        "queues": [*names[:MAX_NAMES]],
        "kinds": sorted(KINDS),
    }
    return show(site, request, "jobs", context, title="Jobs", status=asked.status)


def _read(
    request: HttpRequest, asked: Asked
) -> tuple[list[dict[str, Any]], str | None, str | None]:
    using = current_cluster().alias
    words = {"limit": PAGE_SIZE, **asked.words}
    turning = Turning(asked.turner(request), NEWEST_FIRST, words)
    found = listing.newest(
        using,
        words,
        item_sql(connections[using].vendor),
        turning.limit + 1,
        beyond=listing.Position(*turning.position) if turning.position else None,
        is_backwards=turning.is_backwards,
    )
    turned = turning.page([item for (item,) in found], key_of)
    return [_row(item) for item in turned.rows], turned.next, turned.previous


def _row(item: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(item)
    for name in _TIMES:
        row[name] = row[name] and parse_time(row[name])
    if row["started_at"] and row["finished_at"] and row["finished_at"] >= row["started_at"]:
        row["seconds"] = (row["finished_at"] - row["started_at"]).total_seconds()
    row["first_line"] = (row["error"] or "").strip().partition("\n")[0][:200]
    return row


def _others(asked: Asked) -> list[tuple[str, str]]:
    """Words of the address that have no field in the bar; the form keeps them."""
    apart = {*FIELDS, "cursor", "count"}
    return [
        (name, value)
        for name, values in asked.given.lists()
        for value in values
        if name not in apart
    ]


def _tabs(asked: Asked, states: list[str]) -> list[dict[str, Any]]:
    """One for each state, which keeps all other words."""
    kept = [
        (name, value)
        for name, values in asked.given.lists()
        for value in values
        if name not in ("state", "cursor", "count")
    ]
    tabs = [{"name": "all", "url": f"?{urlencode(kept)}", "is_active": not states}]
    tabs += [
        {
            "name": state.value,
            "url": f"?{urlencode([('state', state.value), *kept])}",
            "is_active": state.value in states,
        }
        for state in State
    ]
    return tabs


ROUTES = (("jobs/", page, "jobs"),)
