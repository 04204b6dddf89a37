"""What refusals look like: of each status one, or one of each reason for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def _of(code: str, title: str, detail: str, *errors: tuple[str, str, str]) -> dict[str, Any]:
    named = [{"field": field, "code": why, "message": text} for field, why, text in errors]
    return {"title": title, "code": code, "detail": detail, "errors": named}


_INVALID = "The request is not valid."
_SCHEDULE_STATE = "The schedule is paused already."

EXAMPLES: Mapping[int, Mapping[str, dict[str, Any]]] = {
    400: {
        "A field that is missing": _of(
            "invalid", "Bad Request", _INVALID, ("type", "required", "This field is required.")
        ),
        "A parameter there is not": _of(
            "invalid",
            "Bad Request",
            _INVALID,
            ("order", "unknown_parameter", "There is no such parameter."),
        ),
        "A queue there is not": _of(
            "unknown_queue",
            "Bad Request",
            "there is no queue 'mial'",
            ("queue", "unknown_queue", "there is no queue 'mial'"),
        ),
    },
    401: {
        "No credentials": _of(
            "not_authenticated",
            "Unauthorized",
            "Give an API key, a token, or a name with its password.",
        ),
        "Bad credentials": _of(
            "invalid_credentials", "Unauthorized", "The credentials are not valid."
        ),
    },
    403: {
        "The role does not cover it": _of(
            "permission_denied", "Forbidden", "Your role on this cluster does not cover this."
        ),
        "A grant is missing": _of(
            "kind_not_granted",
            "Forbidden",
            "jobs of kind 'shell' need a grant of their own",
            ("kind", "kind_not_granted", "jobs of kind 'shell' need a grant of their own"),
        ),
    },
    404: {
        "Missing, or not yours": _of(
            "not_found", "Not Found", "There is no such thing, or you may not see it."
        )
    },
    409: {
        "Its state does not allow it": _of(
            "invalid_transition", "Conflict", "cannot cancel a job that is succeeded"
        ),
        "There is one already": _of(
            "duplicate_job",
            "Conflict",
            "there is a job with this id",
            ("id", "duplicate_job", "there is a job with this id"),
        ),
        "Already so": _of("already_paused", "Conflict", _SCHEDULE_STATE),
    },
    411: {
        "A chunked body": _of(
            "length_required",
            "Length Required",
            "Send the body with a Content-Length.",
            ("Content-Length", "length_required", "Send the body with a Content-Length."),
        )
    },
    412: {
        "Changed meanwhile": _of(
            "precondition_failed",
            "Precondition Failed",
            "This was changed since you read it; read it again.",
        )
    },
    413: {
        "Too large": _of(
            "body_too_large",
            "Request Entity Too Large",
            "The body may have at most 524288 bytes.",
            ("body", "body_too_large", "The body may have at most 524288 bytes."),
        )
    },
    414: {
        "Too long": _of(
            "invalid_request",
            "Request-URI Too Long",
            "This is not a request that can be read.",
            ("request", "invalid", "Request-URI Too Long"),
        )
    },
    415: {
        "No JSON": _of(
            "unsupported_media_type",
            "Unsupported Media Type",
            'Unsupported media type "text/plain" in request.',
            ("Content-Type", "unsupported_media_type", "Unsupported media type in request."),
        )
    },
    422: {
        "A key of another request": _of(
            "idempotency_key_reused",
            "Unprocessable Entity",
            "this key was used for another request",
            ("Idempotency-Key", "idempotency_key_reused", "this key was used for another request"),
        )
    },
    429: {
        "Too many requests": _of(
            "too_many_requests",
            "Too Many Requests",
            "You have asked too often of late; go on a little later.",
        ),
        "Too many tries": _of(
            "too_many_tries", "Too Many Requests", "Too many tries have failed; try again later."
        ),
        "A full queue": _of(
            "queue_full",
            "Too Many Requests",
            "queue 'mail' holds as many jobs as it may",
            ("queue", "queue_full", "queue 'mail' holds as many jobs as it may"),
        ),
        "Too many streams": _of(
            "too_many_streams", "Too Many Requests", "Too many answers are being streamed."
        ),
    },
    431: {
        "Too large a header": _of(
            "invalid_request",
            "Request Header Fields Too Large",
            "This is not a request that can be read.",
            ("request", "invalid", "Request Header Fields Too Large"),
        )
    },
    503: {
        "The database does not answer": _of(
            "cluster_unreachable",
            "Service Unavailable",
            "This cannot be answered at the moment; try again later.",
        ),
        "It takes too long": _of(
            "timeout",
            "Service Unavailable",
            "This cannot be answered at the moment; try again later.",
        ),
    },
}
