"""What broke: failures that look alike as one row, one of them with its trace, what people say of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import Http404, HttpRequest, HttpResponse

from clusters.api.paging import PageQuery
from clusters.binding import current_cluster
from jobs import failure_figures
from jobs.api.failures import NEWEST, FailureFilter, filtered
from jobs.errors import InvalidFailure, JobError
from jobs.fingerprints import own_frames
from jobs.models import Failure, Job, Mark
from ui.answers import address, confirm, done, post_only, refused, sent
from ui.asking import Asked
from ui.callers import may, require, require_start_again
from ui.charts import sparkline
from ui.deeds import deed
from ui.forms import MuteForm, OwnForm, ReasonForm
from ui.fragments import show
from ui.words import number

PAGE_SIZE = 25
HOURS, TREND_HOURS = 168, 24
SHOWN_HELD = 20
# More than these are retried over so many seconds, so that a retry is no second outage.
SPREAD_FROM, SPREAD_SECONDS = 100, 600
FIRST_FEW = 10
_FINGERPRINT = re.compile(r"[0-9a-f]{16}\Z")


class Query(PageQuery, FailureFilter):
    """The words of the API's list; of its two orders this page has one."""


# -- Seen ------------------------------------------------------------------------------------------


def page(site: Any, request: HttpRequest) -> HttpResponse:
    require(request, "failures.read")
    asked = Asked(request, Query)
    turned = asked.page(request, _found, NEWEST, PAGE_SIZE)
    context = {
        **turned,
        "trends": _trends(turned["rows"]),
        "is_filtered": bool(set(asked.words) - {"limit", "cursor"}),
        "fields": {name: asked.given.get(name, "") for name in ("queue", "type")},
        "tabs": _tabs(request, asked),
        "held": _held(),
        "may_retry": may(request, "jobs.retry"),
        "may_close": may(request, "jobs.close"),
    }
    return show(site, request, "failures", context, title="Failures", status=asked.status)


def _found(words: Mapping[str, Any]) -> Any:
    return failure_figures.with_recent(filtered(dict(words)))


def _trends(rows: list[Failure]) -> dict[str, Any]:
    """A small chart for each group of the page, all of them from one question."""
    if not rows:
        return {}
    using, names = current_cluster().alias, [row.fingerprint for row in rows]
    trends = failure_figures.failure_trends(using, names, TREND_HOURS)
    return {
        name: sparkline(counts, f"{number(sum(counts))} in 24 hours, by the hour.", bad=counts)
        for name, counts in trends.items()
    }


def _tabs(request: HttpRequest, asked: Asked) -> list[dict[str, Any]]:
    chosen = asked.given.get("mark", "")
    tabs = []
    for mark in ("", *Mark.values):
        query = request.GET.copy()
        for name in ("mark", "cursor"):
            query.pop(name, None)
        if mark:
            query["mark"] = mark
        url = f"?{query.urlencode()}" if query else address(request, "failures")
        tabs.append({"name": mark or "all", "url": url, "is_active": mark == chosen})
    return tabs


def _held() -> list[Job]:
    """Jobs about which a person decides, the oldest first; one more than is shown."""
    columns = ("id", "type", "queue", "error", "finished_at", "created_at", "state", "attempts")
    held = Job.objects.filter(is_held=True).only(*columns)
    return [*held.order_by("created_at", "id")[: SHOWN_HELD + 1]]


def group(site: Any, request: HttpRequest, fingerprint: str) -> HttpResponse:
    require(request, "failures.read")
    _check(fingerprint)
    # All but the whole from one look, and the whole afterwards: it is never less than its parts.
    hours = failure_figures.failure_hours(current_cluster().alias, fingerprint, HOURS)
    found = failure_figures.with_recent(Failure.objects.filter(pk=fingerprint)).first()
    if found is None:
        raise Http404
    recent = failure_figures.recent_of(hours)
    counted = "1 failure" if recent.in_7_days == 1 else f"{number(recent.in_7_days)} failures"
    told = f"{counted} in the last 7 days, by the hour."
    counts = [count for _, count in hours]
    context = {
        "failure": found,
        "recent": recent,
        "told": told,
        "chart": sparkline(counts, told, bad=counts),
        "hours": [(at, count) for at, count in reversed(hours) if count],
        "frames": own_frames(found.example),
        "places": [
            (title, found.was_seen_on(what))
            for title, what in (("Types", "types"), ("Nodes", "nodes"), ("Versions", "versions"))
        ],
        "bulk": _bulk(request, found, recent.in_7_days),
        "may_change": may(request, "failures.change"),
        "is_muted": found.mark == Mark.MUTED,
    }
    return show(site, request, "failure", context, title="Failure")


def _bulk(request: HttpRequest, found: Failure, count: int) -> list[dict[str, Any]]:
    """What may be done to all jobs of the group, each on the page that asks and counts first."""
    base = f"{address(request, 'index')}bulk-operations/new/"
    like = f"failure={found.fingerprint}"
    spread = f"&spread_seconds={SPREAD_SECONDS}" if count > SPREAD_FROM else ""
    wanted = (
        ("Retry all", "retry", f"state=failed&{like}{spread}", True),
        (f"Retry {FIRST_FEW} first", "retry", f"state=failed&{like}&limit={FIRST_FEW}", False),
        # Those that have failed have ended; these would be tried again.
        ("Cancel its retries", "cancel", f"state=scheduled&{like}", False),
    )
    if not may(request, "bulk_operations.request"):
        return []
    return [
        {"label": label, "url": f"{base}?action={action}&{query}", "is_primary": is_primary}
        for label, action, query, is_primary in wanted
        if may(request, f"bulk_operations.{action}")
    ]


