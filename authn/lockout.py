"""The login form counts as the API does: django-axes watches it and asks ``authn.tries``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from axes.handlers.base import AbstractAxesHandler, AxesBaseHandler
from django.contrib.auth import get_user_model
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from authn import refusals, tries
from authn.presented import PASSWORD, Presented
from clusters.acting import ADMIN


class SharedTries(AbstractAxesHandler, AxesBaseHandler):  # type: ignore[misc]
    """Keeps what axes notices where the tries of all surfaces are kept, one count for all processes."""

    def is_locked(self, request: HttpRequest, credentials: Mapping[str, Any] | None = None) -> bool:
        return self.get_failures(request, credentials) > 0

    def get_failures(
        self, request: HttpRequest, credentials: Mapping[str, Any] | None = None
    ) -> int:
        """Not how many, but for how many seconds it is too many."""
        request.retry_after = int(tries.blocked_seconds(_subjects(request, credentials)) + 0.999)  # type: ignore[attr-defined]
        return request.retry_after  # type: ignore[attr-defined, no-any-return]

    def user_login_failed(
        self, sender: Any, credentials: dict[str, Any], request: Any = None, **kwargs: Any
    ) -> None:
        if request is None or getattr(request, "axes_locked_out", False):
            # It was refused before anything was tried.
            return
        try:
            tries.count_failure(_subjects(request, credentials))
        except tries.TooManyTries as error:
            refuse(request, error.wait or 1)
            return
        refusals.tell(request, Presented(PASSWORD, user=_name_in(credentials)), ADMIN)

    def user_logged_in(self, sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
        tries.forgive(tries.subjects_of("", user=user.get_username()))

    def user_logged_out(self, sender: Any, request: Any, user: Any, **kwargs: Any) -> None:
        pass


def refuse(request: Any, seconds: float) -> None:
    """Have the middleware of axes answer this request with the page below."""
    request.axes_locked_out = True
    request.retry_after = max(1, int(seconds))


def page(request: HttpRequest, credentials: Any = None, *_: Any) -> HttpResponse:
    """What the form's visitor sees instead of another form."""
    seconds = max(1, getattr(request, "retry_after", 1) or 1)
    response = render(request, "ui/too_many_tries.html", {"seconds": seconds}, status=429)
    response.headers["Retry-After"] = str(seconds)
    return response


def _subjects(request: Any, credentials: Mapping[str, Any] | None) -> list[str]:
    return tries.subjects_of(
        str(request.META.get("REMOTE_ADDR", "")), user=_name_in(credentials) or None
    )


def _name_in(credentials: Mapping[str, Any] | None) -> str:
    said = credentials or {}
    return str(said.get(get_user_model().USERNAME_FIELD) or said.get("username") or "")
