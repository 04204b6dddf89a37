"""Refusals as this API tells them: ``{"error": {"code", "message", "details": {"reason", "field"}}}``.

The codes are a closed set; who is not known or may not is told by the status, with the code
``invalid_argument``. Reasons tell the cases apart.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any, NoReturn

from django.http import Http404, HttpResponse
from rest_framework.exceptions import MethodNotAllowed, NotFound

from clusters.errors import UnknownCluster
from config.problems import BodyTooLarge, InvalidInput, Refusal, refusal_of
from jobs.engine.idempotency import KeyReused
from jobs.errors import (
    Conflict,
    DuplicateJob,
    DuplicateQueue,
    DuplicateSchedule,
    InvalidJob,
    InvalidQueue,
    InvalidSchedule,
    InvalidTransition,
    JobError,
    JobNotFound,
    KindNotGranted,
    PayloadTooLarge,
    QueueFull,
    QueueInUse,
    QueueNotFound,
    ScheduleNotFound,
    UniqueKeyTaken,
    UnknownQueue,
)

logger = logging.getLogger(__name__)

JSON = "application/json; charset=utf-8"

# Our errors, the first class that fits, as status, code and reason here.
STATUSES: Mapping[type[JobError], tuple[int, str, str]] = {
    JobNotFound: (404, "not_found", "task_not_found"),
    QueueNotFound: (404, "not_found", "queue_not_found"),
    UnknownQueue: (404, "not_found", "queue_not_found"),
    ScheduleNotFound: (404, "not_found", "schedule_not_found"),
    DuplicateJob: (409, "duplicate", "duplicate_item"),
    DuplicateQueue: (409, "duplicate", "queue_already_exists"),
    DuplicateSchedule: (409, "duplicate", "schedule_already_exists"),
    KeyReused: (409, "conflict", "idempotency_key_reused"),
    QueueInUse: (409, "conflict", "queue_in_use"),
    UniqueKeyTaken: (409, "conflict", "unique_key_taken"),
    InvalidTransition: (409, "conflict", "task_cannot_enqueue"),
    Conflict: (409, "conflict", "conflict"),
    # Room comes by itself; whoever tries again later is right to do so.
    QueueFull: (429, "rate_limited", "queue_full"),
    KindNotGranted: (403, "invalid_argument", "permission_denied"),
    PayloadTooLarge: (413, "payload_too_large", "payload_too_large"),
    InvalidSchedule: (400, "invalid_argument", "schedule_invalid"),
    InvalidQueue: (400, "invalid_argument", "queue_invalid"),
    InvalidJob: (400, "invalid_argument", "task_invalid"),
}
# What an id that is none and a type that is none are called, whatever they were given for.
REASONS = {"type": "task_type_invalid", "id": "task_id_invalid"}
# Codes of refusals that are of no domain, by their status.
CODES = {
    404: "not_found",
    409: "conflict",
    413: "payload_too_large",
    429: "rate_limited",
    500: "internal",
    503: "unavailable",
}
# Their reasons, by our code.
GENERAL_REASONS = {
    "not_authenticated": "unauthenticated",
    "invalid_credentials": "unauthenticated",
    "permission_denied": "permission_denied",
    "method_not_allowed": "method_not_allowed",
    "length_required": "length_required",
    "cluster_unreachable": "storage_not_ready",
    "unavailable": "storage_not_ready",
    "timeout": "storage_not_ready",
    "too_many_tries": "too_many_requests",
    "too_many_requests": "too_many_requests",
}
# Where our words for what is wrong differ from those of this API.
FIELDS = {
    "max_attempts": "max_tries",
    "depends_on": "dependencies",
    "expires_at": "deadline",
    "expires_in_seconds": "deadline_offset",
    "payload_bytes": "payload_base64",
    "default_max_attempts": "max_tries",
    "default_timeout_seconds": "max_runtime",
    "max_age_seconds": "max_age",
    "max_concurrency": "max_concurrent",
    "overflow": "discard_old",
    "expression": "schedule",
    "interval_seconds": "schedule",
    "timezone": "schedule",
    "Idempotency-Key": "Idempotency-Key",
}
MISTAKE = "internal server error"


class Refused(Exception):
    """A request that this API refuses in words of its own."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        reason: str | None = None,
        field: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.answer = (status, code, message, reason, field, headers)


