"""What broke: failures that look alike as one row, and one of them with its trace."""

from __future__ import annotations

import re
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse

from clusters.api.paging import PageQuery, read_page
from clusters.binding import current_cluster
from config.problems import InvalidInput
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
    rows: list[Failure] = []
    following = previous = None
    try:
        if not asked.errors:
            groups = Failure.objects.all()
            for word in ("queue", "type"):
                if word in asked.words:
                    groups = groups.filter(**{word: asked.words[word]})
            if "since" in asked.words:
                groups = groups.filter(last_seen_at__gte=asked.words["since"])
            words = {"limit": PAGE_SIZE, **asked.words}
            turned = read_page(asked.turner(request), metrics.with_recent(groups), NEWEST, words)
            rows, following, previous = [*turned.rows], turned.next, turned.previous
    except InvalidInput as error:
        asked.refuse(error)
    context = {
        "rows": rows,
        "next": following,
        "previous": previous,
        "errors": asked.errors,
        "is_filtered": bool(set(asked.words) - {"limit", "cursor"}),
        "fields": {name: asked.given.get(name, "") for name in ("queue", "type")},
    }
    return show(site, request, "failures", context, title="Failures", status=asked.status)


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
