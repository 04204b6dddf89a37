"""Which credential a request presents. The first of these that is there decides; a bad one is not passed
over for the next, and never for nobody:

    1. an API key: in its header, or behind ``Authorization: Bearer`` if it begins with ``ym_``
    2. a user and a password: in their two headers, or HTTP Basic
    3. a JSON Web Token: in its header behind its scheme
    4. whatever else is in one of these headers, which is no credential, and bad
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, NamedTuple

from django.conf import settings

from authn.keys import PREFIX

API_KEY, PASSWORD, JWT, UNUSABLE = "api_key", "password", "jwt", "unusable"


class Presented(NamedTuple):
    """A credential as it was sent: the name of its mechanism, the text, and for a password whose."""

    mechanism: str
    text: str = ""
    user: str = ""


def presented(meta: Mapping[str, Any]) -> Presented | None:
    """The credential of a request that decides; None where there is none at all."""
    found = _first(meta)
    if found is None or found.mechanism in settings.AUTH_MECHANISMS:
        return found
    return Presented(UNUSABLE)


def _first(meta: Mapping[str, Any]) -> Presented | None:
    scheme, rest = _scheme_of(meta.get("HTTP_AUTHORIZATION"))
    own = meta.get(variable_of(settings.API_KEY_HEADER))
    if own is not None:
        return Presented(API_KEY, str(own).strip())
    if scheme == "bearer" and rest.startswith(PREFIX):
        return Presented(API_KEY, rest)
    user, password = (
        meta.get(variable_of(header)) for header in (settings.USER_HEADER, settings.PASSWORD_HEADER)
    )
    if user is not None and password is not None:
        return Presented(PASSWORD, _as_utf8(password), _as_utf8(user))
    if user is not None or password is not None:
        # Whoever sends one half wants to be somebody, and is not nobody.
        return Presented(UNUSABLE)
    if scheme == "basic":
        return _basic(rest)
    token_variable = variable_of(settings.JWT_HEADER)
    if (token := meta.get(token_variable)) is not None:
        scheme, rest = _scheme_of(token)
        if scheme == settings.JWT_SCHEME.lower() and rest:
            return Presented(JWT, rest)
        return Presented(UNUSABLE)
    return Presented(UNUSABLE) if "HTTP_AUTHORIZATION" in meta else None


def variable_of(header: str) -> str:
    """What a WSGI server calls a header."""
    return "HTTP_" + header.upper().replace("-", "_")


def _scheme_of(value: Any) -> tuple[str, str]:
    scheme, _, rest = str(value or "").strip().partition(" ")
    return scheme.lower(), rest.strip()


def _basic(text: str) -> Presented:
    try:
        pair = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, ValueError):
        return Presented(UNUSABLE)
    user, colon, password = pair.partition(":")
    return Presented(PASSWORD, password, user) if colon else Presented(UNUSABLE)


def _as_utf8(value: Any) -> str:
    """What a server reads from a header a byte a character, as it was meant."""
    try:
        return str(value).encode("latin-1").decode()
    except UnicodeError:
        return str(value)
