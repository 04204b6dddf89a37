"""Every refusal of the native API as ``application/problem+json``, and the one table of their statuses.

    {"type", "title", "status", "code", "detail", "request_id", "errors": [{"field", "code", "message"}]}

``code`` is stable, the texts are not. Answers of 500 and above hold fixed texts and the request id; what
really happened goes to the log under that id.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from django.core.exceptions import DisallowedHost, ObjectDoesNotExist, PermissionDenied
from django.db import DatabaseError, DataError, IntegrityError, InterfaceError, OperationalError
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseServerError,
)
from django.template.loader import get_template
from django.views import defaults
from rest_framework import exceptions

from clusters.binding import bound_cluster_id
from clusters.errors import UnknownCluster
from clusters.health import watch
from clusters.registry import alias_of
from jobs.errors import JobError

logger = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 5
MAX_ERRORS = 100

# Errors of the domain, by their code.
STATUS_OF: Mapping[str, int] = {
    "job_error": 400,
    "invalid": 400,
    "unknown_queue": 400,
    # 413 means the request's body; here one value in it is too large for the cluster.
    "payload_too_large": 400,
    "kind_not_granted": 403,
    "not_found": 404,
    "invalid_transition": 409,
    "duplicate_job": 409,
    "unique_key_taken": 409,
    "precondition_failed": 412,
    "duplicate_queue": 409,
    "queue_in_use": 409,
    "rights_lost": 403,
    "conflict": 409,
    "invalid_cron": 400,
    "invalid_timezone": 400,
    "unknown_handler": 400,
    "dependency_cycle": 400,
    "duplicate_name": 409,
    "schedule_in_use": 409,
    "workflow_in_use": 409,
    "calendar_in_use": 409,
    "already_paused": 409,
    "not_paused": 409,
    "disabled": 409,
    # Room comes by itself; whoever tries again later is right to do so.
    "queue_full": 429,
    "idempotency_key_reused": 422,
}
# Codes of Django REST framework that we call by another name.
_RENAMED = {"parse_error": "invalid", "error": "invalid"}
_TEXTS = {
    400: "The request is not valid.",
    401: "Give an API key, a token, or a name with its password.",
    403: "Your role on this cluster does not cover this.",
    # The same words for every missing thing: none of them says which part of the path was wrong.
    404: "There is no such thing, or you may not see it.",
    500: "Something went wrong on our side; the log tells more under this request id.",
    503: "This cannot be answered at the moment; try again later.",
}
# SQLSTATE of a statement that ran too long, of a lock that was not to be had, of a deadlock.
_TOO_LONG = frozenset({"57014", "55P03", "40P01", "40001"})
_TOO_LONG_FOR_SQLITE = ("database is locked", "interrupted")
_UNIQUE_VIOLATION = "23505"


class FieldError(NamedTuple):
    """One thing wrong with a request; ``field`` is a path such as ``jobs[3].payload.a[0]``."""

    field: str
    code: str
    message: str


class InvalidInput(exceptions.APIException):
    """What was sent is not valid; says where."""

    status_code = 400
    default_code = "invalid"
    default_detail = _TEXTS[400]

    def __init__(self, errors: Iterable[FieldError]) -> None:
        super().__init__()
        self.errors = list(errors)


class BodyTooLarge(exceptions.APIException):
    status_code = 413
    default_code = "body_too_large"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The body may have at most {limit} bytes.")


class PreconditionFailed(exceptions.APIException):
    status_code = 412
    default_code = "precondition_failed"
    default_detail = "This was changed since you read it; read it again."


class NotPossible(exceptions.APIException):
    """What this is at the moment does not allow it."""

    status_code = 409
    default_code = "invalid_transition"


class TooManyRequests(exceptions.APIException):
    """The caller has asked more often than its limit allows; says when it may go on."""

    status_code = 429
    default_code = "too_many_requests"
    default_detail = "You have asked too often of late; go on a little later."

    def __init__(self, wait: float) -> None:
        super().__init__()
        self.wait = max(wait, 0.001)


class ClusterUnreachable(exceptions.APIException):
    """The cluster's database did not answer a moment ago."""

    status_code = 503
    default_code = "cluster_unreachable"
    wait = RETRY_AFTER_SECONDS


