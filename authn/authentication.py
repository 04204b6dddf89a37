"""Find out who is calling. The first credential that is present decides; none falls through.

``authn.presented`` says which one that is, and one class here takes each mechanism.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from django.conf import settings
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request

from authn import keys, passwords, providers, refusals, tokens, tries
from authn.presented import API_KEY, JWT, PASSWORD, UNUSABLE, Presented, presented
from authn.principal import NATIVE, Principal, anonymous_of
from authn.transport import refuse_in_the_clear
from authn.users import principal_of


class InvalidCredentials(AuthenticationFailed):
    """One text for wrong, malformed, expired and revoked, so that nothing can be told apart."""

    default_detail = "The credentials are not valid."
    default_code = "invalid_credentials"


class CredentialAuthentication(BaseAuthentication):
    """Whoever proves who he is, by any mechanism that the settings leave on."""

    def authenticate(self, request: Request) -> tuple[Principal, str] | None:
        if providers.replaces_credentials():
            refuse_in_the_clear(request._request)
            return self._identified(request)
        credential = presented(request.META)
        if credential is None:
            return None
        refuse_in_the_clear(request._request)
        address = str(request.META.get("REMOTE_ADDR", ""))
        principal = _FIND[credential.mechanism](credential, address)
        if principal is None:
            refusals.tell(request._request, credential, surface_of(request))
            raise InvalidCredentials
        return principal, credential.mechanism

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"

    def _identified(self, request: Request) -> tuple[Principal, str] | None:
        principal = providers.identity_of(request._request)
        if principal is not None:
            return principal, "provided"
        if (credential := presented(request.META)) is not None:
            tries.count_failure(tries.subjects_of(str(request.META.get("REMOTE_ADDR", ""))))
            refusals.tell(request._request, credential, surface_of(request))
            # He shows something, so he is not nobody.
            raise InvalidCredentials
        return None


def surface_of(request: Request) -> str:
    """Where he shows it, as the audit says it."""
    return getattr(request.parser_context.get("view"), "dialect", NATIVE)


def _of_key(credential: Presented, address: str) -> Principal | None:
    principal = keys.find_principal(credential.text, address)
    if principal is None:
        # Counted afterwards: what is right in 256 bits was not guessed, and costs no question more.
        parts = keys.parse_key(credential.text)
        tries.count_failure(tries.subjects_of(address, key=parts[0] if parts else None))
    return principal


def _of_password(credential: Presented, address: str) -> Principal | None:
    return passwords.find_principal(credential.user, credential.text, address)


def _of_token(credential: Presented, address: str) -> Principal | None:
    principal = tokens.find_principal(credential.text)
    if principal is None:
        tries.count_failure(tries.subjects_of(address))
    return principal


def _of_nothing(credential: Presented, address: str) -> Principal | None:
    tries.count_failure(tries.subjects_of(address))
    return None


_FIND = {API_KEY: _of_key, PASSWORD: _of_password, JWT: _of_token, UNUSABLE: _of_nothing}


class AdminSessionAuthentication(BaseAuthentication):
    """Somebody signed in to the screen; only for reading the documentation of the API."""

    def authenticate(self, request: Request) -> tuple[Principal, str] | None:
        if settings.SESSION_COOKIE_NAME in request.COOKIES:
            refuse_in_the_clear(request._request)
        user = getattr(request._request, "user", None)
        principal = principal_of(user)
        if principal is None or not (principal.roles or getattr(user, "is_staff", False)):
            return None
        return principal, "session"

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class OpenNative(BaseAuthentication):
    """Nobody in particular, where the settings do not require anybody to say who he is.

    Comes last: with any credential present, good or bad, it is not asked.
    """

    def authenticate(self, request: Request) -> tuple[Principal, str] | None:
        principal = self.nobody(request)
        if principal is not None and _is_from_another_site(request):
            raise InvalidCredentials
        return None if principal is None else (principal, "anonymous")

    def nobody(self, request: Request) -> Principal | None:
        return anonymous_of(NATIVE)


class OpenDialect(OpenNative):
    """The same for a dialect that the settings open, on the default cluster."""

    def nobody(self, request: Request) -> Principal | None:
        view = request.parser_context["view"]
        if view.kwargs.get("cluster_id") != settings.DEFAULT_CLUSTER_ID:
            return None
        return anonymous_of(getattr(view, "dialect", None))


def _is_from_another_site(request: Request) -> bool:
    """A page of another site has its visitor's browser ask, which may reach what that page cannot."""
    if request.method in SAFE_METHODS:
        return False
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        return True
    origin = request.headers.get("Origin")
    return origin is not None and urlsplit(origin).netloc != request.get_host()