def _check(fingerprint: str) -> None:
    if _FINGERPRINT.match(fingerprint) is None:
        raise Http404


# -- Said ------------------------------------------------------------------------------------------


@post_only
def known(site: Any, request: HttpRequest, fingerprint: str) -> HttpResponse:
    said = "Marked as known: it counts, and nobody needs to look at it first."
    return _say(request, fingerprint, said, mark=Mark.KNOWN)


def mute(site: Any, request: HttpRequest, fingerprint: str) -> HttpResponse:
    """Ask why and for how long; then let it trouble nobody."""
    require(request, "failures.change")
    found = _one(fingerprint)
    form = MuteForm(sent(request))
    if request.method == "POST" and form.is_valid():
        until: datetime | None = form.moment()
        reason = form.cleaned_data["reason"]
        return _say(request, fingerprint, "Muted.", mark=Mark.MUTED, until=until, reason=reason)
    return confirm(
        site,
        request,
        form,
        title="Mute this failure?",
        button="Mute it",
        effect="It makes no alert, and the cluster is well all the same. It is counted and listed here.",
        target=str(found),
        back=address(request, "failure", fingerprint=fingerprint),
    )


def own(site: Any, request: HttpRequest, fingerprint: str) -> HttpResponse:
    """Whose it is, and where that is written down."""
    require(request, "failures.change")
    found = _one(fingerprint)
    form = OwnForm(sent(request), initial={"owner": found.owner, "ticket": found.ticket})
    if request.method == "POST" and form.is_valid():
        try:
            return _say(request, fingerprint, "Noted.", is_asked=True, **form.cleaned_data)
        except InvalidFailure as error:
            form.add_error(error.field or "owner", str(error))
    return confirm(
        site,
        request,
        form,
        title="Whose is it?",
        button="Save",
        effect="Others see it in the list of failures and in the API.",
        target=str(found),
        back=address(request, "failure", fingerprint=fingerprint),
    )


def _say(
    request: HttpRequest, fingerprint: str, told: str, *, is_asked: bool = False, **said: Any
) -> HttpResponse:
    principal = require(request, "failures.change")
    _check(fingerprint)
    back = address(request, "failure", fingerprint=fingerprint)
    try:
        Failure.objects.all().annotate_group(fingerprint, by=principal.actor, **said)
    except InvalidFailure as error:
        if is_asked:
            raise
        return refused(request, error, back)
    return done(request, told, back)


def _one(fingerprint: str) -> Failure:
    _check(fingerprint)
    found = Failure.objects.filter(pk=fingerprint).first()
    if found is None:
        raise Http404
    return found


# -- Held jobs, one by one -------------------------------------------------------------------------


def held_retry(site: Any, request: HttpRequest, job_id: UUID) -> HttpResponse:
    effect = "It starts again, though its first run may have done its work in part or whole."
    asks = {"title": "Retry this job?", "button": "Retry it", "effect": effect}
    return _decide(site, request, job_id, "jobs.retry", Job.retry, asks)


def held_close(site: Any, request: HttpRequest, job_id: UUID) -> HttpResponse:
    effect = "It stays failed and waits for nobody any more."
    asks = {"title": "Leave this job failed?", "button": "Leave it failed", "effect": effect}
    return _decide(site, request, job_id, "jobs.close", Job.close, asks)


def _decide(
    site: Any,
    request: HttpRequest,
    job_id: UUID,
    verb: str,
    move: Callable[[Job], None],
    asks: Mapping[str, str],
) -> HttpResponse:
    require(request, verb)
    job = Job.objects.filter(pk=job_id).first()
    if job is None:
        raise Http404
    if verb == "jobs.retry":
        require_start_again(request, job)
    back = address(request, "failures")
    form = ReasonForm(sent(request))
    if request.method == "POST" and form.is_valid():
        try:
            with deed(request, verb, "job", job.pk, reason=form.cleaned_data["reason"]) as trace:
                trace.before = {"state": str(job.state), "is_held": job.is_held}
                move(job)
                trace.after = {"state": str(job.state), "is_held": job.is_held}
        except JobError as error:
            return refused(request, error, back)
        return done(request, "Decided.", back)
    return confirm(site, request, form, **asks, target=f"{job.type} · {job.pk}", back=back)


ROUTES = (
    ("failures/", page, "failures"),
    ("failures/held/<uuid:job_id>/retry/", held_retry, "held-retry"),
    ("failures/held/<uuid:job_id>/close/", held_close, "held-close"),
    ("failures/<str:fingerprint>/", group, "failure"),
    ("failures/<str:fingerprint>/known/", known, "failure-known"),
    ("failures/<str:fingerprint>/mute/", mute, "failure-mute"),
    ("failures/<str:fingerprint>/own/", own, "failure-own"),
)
