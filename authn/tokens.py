"""JSON Web Tokens: our own, and those of the issuers that the configuration names.

What a token says of itself decides nothing: its issuer finds the one algorithm and the keys that are
configured for it. Roles are read from our own tables at each request, or follow from a claim where the
issuer's table says so.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import IntegrityError, transaction
from rest_framework.exceptions import APIException
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenBackendError
from rest_framework_simplejwt.tokens import AccessToken

from authn import providers
from authn.configuration import Issuer
from authn.key_material import BadKey, read_key_set
from authn.models import UsedToken
from authn.principal import Principal, principal_with
from authn.users import principal_of
from clusters.routers import CONTROL
from config.parsers import parse_json

logger = logging.getLogger(__name__)

MAX_LENGTH = 8192
LEEWAY_SECONDS = 30
MAX_SUBJECT = 150
# Headers by which a token would choose its key, or change what its other words mean.
REFUSED_HEADERS = frozenset({"jku", "jwk", "x5u", "x5c", "crit", "b64", "zip", "enc"})
_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\Z")
_LATEST = 1 << 40
_MAX_VALUES = 500
# The claim of our own tokens that are good for one request.
ONE_TIME = "once"
MAX_TOKEN_ID = 200
# Longer than clocks differ, or a token could be good once more after it was forgotten.
_KEPT_AFTER = timedelta(hours=1)
_CLEAR_ONE_IN = 50
# The end of the year 9000, which databases can still hold.
_LATEST_KEPT = 221_845_392_000


class Issued(NamedTuple):
    text: str
    expires_at: datetime


def issue(user: Any, lifetime: timedelta | None = None, *, is_one_time: bool = False) -> Issued:
    """A token for a user, good until it expires, he is barred or his password changes.

    One for one time is good for one request, whichever comes first.
    """
    token = AccessToken()
    if lifetime is not None:
        token.set_exp(from_time=token.current_time, lifetime=lifetime)
    token["sub"] = user.get_username()
    token["pwd"] = _password_mark(user)
    if is_one_time:
        token[ONE_TIME] = True
    return Issued(str(token), datetime.fromtimestamp(token["exp"], UTC))


def find_principal(text: str) -> Principal | None:
    """The caller a token stands for, or None for every token that is not good."""
    provided = providers.token_holder(text)
    if provided is not None:
        return provided
    taken = _taken_apart(text)
    if taken is None:
        return None
    header, claims = taken
    issuer = claims["iss"]
    if issuer == settings.JWT_ISSUER:
        return _of_own(text, header)
    known = settings.AUTH.issuers.get(issuer)
    return None if known is None else _of_issuer(known, text, header)


# -- Before anything is checked with a key ---------------------------------------------------------


def _taken_apart(text: str) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Header and claims of what is written as a token must be; nothing of it is true yet."""
    if len(text) > MAX_LENGTH or (match := _PARTS.match(text)) is None:
        return None
    header, claims = _read(match[1]), _read(match[2])
    if header is None or claims is None or not REFUSED_HEADERS.isdisjoint(header):
        return None
    if header.get("typ", "JWT") not in ("JWT", "at+jwt") or not isinstance(header.get("alg"), str):
        return None
    if not (_is_moment(claims.get("exp")) and _is_moment(claims.get("iat"))):
        return None
    subject, issuer, audience = (claims.get(name) for name in ("sub", "iss", "aud"))
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT:
        return None
    if not isinstance(issuer, str) or not audience:
        return None
    return header, claims


