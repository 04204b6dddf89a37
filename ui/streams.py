"""Files that the screen sends: line by line, and counted like every other stream of a caller."""

from __future__ import annotations

from collections.abc import Iterator

from django.http import HttpRequest, HttpResponse

from clusters.binding import current_cluster
from clusters.surfaces import limits_of
from config.streams import LongAnswer
from ui.callers import caller

RETRY_AFTER_SECONDS = 5


def streamed(
    request: HttpRequest, pieces: Iterator[bytes], content_type: str, name: str
) -> LongAnswer:
    """A file to save; its name says of which cluster it is."""
    principal = caller(request)
    full = HttpResponse(
        "Too many files are being sent to you; try again when one of them is there.",
        status=429,
        content_type="text/plain",
        headers={"Retry-After": str(RETRY_AFTER_SECONDS)},
    )
    answer = LongAnswer(
        pieces,
        content_type=f"{content_type}; charset=utf-8",
        when_full=full,
        caller=principal.actor if principal else "",
        of_a_caller=limits_of(principal).streams,
    )
    # The caller's own parts of a name are ids and words of ours: nothing to quote.
    whole = f"{current_cluster().id}-{name}"
    answer.headers["Content-Disposition"] = f'attachment; filename="{whole}"'
    return answer
