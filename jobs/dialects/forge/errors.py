"""Refusals as this API tells them: an object whose ``kind`` is one of six, and a status.

The kinds are a closed set. Where it has none of its own for what is wrong, the status tells the rest.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from django.db import InterfaceError, OperationalError
from django.http import HttpResponse

from config.problems import RETRY_AFTER_SECONDS, InvalidInput, Refusal, refusal_of
from jobs.errors import InvalidCron, JobError, KindNotGranted, UnknownQueue

logger = logging.getLogger(__name__)

# What this API calls what we call by this name.
FIELDS: Mapping[str, str] = {
    "body": "json",
    "type": "kind",
    "queue": "queue_name",
    "unique_key": "dedupe_key",
    "max_concurrency": "n",
    "retry_base_seconds": "base_seconds",
    "retry_cap_seconds": "max_seconds",
    "retain_succeeded_seconds": "done_days",
    "retain_failed_seconds": "dead_days",
    "expression": "cron_expr",
    "is_enabled": "enabled",
}
# What a refusal without a field of its own is about, by its status.
_FIELD_OF: Mapping[int, str] = {
    401: "authorization",
    403: "authorization",
    405: "method",
    411: "Content-Length",
    412: "If-Match",
    413: "json",
    415: "Content-Type",
}
_MISSING = "There is no such thing, or you may not see it."
STORAGE = {"kind": "storage", "msg": "storage backend error"}
INTERNAL = {"kind": "internal", "msg": "Something went wrong on our side; the log tells more."}


def exception_handler(exc: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """Answer whatever a view of this API raised; what is a mistake of ours is told to the log only."""
    refusal = refusal_of(context["request"], exc)
    if refusal is None:
        logger.error("a request failed", exc_info=exc)
        answer = envelope(500, INTERNAL)
    else:
        status, body = _told(exc, refusal)
        answer = envelope(status, body, refusal.headers)
    if refusal is None or isinstance(exc, OperationalError | InterfaceError):
        # It has been, with the request id, which Django's own line would lack.
        answer._has_been_logged = True  # type: ignore[attr-defined]
    return answer


def plain_exception_handler(exc: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """The same for scrapers, who read text."""
    answer = exception_handler(exc, context)
    told = json.loads(answer.content)
    text = told.get("msg") or told["kind"]
    answer.content = f"{text}\n".encode()
    answer["Content-Type"] = "text/plain; charset=utf-8"
    return answer


def _told(exc: Exception, refusal: Refusal) -> tuple[int, dict[str, Any]]:
    status, detail = refusal.status, refusal.detail
    if status == 404 or isinstance(exc, UnknownQueue):
        named = isinstance(exc, JobError) and str(exc)
        return 404, {"kind": "not_found", "msg": named or _MISSING}
    if status == 429:
        wait = (refusal.headers or {}).get("Retry-After", RETRY_AFTER_SECONDS)
        return 429, {"kind": "rate_limited", "retry_after_secs": int(wait)}
    if status == 503 and refusal.code == "timeout":
        # A lock or a statement that took too long: it may be tried again.
        return 409, {"kind": "conflict", "msg": "The database was busy; try again."}
    if status >= 500:
        return status, dict(STORAGE)
    if status == 409:
        return 409, {"kind": "conflict", "msg": detail or "Somebody else was faster."}
    return status, {"kind": "validation", **_field_and_message(exc, refusal)}


def _field_and_message(exc: Exception, refusal: Refusal) -> dict[str, str]:
    if isinstance(exc, InvalidCron | KindNotGranted):
        field = "cron_expr" if isinstance(exc, InvalidCron) else "kind"
        return {"field": field, "msg": str(exc)}
    error = next(iter(refusal.errors), None)
    detail = refusal.detail or _TEXTS.get(refusal.status, "This is not valid.")
    if error is None or refusal.status in _FIELD_OF:
        field = _FIELD_OF.get(refusal.status, "input")
        return {"field": field, "msg": error.message if error else detail}
    if isinstance(exc, InvalidInput):
        # Of this API's own fields, but for the parser's word for all of it.
        field = FIELDS["body"] if error.field == "body" else error.field
    else:
        field = FIELDS.get(error.field, error.field)
    return {"field": field, "msg": error.message}


_TEXTS = {
    401: "Give an API key.",
    403: "Your role on this cluster does not cover this.",
    405: "This address does not know the method.",
}


def envelope(
    status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> HttpResponse:
    text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
    return HttpResponse(
        text.encode("utf-8", "replace"),
        status=status,
        content_type="application/json",
        headers=headers,
    )
