"""What every request and every answer passes."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import structlog
from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from uuid_utils import uuid7

from authn.addresses import client_address, is_within
from authn.transport import is_in_the_clear
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
_PAGE = {
    **_SHARED,
    # Without a referrer browsers call the origin of a form `null`, and no form could be sent.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Frame-Options": "DENY",
}
_NO_FRAMES = "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
# Inline styles, because Swagger's page has some; scripts come from files only.
PAGE_HEADERS = {
    **_PAGE,
    "Content-Security-Policy": (
        f"default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; {_NO_FRAMES}"
    ),
}
# The theme's scripts work out expressions that stand in the page, and it writes styles there.
ADMIN_HEADERS = {
    **_PAGE,
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        f"{_NO_FRAMES}"
    ),
}


class ClientAddressMiddleware:
    """Behind proxies that are trusted: let a request come from where they say it does, and how."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        meta = request.META
        if settings.TRUSTED_PROXIES and "HTTP_X_FORWARDED_PROTO" in meta:
            _take_scheme(meta)
        if settings.TRUSTED_PROXIES and "HTTP_X_FORWARDED_FOR" in meta:
            meta["REMOTE_ADDR"] = client_address(
                meta.get("REMOTE_ADDR", ""), meta["HTTP_X_FORWARDED_FOR"], settings.TRUSTED_PROXIES
            )
        return self.get_response(request)


def _take_scheme(meta: Any) -> None:
    """Believe a trusted proxy, and all before it, that TLS ended there; the client is not asked."""
    peer = meta.get("REMOTE_ADDR", "")
    if peer and not is_within(peer, settings.TRUSTED_PROXIES):
        return
    hops = meta["HTTP_X_FORWARDED_PROTO"].split(",")
    # Also down: what a client sent in the clear is not made safe by TLS behind the proxy.
    is_safe = all(hop.strip() == "https" for hop in hops)
    meta["wsgi.url_scheme"] = "https" if is_safe else "http"


class PlainPagesMiddleware:
    """Where TLS is required: no page of the screen, nor a form with a password, in the clear."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        if is_page(request.path_info) and is_in_the_clear(request):
            text = "This page is shown over HTTPS only.\n"
            return HttpResponse(text, status=403, content_type="text/plain; charset=utf-8")
        return self.get_response(request)


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
        wanted = API_HEADERS
        if is_page(path):
            wanted = ADMIN_HEADERS
        elif path.rstrip("/") == self.swagger:
            wanted = PAGE_HEADERS
        headers = response.headers
        for name, value in wanted.items():
            headers.setdefault(name, value)
        # Django's own middleware has set one and the same for all.
        headers["Referrer-Policy"] = wanted["Referrer-Policy"]
        if "Server" in headers:
            del headers["Server"]
        return response
