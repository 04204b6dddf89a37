"""A page and its live part: the same template, asked for again every few seconds.

The browser sends the version it shows. What has not changed is answered with 204 and stays as it is.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import get_token
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.utils.safestring import SafeString

from clusters.binding import bound_cluster_id, current_cluster
from ui.callers import may
from ui.shared import Shared

VERSION = "UI-Version"
# Stands for the CSRF token, which is written in another way each time, until the version is known.
_TOKEN_MARK = f"csrf-{secrets.token_hex(16)}"


class Part(NamedTuple):
    """A live part as everybody may have it: with a mark in place of each one's token."""

    text: str
    version: str

    def for_(self, request: HttpRequest) -> SafeString:
        text = self.text
        if _TOKEN_MARK in text:
            text = text.replace(_TOKEN_MARK, get_token(request))
        return SafeString(text)  # what a template has made  # nosec B703

    def answer(self, request: HttpRequest) -> HttpResponse:
        return changed(request, self.for_(request), self.version)


shared: Shared[Part] = Shared()


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
    part = _made(request, f"ui/{page}/live.html", {**context, "status": status})
    if is_fragment(request) and status == 200:
        return part.answer(request)
    return _page(site, request, page, context, part, title, status)


def show_shared(
    site: Any,
    request: HttpRequest,
    page: str,
    read: Callable[[], Mapping[str, Any]],
    *,
    title: str,
    about: tuple[Hashable, ...] = (),
    rights: Mapping[str, str] | None = None,
    beside: Mapping[str, Any] | None = None,
) -> HttpResponse:
    """The same for a page that many watch: its live part is the same for all who have the same rights.

    ``about`` tells apart what is asked for, ``rights`` names the verbs that the templates ask after, and
    ``beside`` is what only the page around the part needs.
    """
    allowed = {name: may(request, verb) for name, verb in (rights or {}).items()}

    def made() -> Part:
        return made_for_all(site, f"ui/{page}/live.html", {**read(), **allowed})

    key = (current_cluster().id, page, *about, *allowed.values())
    if is_fragment(request):
        return shared.get(key, made).answer(request)
    part = shared.put(key, made())
    return _page(site, request, page, {**allowed, **(beside or {})}, part, title, 200)


def made_for_all(site: Any, template: str, context: Mapping[str, Any]) -> Part:
    """A part in which nothing is of the one who asks: it is made as for nobody."""
    nobody = HttpRequest()
    nobody.current_app = site.name
    return _made(nobody, template, context)


def fragment(
    request: HttpRequest, template: str, context: Mapping[str, Any]
) -> tuple[SafeString, str]:
    """A live part and its version."""
    part = _made(request, template, context)
    return part.for_(request), part.version


def changed(request: HttpRequest, live: str, version: str) -> HttpResponse:
    """The live part, or 204 where the browser shows this version."""
    if request.headers.get(VERSION) == version:
        return HttpResponse(status=204)
    return HttpResponse(live, headers={VERSION: version})


def _made(request: HttpRequest, template: str, context: Mapping[str, Any]) -> Part:
    cluster = current_cluster() if bound_cluster_id() else None
    everywhere = {"csrf": _TOKEN_MARK, "cluster": cluster}
    text: str = render_to_string(template, {**everywhere, **context}, request)
    # Without the mark: every process has another one.
    version = hashlib.sha256(text.replace(_TOKEN_MARK, "").encode()).hexdigest()[:16]
    return Part(text, version)


def _page(
    site: Any,
    request: HttpRequest,
    page: str,
    context: Mapping[str, Any],
    part: Part,
    title: str,
    status: int,
) -> HttpResponse:
    return TemplateResponse(
        request,
        f"ui/{page}/page.html",
        {
            **site.each_context(request),
            **context,
            "title": title,
            "subtitle": None,
            "live": part.for_(request),
            "live_url": request.get_full_path(),
            "live_version": part.version,
        },
        status=status,
    )
