"""The jobs of a cluster: those that match, newest first, a page at a time and never counted."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from django.db import connections
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase

from clusters.api.fields import Choice, Texts, parse_time
from clusters.api.paging import NEWEST_FIRST, Turning
from clusters.binding import current_cluster
from clusters.models import Node
from config.problems import InvalidInput
from jobs import job_search, listing
from jobs.api.filters import JobFilter, JobListQuery, spelled_out
from jobs.api.items import item_sql, key_of
from jobs.executors import KINDS
from jobs.filter_text import LineError, pairs_of, written
from jobs.filters import SEARCHED
from jobs.job_kinds import kinds
from jobs.models import Queue
from jobs.states import Reason, State, Trigger
from ui import job_columns
from ui.answers import address
from ui.asking import Asked
from ui.callers import may, require
from ui.fragments import is_fragment, show
from ui.models import SavedView
from ui.pages.bulk_operations import VERBS, new_link
from ui.streams import streamed

PAGE_SIZE = 50
MAX_NAMES = 200
# Words of the address that are no words of the filter.
_APART = ("limit", "cursor", "count", "columns")
_TIMES = ("created_at", "started_at", "finished_at", "run_at")


class Query(JobListQuery):
    """The words of the API's list, and the columns."""

    columns = Texts(
        child=Choice(choices=[*job_columns.COLUMNS]),
        required=False,
        max_length=len(job_columns.COLUMNS),
    )


def page(site: Any, request: HttpRequest) -> HttpResponse:
    require(request, "jobs.read")
    if not request.GET and (view := _first_view(request)) is not None:
        return HttpResponseRedirect(f"{request.path}?{view_query(view)}")
    asked = Asked(request, Query)
    words: dict[str, Any] = {}
    context: dict[str, Any] = {"rows": []}
    try:
        if not asked.errors:
            words = spelled_out(asked.words)
            context = _read(request, asked, words)
    except InvalidInput as error:
        asked.refuse(error)
    filter_words = _filter_words(words)
    context |= {
        "errors": asked.errors,
        "is_filtered": bool(filter_words),
        "columns": job_columns.chosen(asked.words.get("columns")),
        "is_sought": bool(SEARCHED & words.keys()),
    }
    if not is_fragment(request):
        context |= _bar(request, asked, filter_words)
    return show(site, request, "jobs", context, title="Jobs", status=asked.status)


def export(site: Any, request: HttpRequest) -> HttpResponseBase:
    """The jobs that match as CSV, the newest first."""
    require(request, "jobs.read")
    asked = Asked(request, Query)
    if not asked.errors:
        try:
            words = _filter_words(spelled_out(asked.words))
        except InvalidInput as error:
            asked.refuse(error)
    if asked.errors:
        said = "\n".join(f"{error.field}: {error.message}" for error in asked.errors)
        return HttpResponse(said, status=400, content_type="text/plain; charset=utf-8")
    pieces = job_columns.csv_pieces(current_cluster().alias, words)
    return streamed(request, pieces, "text/csv", "jobs.csv")


def _first_view(request: HttpRequest) -> SavedView | None:
    if is_fragment(request):
        return None
    views: Any = SavedView.objects.all()
    view: SavedView | None = views.first_of(request.user, current_cluster().id)
    return view


def view_query(view: SavedView) -> str:
    """The parameters of the address at which a view is seen; never none."""
    return urlencode([("q", view.line), *(("columns", name) for name in view.columns)])


# -- What is found ---------------------------------------------------------------------------------


def _read(request: HttpRequest, asked: Asked, words: Mapping[str, Any]) -> dict[str, Any]:
    using = current_cluster().alias
    words = {"limit": PAGE_SIZE, **words}
    turning = Turning(asked.turner(request), NEWEST_FIRST, words)
    found, reached = job_search.find(
        using,
        words,
        item_sql(connections[using].vendor),
        turning.limit + 1,
        beyond=listing.Position(*turning.position) if turning.position else None,
        is_backwards=turning.is_backwards,
    )
    turned = turning.page([item for (item,) in found], key_of, reached=reached)
    return {
        "rows": [_row(item) for item in turned.rows],
        "next": turned.next,
        "previous": turned.previous,
        "reached": reached and reached.created_at,
        "goes_on": turned.previous if turning.is_backwards else turned.next,
    }


