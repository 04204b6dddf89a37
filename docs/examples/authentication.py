"""Callers by code of one's own: one example for each of the five override points.

    YARDMASTER_IDENTITY_PROVIDER=docs.examples.authentication.by_trusted_header
    YARDMASTER_AUTHORISATION_PROVIDER=docs.examples.authentication.nothing_on_sundays
    YARDMASTER_API_KEY_PROVIDER=docs.examples.authentication.key_of_a_vault
    YARDMASTER_USER_PROVIDER=docs.examples.authentication.user_of_a_file
    YARDMASTER_JWT_PROVIDER=docs.examples.authentication.opaque_token

A ``Principal`` has a name, the actor that records of deeds name, and a role per cluster (``*``: all).
What goes on in the background, such as a bulk operation, asks again by the actor: `user:ann` is our user
ann and `key:ci` our key ci; for any other word nobody answers, and the work stops.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime

from django.http import HttpRequest

from authn.principal import Principal

# Only a proxy that drops this header from what clients send may be let through to the server.
TRUSTED_HEADER = "HTTP_X_SSO_USER"


def by_trusted_header(request: HttpRequest) -> Principal | None:
    """Identity: a proxy has signed the caller in. In the place of keys, passwords and tokens."""
    name = request.META.get(TRUSTED_HEADER, "")
    return Principal(name, f"sso:{name}", {"*": "viewer"}) if name else None


def nothing_on_sundays(principal: Principal, verb: str, cluster_id: str | None) -> bool:
    """Authorisation: on Sundays people only look. Asked after the roles, and can only refuse."""
    return verb.endswith((".read", ".list")) or today() != 6


def today() -> int:
    return datetime.now(UTC).weekday()


# SHA-256 of each key, as a vault may hand them out.
VAULT = {
    "6298121825d223b2e36a42a5bd25d93dd7ad178d314f823964f3b535da875507": ("billing", "operator"),
}


def key_of_a_vault(text: str) -> Principal | None:
    """API key: one that a vault knows. None: our own keys are asked."""
    found = VAULT.get(hashlib.sha256(text.encode()).hexdigest())
    if found is None:
        return None
    name, role = found
    return Principal(name, f"vault:{name}", {"*": role})


# Iterations, salt and hash, in hexadecimal: PBKDF2-HMAC-SHA256 of `correct horse`.
FILE = {
    "dora": "100000.000102030405060708090a0b0c0d0e0f."
    "57f2c2f0739748d516419b062a884666323c583ea4ae165504a81f7b53c62a09",
}


def user_of_a_file(name: str) -> tuple[str, Callable[[str], bool], Principal] | None:
    """User: what is stored of his password, what checks it, and who he is. None: our users are asked."""
    stored = FILE.get(name)
    if stored is None:
        return None
    return (
        stored,
        lambda password: _is_right(password, stored),
        Principal(name, f"file:{name}", {"*": "viewer"}),
    )


def _is_right(password: str, stored: str) -> bool:
    iterations, salt, kept = stored.split(".")
    found = hashlib.pbkdf2_hmac(
        "sha256", password.encode(), bytes.fromhex(salt), int(iterations), 32
    )
    return hmac.compare_digest(found.hex(), kept)


SESSIONS = {"opaque-session-of-carla": "carla"}


def opaque_token(text: str) -> Principal | None:
    """JWT: whatever stands behind the scheme, here a word that a session store knows."""
    name = SESSIONS.get(text)
    return Principal(name, f"session:{name}", {"alpha": "admin"}) if name else None
