"""The log of a job: its last lines and those that follow, a search in it, and all of it as a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template.response import TemplateResponse

from clusters.binding import current_cluster
from jobs.models import Job
from jobs.states import FINAL
from jobs.step_logs import LAST, find_lines, is_made_of_steps, lines_of
from ui.answers import address
from ui.callers import require
from ui.finding import find_job as find
from ui.streams import streamed
from ui.templatetags.ui import plain

SHOWN_LINES = 200
MAX_FIND = 200
# A file ends there; the API goes on.
MAX_LINES, _PAGE = 200_000, 1000


def shown(request: HttpRequest, job: Job) -> dict[str, Any]:
    """The last lines; or those that hold a text, as far back as was looked for them."""
    using, text = current_cluster().alias, request.GET.get("find", "").replace("\0", "")[:MAX_FIND]
    with_steps = is_made_of_steps(job)
    here = address(request, "job", job_id=job.pk)
    if not text:
        newest = lines_of(
            using, job.pk, with_steps=with_steps, limit=SHOWN_LINES, is_newest_first=True
        )
        return _of(job, newest[::-1], 0)
    before = _whole_number(request.GET.get("before"), LAST)
    found = find_lines(
        using,
        job.pk,
        text,
        with_steps=with_steps,
        limit=SHOWN_LINES,
        before=LAST if before is None else before,
    )
    on = urlencode([("find", text), ("before", found.reached)])
    return {
        **_of(job, found.lines, 0),
        "is_followed": False,
        "sought": text,
        "goes_on": None if found.reached is None else f"{here}?{on}#log",
    }


def log(site: Any, request: HttpRequest, job_id: UUID) -> HttpResponse:
    """The lines after the last one that the browser has; 204 where there is none."""
    require(request, "jobs.read")
    job = find(job_id)
    after = _whole_number(request.GET.get("after"), 0)
    if after is None:
        return HttpResponse("after: must be a whole number", status=400, content_type="text/plain")
    lines = lines_of(
        current_cluster().alias,
        job.pk,
        with_steps=is_made_of_steps(job),
        limit=SHOWN_LINES,
        after=after,
    )
    context = _of(job, lines, after)
    context["is_followed"] = context["is_followed"] or len(lines) == SHOWN_LINES
    if not lines and context["is_followed"]:
        return HttpResponse(status=204)
    return TemplateResponse(request, "ui/job/lines.html", context)


def file(site: Any, request: HttpRequest, job_id: UUID) -> HttpResponseBase:
    """All lines, the oldest first, as a text file."""
    require(request, "jobs.read")
    job = find(job_id)
    pieces = text_pieces(current_cluster().alias, job.pk, is_made_of_steps(job))
    return streamed(request, pieces, "text/plain", f"{job.pk}.log")


def text_pieces(
    using: str, job_id: UUID, with_steps: bool, limit: int = MAX_LINES
) -> Iterator[bytes]:
    after, left = -1, limit
    while left > 0:
        wanted = min(_PAGE, left)
        page = lines_of(using, job_id, with_steps=with_steps, limit=wanted, after=after)
        yield "".join(map(_text, page)).encode("utf-8", "replace")
        if len(page) < wanted:
            return
        left -= len(page)
        after = page[-1].pk
    yield f"… more than {limit} lines; the API has the others\n".encode()


def _text(line: Any) -> str:
    step = f" [{line.step_name}]" if line.step_name else ""
    said = plain(line.message)
    return f"{line.logged_at:%Y-%m-%dT%H:%M:%S.%fZ} {line.level or line.stream}{step} {said}\n"


def _of(job: Job, lines: list[Any], after: int) -> dict[str, Any]:
    return {
        "job": job,
        "lines": lines,
        "last_line": lines[-1].pk if lines else after,
        "is_followed": job.state not in FINAL,
    }


def _whole_number(text: str | None, default: int) -> int | None:
    """What stands in an address; None where it is no place in a log."""
    if text is None:
        return default
    if not text.isascii() or not text.lstrip("-").isdigit() or len(text) > 19:
        return None
    number = max(int(text), 0)
    return number if number <= LAST else None


ROUTES = (
    ("jobs/<uuid:job_id>/log/", log, "job-log"),
    ("jobs/<uuid:job_id>/log.txt", file, "job-log-file"),
)
