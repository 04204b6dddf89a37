"""Long answers of the screen: CSV, line by line, as far as the limits of the caller and the server go."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from clusters.api.audit import CSV, pieces
from clusters.models import TraceQuerySet
from clusters.surfaces import limits_of
from config.streams import LongAnswer
from ui.callers import caller


def traces_as_csv(request: HttpRequest, rows: TraceQuerySet, name: str) -> HttpResponseBase:
    """What was done, newest first; the rows name their database, for no cluster is bound by then."""
    principal = caller(request)
    assert principal is not None
    full = HttpResponse(
        "Too many answers are being streamed.",
        status=429,
        content_type="text/plain",
        headers={"Retry-After": "5"},
    )
    answer = LongAnswer(
        pieces(rows),
        content_type=CSV,
        when_full=full,
        caller=principal.actor,
        of_a_caller=limits_of(principal).streams,
    )
    answer.headers["Content-Disposition"] = f'attachment; filename="{name}.csv"'
    return answer