def _is_moment(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < _LATEST


def _read(part: str) -> dict[str, Any] | None:
    """An object, in which no name comes twice; bounded in depth and in the number of values."""
    try:
        raw = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        value = parse_json(raw, _MAX_VALUES)
    except (APIException, ValueError, binascii.Error):
        return None
    return value if isinstance(value, dict) else None


def _checked(
    backend: TokenBackend | None, text: str, header: Mapping[str, Any], lifetime: float
) -> dict[str, Any] | None:
    """The claims of a token whose signature, issuer, audience and times are right."""
    if backend is None or header["alg"] != backend.algorithm:
        return None
    try:
        claims = backend.decode(text)  # type: ignore[arg-type]
    except (TokenBackendError, ValueError, TypeError, OverflowError):
        return None
    if claims["exp"] - claims["iat"] > lifetime + 2 * LEEWAY_SECONDS:
        return None
    return claims


# -- Our own ---------------------------------------------------------------------------------------


def _of_own(text: str, header: Mapping[str, Any]) -> Principal | None:
    claims = _checked(AccessToken().get_token_backend(), text, header, settings.JWT_MAX_LIFETIME)
    if claims is None or claims.get("token_type") != AccessToken.token_type:
        return None
    user = _user(claims["sub"])
    mark = claims.get("pwd")
    if user is None or not isinstance(mark, str):
        return None
    if not hmac.compare_digest(mark.encode(), _password_mark(user).encode()):
        return None
    principal = principal_of(user)
    if principal is not None and claims.get(ONE_TIME) and not _spend(claims):
        return None
    return principal


def _password_mark(user: Any) -> str:
    """Tells one password of a user from the next, and nothing about either."""
    text = f"password of a token:{user.pk}:{user.password}"
    return hmac.digest(settings.SECRET_KEY.encode(), text.encode(), hashlib.sha256).hex()[:32]


def _user(name: str) -> Any:
    model = get_user_model()
    return model._default_manager.filter(**{model.USERNAME_FIELD: name}).first()


def _spend(claims: Mapping[str, Any]) -> bool:
    """Use up a token; False where somebody did, or where it has no id by which that could be told.

    Of two at the same moment one inserts its row, and the other waits for it.
    """
    token_id = claims.get("jti")
    if not isinstance(token_id, str) or not 0 < len(token_id) <= MAX_TOKEN_ID:
        return False
    digest = hashlib.sha256(f"{claims['iss']}\0{token_id}".encode("utf-8", "replace")).hexdigest()
    expires_at = datetime.fromtimestamp(min(claims["exp"], _LATEST_KEPT), UTC)
    try:
        with transaction.atomic(using=CONTROL):
            UsedToken.objects.create(digest=digest, expires_at=expires_at)
    except IntegrityError:
        return False
    if secrets.randbelow(_CLEAR_ONE_IN) == 0:
        UsedToken.objects.all().over(_KEPT_AFTER).delete()
    return True


# -- Those of others -------------------------------------------------------------------------------


def _of_issuer(issuer: Issuer, text: str, header: Mapping[str, Any]) -> Principal | None:
    claims = _checked(_backend(issuer, header), text, header, issuer.max_lifetime_seconds)
    if claims is None:
        return None
    principal = (
        principal_of(_user(claims["sub"])) if issuer.names_users else _mapped(issuer, claims)
    )
    if principal is not None and issuer.is_one_time and not _spend(claims):
        return None
    return principal


def _backend(issuer: Issuer, header: Mapping[str, Any]) -> TokenBackend | None:
    """What checks the tokens of an issuer. The id of a key is looked up, and is nothing else."""
    keys = issuer.keys if issuer.jwks_file is None else _kept_keys(issuer)
    if None in keys:
        return _made(issuer, keys[None])
    key_id = header.get("kid")
    if key_id is None and len(keys) == 1:
        return _made(issuer, next(iter(keys.values())))
    key = keys.get(key_id) if isinstance(key_id, str) else None
    return None if key is None else _made(issuer, key)


def _made(issuer: Issuer, key: Any) -> TokenBackend:
    return TokenBackend(
        issuer.algorithm,
        signing_key=key,
        verifying_key=key,
        audience=issuer.audience,
        issuer=issuer.issuer,
        leeway=LEEWAY_SECONDS,
    )


def _kept_keys(issuer: Issuer) -> Mapping[str | None, Any]:
    """The keys of the file as it is now; those of the start where it cannot be read any more."""
    path = issuer.jwks_file
    assert path is not None
    try:
        about = path.stat()
        found = _keys_of(path, issuer.algorithm, about.st_mtime_ns, about.st_size, about.st_ino)
    except (OSError, BadKey) as error:
        logger.warning("the keys of issuer %s are those of before: %s", issuer.name, error)
        return issuer.keys
    return found  # type: ignore[return-value]


@lru_cache(maxsize=32)
def _keys_of(path: Path, algorithm: str, *state: int) -> Mapping[str, Any]:
    return read_key_set(path, algorithm)


def _mapped(issuer: Issuer, claims: Mapping[str, Any]) -> Principal:
    """Somebody whom we know by his issuer only; of several roles on a cluster the highest counts."""
    said = claims.get(issuer.roles_claim)
    words = [said] if isinstance(said, str) else said if isinstance(said, list) else []
    given = [issuer.roles[word] for word in words if isinstance(word, str) and word in issuer.roles]
    return principal_with(claims["sub"], f"jwt:{issuer.name}:{claims['sub']}"[:200], given)
