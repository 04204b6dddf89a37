"""What the settings make of the variables about callers; knows nothing of models."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from authn.addresses import Networks, read_networks
from authn.key_material import BadKey, algorithm_of, signing_key, verifying_key

MECHANISMS = ("api_key", "password", "jwt")
LEEWAY_SECONDS = 30
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]*\Z")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,30}\Z")
_AUTHORIZATION = "authorization"
# Headers that mean something else to somebody on the way.
_TAKEN_HEADERS = frozenset(
    {
        _AUTHORIZATION,
        "connection",
        "content-length",
        "content-type",
        "cookie",
        "host",
        "idempotency-key",
        "if-match",
        "origin",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-for",
        "x-request-id",
    }
)


def token_settings(
    text: str, secret_key: str, *, issuer: str, audience: str, lifetime: int, problems: list[str]
) -> dict[str, Any]:
    """How our own tokens are made: by which algorithm, follows from the key."""
    # Without a key of its own: one that nobody could tell from it, and that tells nothing about it.
    derived = hmac.digest(secret_key.encode(), b"yardmaster tokens", hashlib.sha256).hex()
    key: Any = derived
    try:
        if text:
            key = signing_key(text)
        algorithm = algorithm_of(key)
    except BadKey as error:
        problems.append(f"YARDMASTER_JWT_KEY: {error}")
        key, algorithm = derived, "HS256"
    if not issuer or not audience:
        problems.append("YARDMASTER_JWT_ISSUER, YARDMASTER_JWT_AUDIENCE: must not be empty")
    return {
        "ALGORITHM": algorithm,
        "SIGNING_KEY": key,
        "VERIFYING_KEY": verifying_key(key),
        "ISSUER": issuer,
        "AUDIENCE": audience,
        "LEEWAY": LEEWAY_SECONDS,
        "ACCESS_TOKEN_LIFETIME": timedelta(seconds=lifetime),
        "USER_ID_CLAIM": "sub",
        "UPDATE_LAST_LOGIN": False,
    }


def trusted_proxies(texts: Sequence[str], problems: list[str]) -> Networks:
    try:
        return read_networks(texts)
    except ValueError as error:
        problems.append(f"YARDMASTER_TRUSTED_PROXIES: {error}")
        return ()


def credential_problems(
    headers: Mapping[str, str], jwt_scheme: str, issuers: Sequence[str], mechanisms: Sequence[str]
) -> list[str]:
    """What is wrong with the names of headers, and of what they carry."""
    problems, used = [], dict[str, str]()
    for variable, header in headers.items():
        name = header.lower()
        is_token = variable == "YARDMASTER_JWT_HEADER"
        is_taken = name in _TAKEN_HEADERS and not (is_token and name == _AUTHORIZATION)
        if not _HEADER.match(header) or is_taken:
            problems.append(f"{variable}: expected a header of its own, such as x-api-key")
        elif name in used:
            problems.append(f"{variable}: {used[name]} has the same header")
        else:
            used[name] = variable
    if not _SCHEME.match(jwt_scheme) or jwt_scheme.lower() == "basic":
        problems.append("YARDMASTER_JWT_SCHEME: expected a word such as Bearer, and not Basic")
    if (
        jwt_scheme.lower() == "bearer"
        and headers["YARDMASTER_JWT_HEADER"].lower() != _AUTHORIZATION
    ):
        problems.append("YARDMASTER_JWT_SCHEME: Bearer goes with the header Authorization only")
    if len({*issuers}) != len(issuers):
        problems.append(
            "YARDMASTER_AUTH_CONFIG: an issuer is called what YARDMASTER_JWT_ISSUER says"
        )
    if not mechanisms or {*mechanisms} - {*MECHANISMS}:
        problems.append(f"YARDMASTER_AUTH_MECHANISMS: expected some of {', '.join(MECHANISMS)}")
    return problems
