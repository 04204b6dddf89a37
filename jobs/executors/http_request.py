"""The payload of an ``http`` job. Pure, so that the API checks it without loading an HTTP client.

    {"method": "POST", "url": "https://api.example.com/orders", "headers": {"Accept": "text/plain"},
     "json": {"id": 7}, "expected_status": ["2xx", 409], "follow_redirects": false,
     "timeout_seconds": 10, "retry_status": [500, 503]}

Only ``url`` is needed. ``body`` is text, sent as ``content_type`` unless a header says what it is, and
excludes ``json``. Without ``expected_status`` any 2xx will do. Of answers that will not do, only those in
``retry_status`` are tried again; without it those that may pass by themselves. ``timeout_seconds`` is for
the request, all redirects included, below the timeout of the job.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.errors import InvalidJob
from jobs.executors.address_guard import AddressRefused, Target, read_url

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# These change nothing on the other side, so a lost answer leaves no doubt.
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
KEYS = (
    "method",
    "url",
    "headers",
    "body",
    "content_type",
    "json",
    "expected_status",
    "retry_status",
    "follow_redirects",
    "timeout_seconds",
)

MAX_HEADERS = 50
MAX_HEADER_BYTES = 8 << 10
MAX_BODY_BYTES = 1 << 20
MAX_EXPECTED = 50
MAX_TIMEOUT_SECONDS = 7 * 86400

_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE = re.compile(r"[\t\x20-\x7e]*")
_CLASS = re.compile(r"[1-5]xx")
# Framing and routing belong to the client, and what a called system relies on to us.
_RESERVED = frozenset(
    (
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "idempotency-key",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-job-attempt",
        "x-job-fence",
        "x-job-id",
    )
)


@dataclass(frozen=True, slots=True)
class HttpRequest:
    method: str
    target: Target
    headers: Mapping[str, str]
    body: bytes | None
    expected_status: frozenset[int]
    follow_redirects: bool
    # None: those that may pass by themselves.
    retry_status: frozenset[int] | None = None
    timeout_seconds: float | None = None


def validate(payload: Any) -> None:
    """Raise ``InvalidJob``, naming the field, when no node could ever run this payload."""
    read(payload)


def read(payload: Any) -> HttpRequest:
    """Return the request a payload describes, or raise ``InvalidJob``."""
    if not isinstance(payload, dict):
        raise InvalidJob("the payload of an http job is an object", field="payload")
    for key in payload:
        if key not in KEYS:
            raise InvalidJob(
                f"unknown; an http job has {', '.join(KEYS)}", field=f"payload.{str(key)[:40]}"
            )
    method = payload.get("method", "GET")
    if method not in METHODS:
        raise InvalidJob(f"one of {', '.join(METHODS)}", field="payload.method")
    follow_redirects = payload.get("follow_redirects", False)
    if not isinstance(follow_redirects, bool):
        raise InvalidJob("true or false", field="payload.follow_redirects")
    headers = _read_headers(payload.get("headers", {}))
    body, content_type = _read_body(payload)
    if content_type and not any(name.lower() == "content-type" for name in headers):
        headers["Content-Type"] = content_type
    return HttpRequest(
        method,
        _read_target(payload.get("url")),
        headers,
        body,
        _read_statuses(payload.get("expected_status", ["2xx"]), "payload.expected_status"),
        follow_redirects,
        _read_statuses(payload["retry_status"], "payload.retry_status")
        if "retry_status" in payload
        else None,
        _read_timeout(payload.get("timeout_seconds")),
    )


def _read_target(url: Any) -> Target:
    if not isinstance(url, str):
        raise InvalidJob("a URL is needed", field="payload.url")
    try:
        return read_url(url)
    except AddressRefused as error:
        raise InvalidJob(str(error), field="payload.url") from None


def _read_headers(headers: Any) -> dict[str, str]:
    if not isinstance(headers, dict):
        raise InvalidJob("an object of names and values", field="payload.headers")
    if len(headers) > MAX_HEADERS:
        raise InvalidJob(f"at most {MAX_HEADERS} headers", field="payload.headers")
    size = 0
    seen = set()
    for name, value in headers.items():
        if not isinstance(name, str) or not _TOKEN.fullmatch(name):
            raise InvalidJob(f"{str(name)[:40]!r} is not a header name", field="payload.headers")
        field = f"payload.headers.{name[:40]}"
        lower = name.lower()
        if lower in _RESERVED or lower.startswith("proxy-"):
            raise InvalidJob("this header is set by the client itself", field=field)
        if lower in seen:
            raise InvalidJob("this header is given twice", field=field)
        # A line end in a value would begin a header, or a whole request, of somebody else's making.
        if not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise InvalidJob("a header value is printable ASCII", field=field)
        seen.add(lower)
        size += len(name) + len(value)
    if size > MAX_HEADER_BYTES:
        raise InvalidJob(f"at most {MAX_HEADER_BYTES} bytes of headers", field="payload.headers")
    return dict(headers)


def _read_body(payload: Mapping[str, Any]) -> tuple[bytes | None, str | None]:
    """Return the bytes to send and what they are, unless a header says it better."""
    if "content_type" in payload and "body" not in payload:
        raise InvalidJob("goes with body; a header says it as well", field="payload.content_type")
    if "json" in payload:
        if "body" in payload:
            raise InvalidJob("give body or json, not both", field="payload.body")
        field, content_type = "payload.json", "application/json"
        try:
            text = json.dumps(
                payload["json"], allow_nan=False, ensure_ascii=False, separators=(",", ":")
            )
        except (TypeError, ValueError, RecursionError):
            raise InvalidJob("not a JSON value", field=field) from None
    elif "body" in payload:
        field, content_type = "payload.body", _read_content_type(payload)
        text = payload["body"]
        if not isinstance(text, str):
            raise InvalidJob("a string; use json for other values", field=field)
    else:
        return None, None
    try:
        body = text.encode()
    except UnicodeEncodeError:
        raise InvalidJob("not Unicode text: it holds half a character", field=field) from None
    if len(body) > MAX_BODY_BYTES:
        raise InvalidJob(f"at most {MAX_BODY_BYTES} bytes", field=field)
    return body, content_type


def _read_content_type(payload: Mapping[str, Any]) -> str:
    value = payload.get("content_type", "text/plain; charset=utf-8")
    if not isinstance(value, str) or not value or not _VALUE.fullmatch(value):
        raise InvalidJob("a media type such as text/csv", field="payload.content_type")
    return value


def _read_timeout(value: Any) -> float | None:
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 < value <= MAX_TIMEOUT_SECONDS:
        raise InvalidJob(
            f"a number of seconds above 0, at most {MAX_TIMEOUT_SECONDS}",
            field="payload.timeout_seconds",
        )
    return float(value)


def _read_statuses(expected: Any, field: str) -> frozenset[int]:
    if not isinstance(expected, list) or not 1 <= len(expected) <= MAX_EXPECTED:
        raise InvalidJob(f'a list of up to {MAX_EXPECTED} codes such as 204 or "2xx"', field=field)
    codes: set[int] = set()
    for item in expected:
        if isinstance(item, str) and _CLASS.fullmatch(item):
            first = int(item[0]) * 100
            codes.update(range(first, first + 100))
        elif type(item) is int and 100 <= item <= 599:
            codes.add(item)
        else:
            raise InvalidJob('each is a code such as 204, or "2xx"', field=field)
    return frozenset(codes)
