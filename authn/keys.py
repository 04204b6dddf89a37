"""API keys: ``ym_<public id>_<secret>``.

The public id finds the row, the secret of 256 random bits proves the key, and only its SHA-256 is kept.
Both parts are hexadecimal, so there is one way to write a key and one way to take it apart. Scanners for
leaked secrets know them by ``ym_``. Keys of the configuration may be any text of some length.

What a key may do is a gift of whoever makes it, rotates it or changes it, so he must have all of it
himself. To revoke a key takes nothing but the right to, on each of its clusters.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from django.conf import settings
from django.db import DatabaseError, IntegrityError, connections, transaction

from authn import providers
from authn.addresses import is_within, kept_networks, read_networks
from authn.configuration import ConfiguredKey
from authn.errors import DuplicateKey, InvalidAccess, KeyEnded
from authn.models import USE_NOTED_EVERY, ApiKey, RoleBinding
from authn.principal import Principal, principal_with
from authn.reach import check_clusters, check_gift, check_role
from clusters.deeds import access_deed, differences
from clusters.routers import CONTROL

logger = logging.getLogger(__name__)

PREFIX = "ym_"
KEY = re.compile(r"ym_([0-9a-f]{16})_([0-9a-f]{64})\Z")
MAX_LENGTH = 1024
MAX_NAME = 100
MAX_GRACE = timedelta(days=90)
# Compared where there is no such key, so that an unknown id costs what a wrong secret does.
_NOBODYS_DIGEST = hashlib.sha256(secrets.token_bytes(32)).digest()


def create_key(
    name: str,
    role: str,
    clusters: Iterable[str],
    grants: Iterable[str] = (),
    expires: datetime | None = None,
    *,
    owner: str = "",
    addresses: Iterable[str] = (),
) -> tuple[ApiKey, str]:
    """Store a new key with one role on these clusters (``*``: all); its text is never seen again."""
    public_id, secret = secrets.token_hex(8), secrets.token_hex(32)
    clusters, kinds = [*dict.fromkeys(clusters)], sorted({*grants})
    asked = {"name": name, "owner": owner, "expires_at": expires, "addresses": addresses}
    check_clusters(clusters)
    check_role(role)
    with (
        _names_are_unique(),
        access_deed("keys.create", "api_key", name, on=clusters) as trace,
    ):
        columns = _checked(asked)
        for cluster_id in clusters:
            check_gift(cluster_id, kinds)
        trace.after = {
            "public_id": public_id,
            "role": role,
            "clusters": clusters,
            "granted_kinds": kinds,
            "expires_at": expires,
            "owner": owner,
            "addresses": columns["addresses"],
        }
        key = ApiKey.objects.create(public_id=public_id, digest=digest_of(secret), **columns)
        RoleBinding.objects.bulk_create(
            RoleBinding(api_key=key, cluster_id=cluster_id, role=role, granted_kinds=kinds)
            for cluster_id in clusters
        )
    return key, f"{PREFIX}{public_id}_{secret}"


def change_key(key: ApiKey, values: Mapping[str, Any], *, reason: str = "") -> bool:
    """Change its name, owner, expiry or addresses; False where all of it is so already.

    What a key did under another name is told under that one, and work that goes on in the background
    asks for the rights of that name: a schedule that needs a grant is to be written anew.
    """
    deed = access_deed("keys.change", "api_key", key.name, on=_clusters_of(key), reason=reason)
    with _names_are_unique(), deed as trace:
        stored = ApiKey.objects.select_for_update().filter(pk=key.pk, revoked_at=None).first()
        if stored is None:
            raise KeyEnded("the key was revoked")
        columns = _checked(values, known_as=stored.name)
        _check_gifts(stored)
        before = {name: getattr(stored, name) for name in columns}
        trace.before, trace.after = differences(before, columns)
        trace.is_done = bool(trace.after)
        if trace.is_done:
            ApiKey.objects.filter(pk=key.pk).update(**columns)
    return trace.is_done


def rotate_key(key: ApiKey, keep_old: timedelta) -> str | None:
    """Give a valid key a new text; the old one is good for so much longer. None where it is not valid."""
    if not timedelta(0) <= keep_old <= MAX_GRACE:
        text = f"the old text may be good for {MAX_GRACE.days} days at most"
        raise InvalidAccess(text, field="grace_seconds")
    secret = secrets.token_hex(32)
    with access_deed("keys.change", "api_key", key.name, on=_clusters_of(key)) as trace:
        _check_gifts(key)
        trace.after = {"is_rotated": True, "old_good_for_seconds": keep_old.total_seconds()}
        rows = ApiKey.objects.filter(pk=key.pk)
        trace.is_done = rows.replace_secret(digest_of(secret), keep_old=keep_old) > 0
    return f"{PREFIX}{key.public_id}_{secret}" if trace.is_done else None


def parse_key(plain: str) -> tuple[str, str] | None:
    """The public id and the secret of a well-formed key."""
    match = KEY.match(plain)
    return (match[1], match[2]) if match else None


def find_principal(plain: str, address: str | None = None) -> Principal | None:
    """The caller a key stands for, or None for every key that is not good, whatever is wrong with it.

    Where from it comes is asked only if an address is given.
    """
    provided = providers.key_holder(plain)
    if provided is not None:
        return provided
    if settings.AUTH.keys and len(plain) <= MAX_LENGTH:
        configured = settings.AUTH.keys.get(digest_of(plain))
        if configured is not None:
            return _of_configured(configured, address)
    parts = parse_key(plain)
    return None if parts is None else _of_stored(*parts, address)


class _Row(NamedTuple):
    """A valid key with one of its roles."""

    name: str
    digest: Any
    previous_digest: Any
    previous_until: Any
    addresses: Any
    last_used_at: Any
    id: int
    cluster_id: str | None
    role: str
    granted_kinds: Any


def _of_stored(public_id: str, secret: str, address: str | None) -> Principal | None:
    with connections[CONTROL].cursor() as cursor:
        cursor.execute(_question(), [public_id])
        rows = [_Row(*row) for row in cursor.fetchall()]
    key = rows[0] if rows else None
    if not _is_secret_of(key, secret) or key is None:
        return None
    if address is not None and not _may_come_from(address, key.addresses):
        return None
    _note_use(key)
    bindings = [
        (row.cluster_id, row.role, json.loads(row.granted_kinds))
        for row in rows
        if row.cluster_id is not None
    ]
    return Principal(
        name=key.name,
        actor=f"key:{key.name}",
        roles={cluster_id: role for cluster_id, role, _ in bindings},
        granted_kinds={cluster_id: frozenset(kinds) for cluster_id, _, kinds in bindings},
    )


def _is_secret_of(key: _Row | None, secret: str) -> bool:
    """Compare with both secrets that a key can have, or with nobody's, in the same time."""
    digest = digest_of(secret)
    kept = bytes(key.digest) if key else _NOBODYS_DIGEST
    has_previous = key is not None and key.previous_digest is not None
    previous = bytes(key.previous_digest) if key and has_previous else _NOBODYS_DIGEST
    is_kept = hmac.compare_digest(digest, kept)
    is_previous = hmac.compare_digest(digest, previous)
    if key is not None and is_previous and has_previous:
        return _moment(key.previous_until) > datetime.now(UTC)
    return is_kept and key is not None