class LengthRequired(exceptions.APIException):
    status_code = 411
    default_code = "length_required"
    default_detail = "Send the body with a Content-Length."


# Refusals of the whole body, and what they name.
_NAMED: Mapping[type[Exception], str] = {
    BodyTooLarge: "body",
    LengthRequired: "Content-Length",
    exceptions.UnsupportedMediaType: "Content-Type",
}


def invalid(field: str, message: str, code: str = "invalid") -> InvalidInput:
    """One field is wrong."""
    return InvalidInput([FieldError(field, code, message)])


def problem(
    request: Any,
    status: int,
    code: str,
    detail: str | None = None,
    errors: Iterable[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> HttpResponse:
    """Build the answer that refuses a request."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail or _TEXTS.get(status, HTTPStatus(status).description),
        "request_id": getattr(request, "request_id", None),
        "errors": [error._asdict() for error in list(errors)[:MAX_ERRORS]],
    }
    return HttpResponse(
        json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"),
        status=status,
        content_type=CONTENT_TYPE,
        headers=headers,
    )


class Refusal(NamedTuple):
    """What a refused request is told, before it is put into the words of its surface."""

    status: int
    code: str
    detail: str | None = None
    errors: Iterable[FieldError] = ()
    headers: Mapping[str, str] | None = None


def exception_handler(exc: Exception, context: Mapping[str, Any]) -> HttpResponse | None:
    """Answer whatever a view raised; None for what is a mistake of ours, which becomes a 500."""
    request = context["request"]
    refusal = refusal_of(request, exc)
    if refusal is None:
        return None
    answer = problem(request, *refusal)
    if isinstance(exc, (DatabaseError, InterfaceError)):
        # It has been, with the request id, which Django's own line would lack.
        answer._has_been_logged = True  # type: ignore[attr-defined]
    return answer


def refusal_of(request: Any, exc: Exception) -> Refusal | None:
    """What to tell of whatever a view raised; None for what is a mistake of ours."""
    if isinstance(exc, JobError):
        return _domain_refusal(exc)
    # ObjectDoesNotExist: somebody deleted the row between two of our looks at it.
    if isinstance(exc, (Http404, UnknownCluster, ObjectDoesNotExist)):
        return Refusal(404, "not_found")
    if isinstance(exc, PermissionDenied):
        return Refusal(403, "permission_denied")
    if isinstance(exc, exceptions.APIException):
        return _api_refusal(request, exc)
    if isinstance(exc, (DatabaseError, InterfaceError)):
        return _database_refusal(exc)
    return None


def _domain_refusal(exc: JobError) -> Refusal:
    status = STATUS_OF.get(exc.code, 400)
    if status == 404:
        return Refusal(404, "not_found")
    errors = []
    if exc.field is not None:
        field = exc.field if exc.index is None else f"jobs[{exc.index}].{exc.field}"
        errors.append(FieldError(field, exc.code, str(exc)))
    headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 429 else None
    return Refusal(status, exc.code, str(exc), errors, headers)


def _api_refusal(request: Any, exc: exceptions.APIException) -> Refusal:
    headers = {}
    if auth_header := getattr(exc, "auth_header", None):
        headers["WWW-Authenticate"] = auth_header
    if (wait := getattr(exc, "wait", None)) is not None:
        headers["Retry-After"] = str(math.ceil(wait))
    if isinstance(exc, InvalidInput):
        errors: list[FieldError] = exc.errors
    elif isinstance(exc, exceptions.ValidationError):
        errors = list(_flat(exc.detail, ""))
    elif field := _NAMED.get(type(exc)):
        errors = [FieldError(field, str(exc.get_codes()), str(exc.detail))]
    else:
        errors = []
    codes = exc.get_codes()
    code = codes if isinstance(codes, str) else "invalid"
    code = _RENAMED.get(code, code)
    if exc.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
    is_denied = isinstance(exc, exceptions.PermissionDenied) or exc.status_code == 404
    fixed = is_denied or errors or exc.status_code >= 500
    detail = None if fixed or not isinstance(exc.detail, str) else str(exc.detail)
    if isinstance(exc, exceptions.NotAuthenticated):
        detail = None
    return Refusal(exc.status_code, code, detail, errors, headers)


def _allowed(request: Any) -> Sequence[str]:
    view = (
        (request.parser_context or {}).get("view") if hasattr(request, "parser_context") else None
    )
    return view.allowed_methods if view is not None else ()


def _flat(detail: Any, path: str) -> Iterator[FieldError]:
    """The leaves of a validation error of Django REST framework, each with its path."""
    if isinstance(detail, dict):
        for key, value in detail.items():
            if isinstance(key, int):
                yield from _flat(value, f"{path}[{key}]")
            elif key == "non_field_errors":
                yield from _flat(value, path)
            else:
                yield from _flat(value, f"{path}.{key}" if path else str(key))
    elif isinstance(detail, list):
        for index, value in enumerate(detail):
            nested = isinstance(value, (dict, list))
            yield from _flat(value, f"{path}[{index}]" if nested else path)
    else:
        yield FieldError(path or "body", getattr(detail, "code", "invalid"), str(detail))


def _database_refusal(exc: Exception) -> Refusal | None:
    state = getattr(exc.__cause__, "sqlstate", None)
    if isinstance(exc, DataError):
        # A value that passed our checks and that a column cannot hold.
        logger.warning("the database refused a value", exc_info=exc)
        return Refusal(400, "invalid")
    if isinstance(exc, IntegrityError):
        if state == _UNIQUE_VIOLATION or "UNIQUE constraint" in str(exc):
            return Refusal(409, "conflict", "Somebody else made the same just now.")
        return None
    if not isinstance(exc, (OperationalError, InterfaceError)):
        return None
    logger.warning("a database did not answer", exc_info=exc)
    if state in _TOO_LONG or any(words in str(exc) for words in _TOO_LONG_FOR_SQLITE):
        code = "timeout"
    elif (cluster_id := bound_cluster_id()) is not None:
        code = "cluster_unreachable"
        watch.report_down(alias_of(cluster_id))
    else:
        code = "unavailable"
    return Refusal(503, code, headers={"Retry-After": str(RETRY_AFTER_SECONDS)})


# -- What Django itself refuses, before or beside a view -------------------------------------------


def is_page(path: str) -> bool:
    """Whether a browser shows what is below this path; everything else talks to programs."""
    return path.startswith("/admin/") or path == "/admin"


def bad_request(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    if is_page(request.path_info):
        return defaults.bad_request(request, exception)
    if isinstance(exception, DisallowedHost):
        told = "is no name of this server; its operator lists them in YARDMASTER_ALLOWED_HOSTS"
        return problem(request, 400, "invalid", errors=[FieldError("Host", "unknown", told)])
    return problem(request, 400, "invalid")


def permission_denied(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    if is_page(request.path_info):
        return defaults.permission_denied(request, exception)
    return problem(request, 403, "permission_denied")


def page_not_found(request: HttpRequest, exception: Exception) -> HttpResponseBase:
    if is_page(request.path_info):
        return defaults.page_not_found(request, exception)
    return problem(request, 404, "not_found")


def server_error(request: HttpRequest) -> HttpResponseBase:
    if is_page(request.path_info):
        # Django's own view would give the page nothing to tell.
        shown = {"request_id": getattr(request, "request_id", "")}
        return HttpResponseServerError(get_template("500.html").render(shown))
    return problem(request, 500, "internal_error")
