"""Refusals as this API tells them: ProblemDetails with ``errors``, a stable ``code`` and ``traceId``.

What is wrong with a job mutation is 400, whatever it is: an unknown id, a conflict, a value; ``code``
tells them apart. Only reading one thing, and cancelling an execution, know 404.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from django.http import Http404, HttpResponse
from rest_framework.exceptions import NotFound

from config.problems import (
    CONTENT_TYPE,
    MAX_ERRORS,
    FieldError,
    InvalidInput,
    Refusal,
    refusal_of,
)
from jobs.dialects.scheduler.wire.naming import field_to_wire, words_to_wire
from jobs.engine.idempotency import KeyReused
from jobs.errors import (
    DependencyCycle,
    DuplicateSchedule,
    DuplicateWorkflow,
    InvalidCron,
    InvalidTimezone,
    InvalidTransition,
    JobError,
    JobNotFound,
    KindNotGranted,
    OutdatedSchedule,
    ScheduleInUse,
    ScheduleNotFound,
    ScheduleState,
    UniqueKeyTaken,
    UnknownHandler,
    WorkflowInUse,
    WorkflowNotFound,
    WorkflowRunNotFound,
)

logger = logging.getLogger(__name__)

VALIDATION_TYPE = "https://www.rfc-editor.org/rfc/rfc9110#section-15.5.1"
VALIDATION_FAILED = "validation_failed"
UNKNOWN_HANDLER = "unknown_handler"

# Our errors, the first class that fits, as status and code here. Whatever is in no line is 400.
STATUSES: Mapping[type[JobError], tuple[int, str]] = {
    ScheduleNotFound: (400, "job_not_found"),
    JobNotFound: (400, "execution_not_found"),
    WorkflowNotFound: (400, "workflow_not_found"),
    WorkflowRunNotFound: (400, "workflow_run_not_found"),
    DuplicateSchedule: (400, "duplicate_name"),
    DuplicateWorkflow: (400, "duplicate_name"),
    OutdatedSchedule: (412, "precondition_failed"),
    ScheduleInUse: (400, "job_in_use"),
    WorkflowInUse: (400, "workflow_in_use"),
    InvalidCron: (400, "invalid_cron"),
    InvalidTimezone: (400, "invalid_timezone"),
    UnknownHandler: (400, UNKNOWN_HANDLER),
    DependencyCycle: (400, "dependency_cycle"),
    UniqueKeyTaken: (400, "execution_not_retryable"),
    KindNotGranted: (403, "permission_denied"),
    KeyReused: (400, "idempotency_key_reused"),
}
SCHEDULE_STATES = {
    "already_paused": "job_already_paused",
    "not_paused": "job_not_paused",
    "disabled": "job_disabled",
    "not_deleted": "job_not_deleted",
}
# What an address names, by the argument it names it with.
NOUNS = {"job_id": "job", "execution_id": "execution", "workflow_id": "workflow"}


def exception_handler(exc: Exception, context: Mapping[str, Any]) -> HttpResponse:
    """Answer whatever a view of this API raised; what is a mistake of ours is told to the log only."""
    request, view = context["request"], context["view"]
    refusal = refusal_of(request, exc)
    if refusal is None:
        logger.error("a request failed", exc_info=exc)
        answer = problem(request, 500, "internal_error", title="Server error")
        answer._has_been_logged = True  # type: ignore[attr-defined]  # Django's line lacks the id
        return answer
    title = getattr(view, "title", None)
    if isinstance(exc, JobError):
        return _of_domain(request, view, exc, refusal, title)
    if isinstance(exc, InvalidInput):
        code = next((e.code for e in exc.errors if e.code in _OWN_CODES), VALIDATION_FAILED)
        return _invalid(request, code, "Validation failed", exc.errors)
    if isinstance(exc, NotFound | Http404):
        return _missing(request, view, title)
    return problem(request, refusal.status, refusal.code, refusal.detail, headers=refusal.headers)


# Codes that a field's error may lend to the whole answer.
_OWN_CODES = frozenset({"invalid_timezone", "invalid_cron", "duplicate_name"})


def _of_domain(
    request: Any, view: Any, exc: JobError, refusal: Refusal, title: str | None
) -> HttpResponse:
    if isinstance(exc, ScheduleState):
        status, code = 400, SCHEDULE_STATES.get(exc.code, exc.code)
    elif isinstance(exc, InvalidTransition):
        is_cancel = getattr(view, "action", None) == "cancel"
        status, code = (
            (409, "execution_finished") if is_cancel else (400, "execution_not_retryable")
        )
    else:
        found = (known for kind, known in STATUSES.items() if isinstance(exc, kind))
        status, code = next(found, (refusal.status, refusal.code))
    if code.endswith("_not_found"):
        return _missing(request, view, title, code)
    if status == 400 and code == "invalid":
        # What no handler can be called is as unknown as any other name.
        code = UNKNOWN_HANDLER if exc.field == "type" else VALIDATION_FAILED
    told = words_to_wire(str(exc))
    if status == 400:
        errors = [] if exc.field is None else [FieldError(exc.field, code, told)]
        return _invalid(request, code, title or "Validation failed", errors, told)
    return problem(request, status, code, told, title=title, headers=refusal.headers)


def _missing(request: Any, view: Any, title: str | None, code: str | None = None) -> HttpResponse:
    """What is not there, or may not be seen: the same answer for both."""
    arguments = getattr(view, "kwargs", {})
    noun = next((NOUNS[name] for name in NOUNS if name in arguments), None)
    code = code or (f"{noun}_not_found" if noun else "not_found")
    thing = code.removesuffix("_not_found").replace("_", " ") if noun else "thing"
    detail = f"There is no such {thing}, or you may not see it."
    is_read = request.method in ("GET", "HEAD")
    if is_read or noun is None or getattr(view, "action", None) in (None, "cancel"):
        named = f"{noun.capitalize()} not found" if noun else "Not found"
        return problem(request, 404, code, detail, title=named)
    return problem(request, 400, code, detail, title=title)


def _invalid(
    request: Any, code: str, title: str, errors: Iterable[FieldError], detail: str | None = None
) -> HttpResponse:
    texts: dict[str, list[str]] = {}
    for error in list(errors)[:MAX_ERRORS]:
        texts.setdefault(field_to_wire(error.field), []).append(error.message)
    first = next(iter(texts.items()), None)
    if detail is None and first is not None:
        detail = f"{first[0]}: {first[1][0]}"
    return problem(request, 400, code, detail, title=title, errors=texts, kind=VALIDATION_TYPE)


def problem(
    request: Any,
    status: int,
    code: str,
    detail: str | None = None,
    *,
    title: str | None = None,
    errors: Mapping[str, list[str]] | None = None,
    headers: Mapping[str, str] | None = None,
    kind: str = "about:blank",
) -> HttpResponse:
    """Build the answer that refuses a request."""
    body: dict[str, Any] = {
        "type": kind,
        "title": title or HTTPStatus(status).phrase,
        "status": status,
        "detail": detail or _DETAILS.get(status, HTTPStatus(status).description),
        "instance": request.path,
        "code": code,
        "traceId": getattr(request, "request_id", None),
    }
    if errors:
        body["errors"] = dict(errors)
    return HttpResponse(
        json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"),
        status=status,
        content_type=CONTENT_TYPE,
        headers=headers,
    )


_DETAILS = {
    400: "The request is not valid.",
    401: "Give an API key.",
    403: "Your role on this cluster does not cover this.",
    500: "Something went wrong on our side; the log tells more under this trace id.",
    503: "This cannot be answered at the moment; try again later.",
}