def _row(item: str) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(item)
    for name in _TIMES:
        row[name] = row[name] and parse_time(row[name])
    if row["started_at"] and row["finished_at"] and row["finished_at"] >= row["started_at"]:
        row["seconds"] = (row["finished_at"] - row["started_at"]).total_seconds()
    row["first_line"] = (row["error"] or "").strip().partition("\n")[0][:200]
    return row


# -- The bar ---------------------------------------------------------------------------------------


def _bar(request: HttpRequest, asked: Asked, words: Mapping[str, Any]) -> dict[str, Any]:
    pairs = _pairs(asked)
    kept = [("columns", name) for name in asked.words.get("columns", [])]
    views: Any = SavedView.objects.all()
    seen = views.of_cluster(current_cluster().id).seen_by(request.user).select_related("owner")
    first = _chosen_first(request)
    line = asked.given.get("q", "") if pairs is None else written(pairs)
    return {
        "line": line,
        "tabs": _tabs(pairs or [], kept),
        "kept": kept,
        "all_columns": job_columns.COLUMNS.values(),
        "shown_columns": {column.name for column in job_columns.chosen(asked.words.get("columns"))},
        "export": f"{address(request, 'jobs-export')}?{urlencode(asked.turner_query())}",
        "actions": _actions(request, words),
        "views": [
            {
                "view": view,
                "url": f"?{view_query(view)}",
                "is_own": view.owner_id == request.user.pk,
                "is_first": view.pk == first,
                "is_here": view.line == line and kept == [("columns", c) for c in view.columns],
            }
            for view in seen.order_by("name", "pk")[:MAX_NAMES]
        ],
        "has_first": first is not None,
        "completion": _completion(),
        "may_enqueue": may(request, "jobs.enqueue"),
    }


def _chosen_first(request: HttpRequest) -> Any:
    views: Any = SavedView.objects.all()
    view = views.first_of(request.user, current_cluster().id)
    return None if view is None else view.pk


def _filter_words(words: Mapping[str, Any]) -> dict[str, Any]:
    return {word: value for word, value in words.items() if word not in _APART}


def _pairs(asked: Asked) -> list[tuple[str, str]] | None:
    """The words of the line and of the address as they were written; None where they make no sense."""
    try:
        line = pairs_of(asked.given.get("q", ""))
    except LineError:
        return None
    beside = [
        (name, value)
        for name, values in asked.given.lists()
        for value in values
        if name not in _APART and name != "q"
    ]
    return [*line, *beside]


def _tabs(pairs: Iterable[tuple[str, str]], kept: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """One for each state, which keeps all other words."""
    states = {value for word, value in pairs if word == "state"}
    others = [(word, value) for word, value in pairs if word != "state"]
    tabs = [("all", others, not states)]
    tabs += [
        (state.value, [("state", state.value), *others], state.value in states) for state in State
    ]
    return [
        {
            "name": name,
            "url": f"?{urlencode([('q', written(words)), *kept])}",
            "is_active": is_active,
        }
        for name, words, is_active in tabs
    ]


def _actions(request: HttpRequest, words: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What may be done to all that match, on this page and behind it."""
    if not words:
        return []
    return [
        (VERBS[action], new_link(request, action, words))
        for action in VERBS
        if may(request, f"bulk_operations.{action}")
    ]


def _completion() -> dict[str, Any]:
    """Words, and for some of them what may follow."""
    queues = Queue.objects.order_by("name").values_list("name", flat=True)
    hosts = Node.objects.all().alive().order_by("host").values_list("host", flat=True)
    return {
        "words": [*sorted(JobFilter().fields), "args."],
        "values": {
            "state": State.values,
            "queue": [*queues[:MAX_NAMES]],
            "type": kinds(current_cluster().alias)[:MAX_NAMES],
            "kind": sorted(KINDS),
            "reason": Reason.values,
            "trigger": Trigger.values,
            "node": [*dict.fromkeys(hosts[:MAX_NAMES])],
            "is_held": ["true", "false"],
            "since": ["15m", "1h", "2h", "6h", "1d", "7d"],
            "attempt": [">1", ">3", ">=5"],
        },
    }


ROUTES = (
    ("jobs/", page, "jobs"),
    ("jobs/export.csv", export, "jobs-export"),
)
