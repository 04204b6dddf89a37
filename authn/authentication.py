"""Find out who is calling. The first credential that is present decides; none falls through."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from authn.keys import find_principal
from authn.principal import Principal, anonymous_of
from authn.users import principal_of


class InvalidCredentials(AuthenticationFailed):
    """One text for wrong, malformed, expired and revoked, so that nothing can be told apart."""

    default_detail = "The credentials are not valid."
    default_code = "invalid_credentials"


class ApiKeyAuthentication(BaseAuthentication):
    """An API key in the header named by the settings, or as a bearer token."""

    def authenticate(self, request: Request) -> tuple[Principal, str] | None:
        plain = _presented(request.META)
        if plain is None:
            return None
        principal = find_principal(plain)
        if principal is None:
            raise InvalidCredentials
        return principal, "api_key"

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class AdminSessionAuthentication(BaseAuthentication):
    """Somebody signed in to the screen; only for reading the documentation of the API."""

    def authenticate(self, request: Request) -> tuple[Principal, str] | None:
        user = getattr(request._request, "user", None)
        principal = principal_of(user)
        if principal is None or not (principal.roles or getattr(user, "is_staff", False)):
            return None
        return principal, "session"

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class OpenDialect(BaseAuthentication):
    """Nobody in particular, where the settings open a dialect to clients that cannot say who they are.

    Comes last: with any credential present, good or bad, it is not asked.
    """

    def authenticate(self, request: Request) -> tuple[Principal, str] | None:
        view = request.parser_context["view"]
        dialect = getattr(view, "dialect", None)
        if view.kwargs.get("cluster_id") != settings.DEFAULT_CLUSTER_ID:
            return None
        if _is_from_another_site(request):
            raise InvalidCredentials
        principal = anonymous_of(dialect)
        return None if principal is None else (principal, "anonymous")


def _is_from_another_site(request: Request) -> bool:
    """A page of another site has its visitor's browser ask, which may reach what that page cannot."""
    if request.method in SAFE_METHODS:
        return False
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return True
    origin = request.headers.get("Origin")
    return origin is not None and urlsplit(origin).netloc != request.get_host()


def _presented(headers: dict[str, Any]) -> str | None:
    """The text offered as a key, or None where no credential is present at all."""
    own = headers.get(_OWN_HEADER)
    if own is not None:
        return str(own).strip()
    if not _PASSWORD_HEADERS.isdisjoint(headers):
        # Nobody has a password here; whoever sends one wants to be somebody, and is not nobody.
        return ""
    authorization = headers.get("HTTP_AUTHORIZATION")
    if authorization is None:
        return None
    scheme, _, token = str(authorization).strip().partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


_PASSWORD_HEADERS = frozenset({"HTTP_X_USER_NAME", "HTTP_X_PASSWORD"})
_OWN_HEADER = "HTTP_" + settings.API_KEY_HEADER.upper().replace("-", "_")
