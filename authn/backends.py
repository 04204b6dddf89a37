"""How the login form checks a password: not while too many were wrong, and one at a time."""

from __future__ import annotations

from typing import Any

from axes.backends import AxesStandaloneBackend
from django.contrib.auth.backends import ModelBackend
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from authn.hashing import Busy, gate
from authn.lockout import refuse
from authn.passwords import BUSY_SECONDS


class PasswordBackend(AxesStandaloneBackend, ModelBackend):  # type: ignore[misc]
    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> Any:
        if request is not None:
            super().authenticate(request, username=username, password=password, **kwargs)
        try:
            with gate.passed():
                user = ModelBackend.authenticate(
                    self, request, username=username, password=password, **kwargs
                )
        except Busy:
            if request is not None:
                refuse(request, BUSY_SECONDS)
            raise PermissionDenied from None
        if user is None:
            gate.saw_failure()
        return user
