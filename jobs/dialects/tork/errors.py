"""Refusals as this API tells them: ``{"message": "…"}`` and a status."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from django.http import HttpResponse

from config.problems import BodyTooLarge, refusal_of
from jobs.errors import JobError

logger = logging.getLogger(__name__)

JSON = "application/json"
# What the original says of a status, whatever the reason.
_WORDS: Mapping[int, str] = {
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    411: "Length Required",
    413: "Request Entity Too Large",
    429: "rate limit exceeded",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_CHALLENGE = "basic realm=Restricted"
# A definition of ours and what stands for it in one of this API's.
_PLACES = (
    (re.compile(r"^payload\."), ""),
    (re.compile(r"(?<=\])\.payload\b"), ""),
    (re.compile(r"(^|\.)steps(?=\[|$)"), r"\1tasks"),
    (re.compile(r"\.parallel(?=\[)"), ".parallel.tasks"),
    (re.compile(r"\.step(?=\.|$)"), ".task"),
)


class Refused(Exception):
    """A request that this API refuses in words of its own."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message


def refuse(message: str, status: int = 400) -> NoReturn:
    raise Refused(status, message)


def exception_handler(exc: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """Answer whatever a view of this API raised; what is a mistake of ours is told to the log only."""
    if isinstance(exc, Refused):
        return envelope(exc.status, exc.message)
    refusal = refusal_of(context["request"], exc)
    if refusal is None:
        logger.error("a request failed", exc_info=exc)
        answer = envelope(500, _WORDS[500])
        answer._has_been_logged = True  # type: ignore[attr-defined]  # Django's line lacks the id
        return answer
    status = refusal.status
    headers = dict(refusal.headers or {})
    if status == 401:
        headers["WWW-Authenticate"] = _CHALLENGE
    if isinstance(exc, JobError) and status not in (404, 413):
        return envelope(status, _told(exc), headers)
    if isinstance(exc, BodyTooLarge) and _is_chunked(context["request"]):
        # The original notices while it reads, and then calls it a bad request.
        return envelope(400, f"code=413, message={_WORDS[413]}")
    detail = refusal.detail
    for error in refusal.errors:
        detail = error.message
        break
    return envelope(status, _WORDS.get(status) or detail or "Bad Request", headers)


def _told(exc: JobError) -> str:
    return f"{_place(exc.field)}: {exc}" if exc.field else str(exc)


def _place(field: str) -> str:
    """Where a mistake is, in the words of the definition that was sent."""
    for ours, theirs in _PLACES:
        field = ours.sub(theirs, field)
    return field


def _is_chunked(request: Any) -> bool:
    return "chunked" in request.META.get("HTTP_TRANSFER_ENCODING", "").lower()


def envelope(status: int, message: str, headers: Mapping[str, str] | None = None) -> HttpResponse:
    text = json.dumps({"message": message}, ensure_ascii=False, separators=(",", ":")) + "\n"
    return HttpResponse(
        text.encode("utf-8", "replace"), status=status, content_type=JSON, headers=headers
    )
