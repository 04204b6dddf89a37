"""The five places where a host brings code of its own, each a dotted path in the settings.

    identity        request -> Principal or None; in the place of all credentials below
    API key         text of a key -> Principal or None; asked before our own keys
    user            name -> (stored, verify, Principal) or None; asked before our own users
    JWT             text of a token -> Principal or None; asked before our own issuers
    authorisation   (Principal, verb, cluster id) -> bool; may only refuse what the roles allow

``docs/examples/authentication.py`` has one of each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest
from django.utils.module_loading import import_string

from authn.principal import Principal

NAMES = (
    "IDENTITY_PROVIDER",
    "AUTHORISATION_PROVIDER",
    "API_KEY_PROVIDER",
    "USER_PROVIDER",
    "JWT_PROVIDER",
)
Verifier = Callable[[str], bool]


def replaces_credentials() -> bool:
    return bool(settings.IDENTITY_PROVIDER)


def identity_of(request: HttpRequest) -> Principal | None:
    return _answer("IDENTITY_PROVIDER", request)


def key_holder(text: str) -> Principal | None:
    return _answer("API_KEY_PROVIDER", text)


def token_holder(text: str) -> Principal | None:
    return _answer("JWT_PROVIDER", text)


def user_named(name: str) -> tuple[str, Verifier, Principal] | None:
    path = settings.USER_PROVIDER
    found: tuple[str, Verifier, Principal] | None = import_string(path)(name) if path else None
    return found


def permits(principal: Principal, verb: str, cluster_id: str | None) -> bool:
    """Whether the host's own rule lets this caller do what his role covers."""
    path = settings.AUTHORISATION_PROVIDER
    return not path or import_string(path)(principal, verb, cluster_id) is True


def _answer(name: str, argument: Any) -> Principal | None:
    path = getattr(settings, name)
    found: Principal | None = import_string(path)(argument) if path else None
    return found
