"""What was done to a cluster, by whom and why: every column filters, and all of it comes as CSV."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import urlencode

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.http.response import HttpResponseBase
from django.urls import NoReverseMatch

from authn.models import REFUSED as CREDENTIALS_REFUSED
from clusters.api.audit import LATEST_FIRST, AuditFilter, AuditListQuery, checked
from clusters.api.fields import UUID_TEXT
from clusters.binding import current_cluster
from clusters.models import REFUSED, AuditEntry, TraceQuerySet
from ui.answers import address
from ui.asking import Asked
from ui.callers import may, require
from ui.exports import traces_as_csv
from ui.fragments import show
from ui.words import number

PAGE_SIZE = 50
# The fields of the bar, each with its label.
FIELDS = {
    "actor": "Who",
    "verb": "What",
    "target_type": "Sort of thing",
    "target_id": "Which",
    "reason": "Why",
    "surface": "Over",
    "address": "Address",
    "credential": "Shown",
    "request_id": "Request",
    "since": "Since",
    "until": "Until",
}
PLACEHOLDERS = {
    "actor": "user:oncall",
    "verb": "queues.pause",
    "target_type": "queue",
    "surface": "admin",
    "since": "2030-01-31T12:00:00Z",
    "until": "2030-01-31T13:00:00Z",
}
STRETCHES = {"the last hour": 1, "24 hours": 24, "7 days": 168}
LONGEST_SHOWN = 160
# The page of a thing, and what its address calls it.
PAGES = {
    "job": ("job", "job_id"),
    "schedule": ("schedule", "schedule_id"),
    "workflow": ("workflow", "workflow_id"),
    "bulk_operation": ("bulk-operation", "operation_id"),
}
LISTS = {"queue": "queues", "node": "nodes", "cluster": "settings", "secret": "secrets"}


class Change(NamedTuple):
    name: str
    before: str
    after: str


def page(site: Any, request: HttpRequest) -> HttpResponse:
    if not may(request, "audit.read"):
        # Whoever may not read it finds the part of governance that is for everybody.
        return HttpResponseRedirect(address(request, "settings"))
    return listed(
        site,
        request,
        AuditEntry.objects.using(current_cluster().alias).all(),
        title="Audit",
        tabs=tabs(request, "governance"),
        csv=address(request, "audit-csv"),
    )


def export(site: Any, request: HttpRequest) -> HttpResponseBase:
    require(request, "audit.read")
    cluster = current_cluster()
    rows = AuditEntry.objects.using(cluster.alias).all()
    return exported(request, rows, f"audit-{cluster.id}")


def tabs(request: HttpRequest, active: str) -> list[dict[str, Any]]:
    """The parts of a cluster's governance that the caller may see."""
    parts = (
        ("Audit", "governance", "audit.read"),
        ("Settings", "settings", "settings.read"),
        ("Secrets", "secrets", "secrets.read"),
    )
    return [
        {"name": title, "url": address(request, name), "is_active": name == active}
        for title, name, verb in parts
        if may(request, verb)
    ]


# -- For the fleet's audit, too --------------------------------------------------------------------


def listed(
    site: Any,
    request: HttpRequest,
    entries: TraceQuerySet,
    *,
    title: str,
    tabs: list[dict[str, Any]],
    csv: str,
) -> HttpResponse:
    """A page of these traces, found by the words of the address."""
    asked = Asked(request, AuditListQuery)
    turned = asked.page(
        request, lambda words: entries.matching(checked(words)), LATEST_FIRST, PAGE_SIZE
    )
    kept = [(name, value) for name, value in asked.given.items() if name not in ("cursor", "limit")]
    context = {
        **turned,
        "rows": [_row(request, entry) for entry in turned["rows"]],
        "tabs": tabs,
        "fields": [
            (name, label, asked.given.get(name, ""), PLACEHOLDERS.get(name, ""))
            for name, label in FIELDS.items()
        ],
        "stretches": [
            (label, f"?{urlencode({**dict(kept), 'since': _ago(hours)})}")
            for label, hours in STRETCHES.items()
        ],
        "is_filtered": bool(kept),
        "is_opened": any(name in asked.given for name in [*FIELDS][4:]),
        "csv": f"{csv}?{urlencode(kept)}" if kept else csv,
    }
    return show(site, request, "audit", context, title=title, status=asked.status)


def exported(request: HttpRequest, entries: TraceQuerySet, name: str) -> HttpResponseBase:
    """All of them that the words of the address choose, as CSV."""
    asked = Asked(request, AuditFilter)
    if asked.errors:
        raise Http404
    return traces_as_csv(request, entries.matching(checked(asked.words)), name)


def _ago(hours: int) -> str:
    # To the minute, so that the live part of the page stays the same for a while.
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    return f"{now - timedelta(hours=hours):%Y-%m-%dT%H:%M:%SZ}"


def _row(request: HttpRequest, entry: Any) -> dict[str, Any]:
    return {
        "entry": entry,
        "changes": [*_changes(entry.before or {}, entry.after or {})],
        "target": _target(request, entry),
        # Of an id the part that tells it from others of its time.
        "name": f"…{entry.target_id[-12:]}"
        if UUID_TEXT.match(entry.target_id)
        else entry.target_id,
        "filter": _filter(request, entry),
        "counted": _counted(entry),
    }


def _counted(entry: Any) -> str:
    """How many things were changed, or how often it was refused."""
    if entry.count is None:
        return ""
    if entry.verb in (REFUSED, CREDENTIALS_REFUSED):
        # Of a flood the last ones may never be told.
        least = "at least " if entry.verb == REFUSED else ""
        return least + ("once" if entry.count == 1 else f"{number(entry.count)} times")
    return f"{number(entry.count)} changed"


def _changes(before: Any, after: Any) -> Iterator[Change]:
    """What is different, name by name; a thing that is new or gone has one side only."""
    if not isinstance(before, Mapping) or not isinstance(after, Mapping):
        yield Change("", _short(before), _short(after))
        return
    for name in dict.fromkeys([*before, *after]):
        yield Change(
            name,
            _short(before[name]) if name in before else "",
            _short(after[name]) if name in after else "",
        )


def _short(value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"


def _target(request: HttpRequest, entry: Any) -> str:
    """The page of the thing that it was about; empty where there is none."""
    try:
        if entry.target_type in PAGES and entry.target_id:
            name, word = PAGES[entry.target_type]
            return address(request, name, **{word: entry.target_id})
        if entry.target_type in LISTS:
            return address(request, LISTS[entry.target_type])
    except NoReverseMatch:
        pass
    return ""


def _filter(request: HttpRequest, entry: Any) -> str:
    """The jobs that a filter chooses now; empty where it chose no jobs."""
    words = entry.filter
    if entry.target_type != "bulk_operation" or not isinstance(words, Mapping) or not words:
        return ""
    pairs = [
        (name, str(one).lower() if isinstance(one, bool) else str(one))
        for name, value in words.items()
        if name != "all"
        for one in (value if isinstance(value, list) else [value])
    ]
    return f"{address(request, 'jobs')}?{urlencode(pairs)}"


ROUTES = (
    ("governance/", page, "governance"),
    ("governance/audit.csv", export, "audit-csv"),
)
