"""A page and its live part: the same template, asked for again every few seconds.

The browser sends the version it shows. What has not changed is answered with 204 and stays as it is.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString

from clusters.binding import bound_cluster_id, current_cluster

VERSION = "UI-Version"
# Stands for the CSRF token, which is written in another way each time, until the version is known.
_TOKEN_MARK = f"csrf-{secrets.token_hex(16)}"


def is_fragment(request: HttpRequest) -> bool:
    """Whether only the live part is asked for."""
    return request.headers.get("HX-Request") == "true" and VERSION in request.headers


def show(
    site: Any,
    request: HttpRequest,
    page: str,
    context: Mapping[str, Any],
    *,
    title: str,
    status: int = 200,
) -> HttpResponse:
    """The page ``ui/<page>/page.html`` around its ``live.html``, or the latter alone."""
    live, version = fragment(request, f"ui/{page}/live.html", {**context, "status": status})
    if is_fragment(request) and status == 200:
        return changed(request, live, version)
    return TemplateResponse(
        request,
        f"ui/{page}/page.html",
        {
            **site.each_context(request),
            **context,
            "title": title,
            "subtitle": None,
            "live": live,
            "live_url": request.get_full_path(),
            "live_version": version,
        },
        status=status,
    )


def fragment(
    request: HttpRequest, template: str, context: Mapping[str, Any]
) -> tuple[SafeString, str]:
    """A live part and its version."""
    cluster = current_cluster() if bound_cluster_id() else None
    everywhere = {"csrf": _TOKEN_MARK, "cluster": cluster}
    text: str = render_to_string(template, {**everywhere, **context}, request)
    # Without the mark: every process has another one.
    version = hashlib.sha256(text.replace(_TOKEN_MARK, "").encode()).hexdigest()[:16]
    if _TOKEN_MARK in text:
        text = text.replace(_TOKEN_MARK, get_token(request))
    return SafeString(text), version  # what a template has made  # nosec B703


def changed(request: HttpRequest, live: str, version: str) -> HttpResponse:
    """The live part, or 204 where the browser shows this version."""
    if request.headers.get(VERSION) == version:
        return HttpResponse(status=204)
    return HttpResponse(live, headers={VERSION: version})
