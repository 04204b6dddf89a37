"""What broke: failures that look alike as one row, and one of them with its trace."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse

from clusters.api.paging import PageQuery
from clusters.binding import current_cluster
from jobs import metrics
from jobs.api.failures import NEWEST, FailureFilter
from jobs.models import Failure
from ui.asking import Asked
from ui.callers import require
from ui.charts import sparkline
from ui.fragments import show
from ui.words import number

PAGE_SIZE = 50
HOURS = 168
_FINGERPRINT = re.compile(r"[0-9a-f]{16}\Z")


class Query(PageQuery, FailureFilter):
    """The words of the API's list; of its two orders this page has one."""


def page(site: Any, request: HttpRequest) -> HttpResponse:
    require(request, "failures.read")
    asked = Asked(request, Query)
    context = {
        **asked.page(request, _found, NEWEST, PAGE_SIZE),
        "is_filtered": bool(set(asked.words) - {"limit", "cursor"}),
        "fields": {name: asked.given.get(name, "") for name in ("queue", "type")},
    }
    return show(site, request, "failures", context, title="Failures", status=asked.status)


def _found(words: Mapping[str, Any]) -> Any:
    groups = Failure.objects.all()
    for word in ("queue", "type"):
        if word in words:
            groups = groups.filter(**{word: words[word]})
    if "since" in words:
        groups = groups.filter(last_seen_at__gte=words["since"])
    return metrics.with_recent(groups)


def group(site: Any, request: HttpRequest, fingerprint: str) -> HttpResponse:
    require(request, "failures.read")
    if not _is_sound(fingerprint):
        raise Http404
    # All but the whole from one look, and the whole afterwards: it is never less than its parts.
    hours = metrics.failure_hours(current_cluster().alias, fingerprint, HOURS)
    found = Failure.objects.filter(pk=fingerprint).first()
    if found is None:
        raise Http404
    recent = metrics.recent_of(hours)
    told = f"{number(recent.in_7_days)} failures in the last 7 days, by the hour."
    counts = [count for _, count in hours]
    context = {
        "failure": found,
        "recent": recent,
        "told": told,
        "chart": sparkline(counts, told, bad=counts),
    }
    return show(site, request, "failure", context, title="Failure")


def _is_sound(fingerprint: str) -> bool:
    return _FINGERPRINT.match(fingerprint) is not None


ROUTES = (
    ("failures/", page, "failures"),
    ("failures/<str:fingerprint>/", group, "failure"),
)