def _may_come_from(address: str, stored: Any) -> bool:
    if stored in ("[]", b"[]", None):
        return True
    return is_within(address, kept_networks(tuple(json.loads(stored))))


def _note_use(key: _Row) -> None:
    """Note that a key was used, where that was not done within the last minute."""
    last = key.last_used_at
    if last is not None and datetime.now(UTC) - _moment(last) < USE_NOTED_EVERY:
        return
    try:
        with transaction.atomic(using=CONTROL):
            ApiKey.objects.filter(pk=key.id).say_used()
    except DatabaseError:
        # Nobody is turned away because this could not be written down.
        logger.warning("the use of the key %s was not noted", key.name, exc_info=True)


def _moment(value: Any) -> datetime:
    """A time as a cursor brings it: SQLite has none of its own."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)  # type: ignore[no-any-return]


def _of_configured(key: ConfiguredKey, address: str | None) -> Principal | None:
    if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
        return None
    if address is not None and key.networks and not is_within(address, key.networks):
        return None
    return principal_of_configured(key)


def principal_of_configured(key: ConfiguredKey) -> Principal:
    return principal_with(key.name, f"key:{key.name}", [key.given])


@lru_cache(maxsize=1)
def _question() -> str:
    """The SQL that reads a valid key and all its roles, a row each; its parameter is the public id.

    Written by the ORM, once a process: every request asks it, and to write it takes longer than to ask.
    """
    rows = (
        ApiKey.objects.all()
        .valid()
        .filter(public_id="")
        .values_list(
            "name",
            "digest",
            "previous_digest",
            "previous_until",
            "addresses",
            "last_used_at",
            "id",
            "role_bindings__cluster_id",
            "role_bindings__role",
            "role_bindings__granted_kinds",
        )
    )
    sql, parameters = rows.query.sql_with_params()
    assert parameters == ("",)
    return str(sql)


def digest_of(text: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


# -- Rules of what is stored -----------------------------------------------------------------------


def _clusters_of(key: ApiKey) -> list[str]:
    return [*RoleBinding.objects.filter(api_key=key).values_list("cluster_id", flat=True)]


def _check_gifts(key: ApiKey) -> None:
    for binding in RoleBinding.objects.filter(api_key=key):
        check_gift(binding.cluster_id, binding.granted_kinds)


def _checked(values: Mapping[str, Any], known_as: str = "") -> dict[str, Any]:
    """Columns of a key as they will be stored."""
    columns = dict(values)
    for name, least in (("name", 1), ("owner", 0)):
        text = columns.get(name, known_as or "x")
        if not least <= len(text) <= MAX_NAME or not text.isprintable():
            problem = f"must have {least} to {MAX_NAME} printable characters"
            raise InvalidAccess(problem, field=name)
    if settings.AUTH.key_named(columns.get("name", "")):
        raise DuplicateKey("a key of the configuration has this name", field="name")
    expires = columns.get("expires_at")
    if expires is not None and expires <= datetime.now(UTC):
        raise InvalidAccess("a key must expire in the future", field="expires_at")
    if "addresses" in columns:
        try:
            columns["addresses"] = [str(one) for one in read_networks(columns["addresses"])]
        except ValueError as error:
            raise InvalidAccess(str(error), field="addresses") from None
    return columns


@contextmanager
def _names_are_unique() -> Iterator[None]:
    try:
        with transaction.atomic(using=CONTROL):
            yield
    except IntegrityError:
        raise DuplicateKey(field="name") from None
