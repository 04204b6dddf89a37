"""What every request and every answer passes."""

from __future__ import annotations

import re
from collections.abc import Callable

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponseBase
from uuid_utils import uuid7

from config.problems import is_page, problem

GetResponse = Callable[[HttpRequest], HttpResponseBase]

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")

_SHARED = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-cache",
}
API_HEADERS = {
    **_SHARED,
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}
# Inline styles, because the admin's and Swagger's pages have some; scripts come from files only.
PAGE_HEADERS = {
    **_SHARED,
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Frame-Options": "DENY",
}


class RequestIdMiddleware:
    """Give the request an id, the caller's own if it is sound; log lines and the answer carry it."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        given = request.META.get("HTTP_X_REQUEST_ID", "")
        request_id = given if REQUEST_ID.match(given) else str(uuid7())
        request.request_id = request_id  # type: ignore[attr-defined]
        tokens = structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            response = self.get_response(request)
        finally:
            structlog.contextvars.reset_contextvars(**tokens)
        response.headers["X-Request-ID"] = request_id
        return response


class SecurityHeadersMiddleware:
    """Refuse TRACE, and tell browsers what they may do with an answer."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self.swagger = settings.BASE_PATH.rstrip("/") + "/swagger"

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if request.method == "TRACE":
            response: HttpResponseBase = problem(
                request, 405, "method_not_allowed", headers={"Allow": "GET, HEAD, POST"}
            )
        else:
            response = self.get_response(request)
        path = request.path_info
        is_shown = is_page(path) or path.rstrip("/") == self.swagger
        headers = response.headers
        for name, value in (PAGE_HEADERS if is_shown else API_HEADERS).items():
            headers.setdefault(name, value)
        if "Server" in headers:
            del headers["Server"]
        return response
