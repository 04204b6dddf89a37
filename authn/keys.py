"""API keys: ``ym_<public id>_<secret>``.

The public id finds the row, the secret of 256 random bits proves the key, and only its SHA-256 is kept.
Both parts are hexadecimal, so there is one way to write a key and one way to take it apart.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache

from django.db import connections

from authn.models import ApiKey, RoleBinding
from authn.principal import Principal
from clusters.deeds import access_deed
from clusters.routers import CONTROL

PREFIX = "ym_"
KEY = re.compile(r"ym_([0-9a-f]{16})_([0-9a-f]{64})\Z")
# Compared where there is no such key, so that an unknown id costs what a wrong secret does.
_NOBODYS_DIGEST = hashlib.sha256(secrets.token_bytes(32)).digest()


def create_key(
    name: str,
    role: str,
    clusters: Iterable[str],
    grants: Iterable[str] = (),
    expires: datetime | None = None,
) -> tuple[ApiKey, str]:
    """Store a new key with one role on these clusters (``*``: all); its text is never seen again."""
    public_id, secret = secrets.token_hex(8), secrets.token_hex(32)
    clusters, grants = [*dict.fromkeys(clusters)], sorted(set(grants))
    with access_deed("keys.create", "api_key", name, on=clusters) as trace:
        trace.after = {
            "public_id": public_id,
            "role": role,
            "clusters": clusters,
            "granted_kinds": grants,
            "expires_at": expires,
        }
        key = ApiKey.objects.create(
            name=name, public_id=public_id, digest=_digest(secret), expires_at=expires
        )
        RoleBinding.objects.bulk_create(
            RoleBinding(api_key=key, cluster_id=cluster_id, role=role, granted_kinds=grants)
            for cluster_id in clusters
        )
    return key, f"{PREFIX}{public_id}_{secret}"


def parse_key(plain: str) -> tuple[str, str] | None:
    """The public id and the secret of a well-formed key."""
    match = KEY.match(plain)
    return (match[1], match[2]) if match else None


def find_principal(plain: str) -> Principal | None:
    """The caller a key stands for, or None for every key that is not good, whatever is wrong with it."""
    parts = parse_key(plain)
    if parts is None:
        return None
    public_id, secret = parts
    with connections[CONTROL].cursor() as cursor:
        cursor.execute(_question(), [public_id])
        rows = cursor.fetchall()
    kept = bytes(rows[0][1]) if rows else _NOBODYS_DIGEST
    if not hmac.compare_digest(_digest(secret), kept) or not rows:
        return None
    name = rows[0][0]
    bindings = [(row[2], row[3], json.loads(row[4])) for row in rows if row[2] is not None]
    return Principal(
        name=name,
        actor=f"key:{name}",
        roles={cluster_id: role for cluster_id, role, _ in bindings},
        granted_kinds={cluster_id: frozenset(kinds) for cluster_id, _, kinds in bindings},
    )


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
            "role_bindings__cluster_id",
            "role_bindings__role",
            "role_bindings__granted_kinds",
        )
    )
    sql, parameters = rows.query.sql_with_params()
    assert parameters == ("",)
    return str(sql)


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