def refuse(reason: str | None, message: str, field: str | None = None) -> NoReturn:
    """Refuse an argument."""
    raise Refused(400, "invalid_argument", message, reason, field)


def envelope(
    status: int,
    code: str,
    message: str,
    reason: str | None = None,
    field: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> HttpResponse:
    """Build the answer that refuses a request."""
    error: dict[str, Any] = {"code": code, "message": message}
    details = {"field": field and field[:100], "reason": reason}
    if details := {name: value for name, value in details.items() if value is not None}:
        error["details"] = details
    text = json.dumps({"error": error}, ensure_ascii=False, separators=(",", ":"))
    return HttpResponse(
        text.encode("utf-8", "replace"), status=status, content_type=JSON, headers=headers
    )


def exception_handler(exc: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """Answer whatever a view of this API raised; what is a mistake of ours is told to the log only."""
    view = context["view"]
    if isinstance(exc, Refused):
        return envelope(*exc.answer)
    if isinstance(exc, InvalidInput):
        return _not_json(exc)
    refusal = refusal_of(context["request"], exc)
    if refusal is None:
        logger.error("a request failed", exc_info=exc)
        answer = envelope(500, "internal", MISTAKE, "panic")
        answer._has_been_logged = True  # type: ignore[attr-defined]  # Django's line lacks the id
        return answer
    if isinstance(exc, JobError):
        return _of_domain(view, exc, refusal)
    if isinstance(exc, NotFound | Http404 | UnknownCluster):
        # What one may not see is told of as what is not there.
        return envelope(404, "not_found", *missing(view))
    if isinstance(exc, BodyTooLarge):
        return envelope(413, "payload_too_large", str(exc.detail))
    reason = GENERAL_REASONS.get(refusal.code)
    message = _MESSAGES.get(refusal.code) or refusal.detail or "the request is not valid"
    if isinstance(exc, MethodNotAllowed):
        message = f"method {context['request'].method} is not allowed here"
    code = CODES.get(refusal.status, "invalid_argument")
    return envelope(refusal.status, code, message, reason, headers=refusal.headers)


def missing(view: Any) -> tuple[str, str | None]:
    """What is not there, and the reason that says so, by what an address names."""
    noun = getattr(view, "noun", None)
    is_named = {"task_id", "name"} & getattr(view, "kwargs", {}).keys()
    return (f"{noun} not found", f"{noun}_not_found") if noun and is_named else ("not found", None)


def _not_json(exc: InvalidInput) -> HttpResponse:
    first = exc.errors[0]
    field = None if first.field == "body" else first.field
    return envelope(400, "invalid_argument", first.message, "invalid_json", field)


def _of_domain(view: Any, exc: JobError, refusal: Refusal) -> HttpResponse:
    field = exc.field
    general = refusal.status, CODES.get(refusal.status, "invalid_argument"), exc.code
    fitting = (told for kind, told in STATUSES.items() if isinstance(exc, kind))
    status, code, reason = next(fitting, general)
    if refusal.status == 404:
        # The same words whether there never was such a thing or it may not be seen.
        return envelope(404, "not_found", *missing(view))
    if isinstance(exc, InvalidJob) and field in REASONS:
        reason = REASONS[field]
    if isinstance(exc, Conflict) and field == "Idempotency-Key":
        reason = "idempotency_key_in_use"
    if field == "type":
        field = getattr(view, "type_field", field)
    if field is not None:
        field = FIELDS.get(field, field)
    return envelope(status, code, str(exc), reason, field, refusal.headers)


_MESSAGES = {
    "not_authenticated": "give an API key",
    "invalid_credentials": "the credentials are not valid",
    "permission_denied": "your role on this cluster does not cover this",
    "cluster_unreachable": "the storage cannot be reached at the moment",
    "unavailable": "the storage cannot be reached at the moment",
    "timeout": "the storage did not answer in time",
    "invalid": "the request is not valid",
}
