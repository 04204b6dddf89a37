"""Callers named by the configuration: API keys, and the issuers whose tokens are taken.

One TOML file, ``YARDMASTER_AUTH_CONFIG``, read at start by the settings, so this knows nothing of
models. What is wrong in it is said with everything else that is wrong.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from authn.addresses import Networks, read_networks
from authn.key_material import ALGORITHMS, BadKey, algorithm_of, public_key, read_key_set

VARIABLE = "YARDMASTER_AUTH_CONFIG"
ROLES = ("viewer", "operator", "admin")
EVERYWHERE = "*"
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,100}\Z")
_KEY_TEXT = re.compile(r"[!-~]{32,1000}\Z")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}\Z")
_ROLE_FIELDS = {"role", "clusters", "grants"}
_KEY_FIELDS = {"sha256", "key_file", "expires_at", "addresses"} | _ROLE_FIELDS
_ISSUER_FIELDS = {
    *("issuer", "audience", "algorithm", "jwks_file", "public_key_file", "secret_file"),
    *("subjects", "roles_claim", "roles", "max_lifetime_seconds"),
    "one_time",
}
_MAX_LIFETIME = 30 * 86400


class _Mistake(ValueError):
    pass


@dataclass(frozen=True, slots=True)
class RoleOn:
    """A role on some clusters, or on all of them (``*``)."""

    role: str
    clusters: tuple[str, ...]
    grants: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ConfiguredKey:
    name: str
    digest: bytes = field(repr=False)
    given: RoleOn
    expires_at: datetime | None = None
    networks: Networks = ()


@dataclass(frozen=True)
class Issuer:
    """Whose tokens are taken, how they are checked, and whom they stand for."""

    name: str
    issuer: str
    audience: str
    # Fixed: a token has no say in it.
    algorithm: str
    # By key id; one that stands alone is under None.
    keys: Mapping[str | None, Any] = field(repr=False)
    jwks_file: Path | None = None
    # Subjects are names of users here; otherwise their roles come from a claim.
    names_users: bool = False
    roles_claim: str = ""
    roles: Mapping[str, RoleOn] = field(default_factory=dict)
    max_lifetime_seconds: int = 86400
    # Each of its tokens has an id, and is good for one request.
    is_one_time: bool = False


@dataclass(frozen=True)
class Configured:
    """All of the file: keys by their digest, issuers by what their tokens call them."""

    keys: Mapping[bytes, ConfiguredKey] = field(default_factory=dict)
    issuers: Mapping[str, Issuer] = field(default_factory=dict)

    def key_named(self, name: str) -> ConfiguredKey | None:
        return next((key for key in self.keys.values() if key.name == name), None)


def read_configuration(
    path: str, clusters: Collection[str], kinds: Collection[str], problems: list[str]
) -> Configured:
    """What the file names, if there is one; ``kinds`` are those that need a grant."""
    if not path:
        return Configured()
    try:
        document = tomllib.loads(Path(path).read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problems.append(f"{VARIABLE}: cannot read {path}: {error}")
        return Configured()
    reader = _Reader(Path(path), clusters, kinds, problems)
    for name in document.keys() - {"keys", "issuers"}:
        problems.append(
            f"{path}: unknown table {name!r}; known are [keys.<name>], [issuers.<name>]"
        )
    keys = reader.all(document.get("keys", {}), "keys", reader.key)
    issuers = reader.all(document.get("issuers", {}), "issuers", reader.issuer)
    for what, named in (
        ("two keys have the same text", [key.digest for key in keys]),
        ("two issuers have the same `issuer`", [issuer.issuer for issuer in issuers]),
    ):
        if len(named) != len({*named}):
            problems.append(f"{path}: {what}")
    return Configured(
        {key.digest: key for key in keys}, {issuer.issuer: issuer for issuer in issuers}
    )


class _Reader:
    def __init__(
        self,
        path: Path,
        clusters: Collection[str],
        kinds: Collection[str],
        problems: list[str],
    ) -> None:
        self.path, self.clusters, self.kinds, self.problems = path, clusters, kinds, problems

    def all(self, tables: Any, title: str, read: Any) -> list[Any]:
        if not isinstance(tables, dict):
            self.problems.append(f"{self.path}: {title!r} must be a table")
            return []
        found = []
        for name, table in tables.items():
            try:
                if not _NAME.match(name) or not isinstance(table, dict):
                    raise _Mistake("must be a table with a name of 1 to 100 characters")
                found.append(read(name, table))
            except (_Mistake, BadKey) as error:
                self.problems.append(f"{self.path}: [{title}.{name[:100]}] {error}")
        return found

    def key(self, name: str, table: Mapping[str, Any]) -> ConfiguredKey:
        _check_fields(table, _KEY_FIELDS)
        if ("sha256" in table) == ("key_file" in table):
            raise _Mistake("needs exactly one of sha256 and key_file")
        if "key_file" in table:
            text = self.file(table, "key_file")
            if not _KEY_TEXT.match(text):
                raise _Mistake("key_file: a key has 32 to 1000 printable characters without spaces")
            digest = hashlib.sha256(text.encode()).digest()
        elif isinstance(table["sha256"], str) and _DIGEST.match(table["sha256"]):
            digest = bytes.fromhex(table["sha256"])
        else:
            raise _Mistake("sha256: expected 64 hex digits, see `manage.py keys digest`")
        expires_at = table.get("expires_at")
        if expires_at is not None and getattr(expires_at, "tzinfo", None) is None:
            raise _Mistake("expires_at: expected a time with its zone")
        try:
            networks = read_networks(_words(table, "addresses", []))
        except ValueError as error:
            raise _Mistake(f"addresses: {error}") from None
        return ConfiguredKey(name, digest, self.role(table), expires_at, networks)

    def issuer(self, name: str, table: Mapping[str, Any]) -> Issuer:
        _check_fields(table, _ISSUER_FIELDS)
        issuer, audience = (_text(table, field_) for field_ in ("issuer", "audience"))
        algorithm = table.get("algorithm")
        if algorithm not in ALGORITHMS:
            raise _Mistake(f"algorithm: expected one of {', '.join(ALGORITHMS)}")
        keys, jwks_file = self.keys_of(table, str(algorithm))
        lifetime = table.get("max_lifetime_seconds", 86400)
        if type(lifetime) is not int or not 60 <= lifetime <= _MAX_LIFETIME:
            raise _Mistake(f"max_lifetime_seconds: expected 60 to {_MAX_LIFETIME}")
        names_users = table.get("subjects", "mapped")
        if names_users not in ("users", "mapped"):
            raise _Mistake("subjects: expected users or mapped")
        roles_claim, roles = table.get("roles_claim", ""), table.get("roles", {})
        if names_users == "mapped" and not (roles_claim and roles):
            raise _Mistake('needs roles_claim and [roles], or subjects = "users"')
        is_one_time = table.get("one_time", False)
        if not isinstance(is_one_time, bool):
            raise _Mistake("one_time: expected true or false")
        if not isinstance(roles_claim, str) or not isinstance(roles, dict):
            raise _Mistake("roles_claim must be text, and roles a table")
        return Issuer(
            name=name,
            issuer=issuer,
            audience=audience,
            algorithm=str(algorithm),
            keys=keys,
            jwks_file=jwks_file,
            names_users=names_users == "users",
            roles_claim=roles_claim,
            roles={word: self.mapped(word, given) for word, given in roles.items()},
            max_lifetime_seconds=lifetime,
            is_one_time=is_one_time,
        )

    def mapped(self, word: str, table: Any) -> RoleOn:
        if not isinstance(table, dict):
            raise _Mistake(f"roles.{word[:100]} must be a table")
        _check_fields(table, _ROLE_FIELDS)
        return self.role(table)

    def keys_of(
        self, table: Mapping[str, Any], algorithm: str
    ) -> tuple[Mapping[Any, Any], Path | None]:
        given = [name for name in ("jwks_file", "public_key_file", "secret_file") if name in table]
        if len(given) != 1:
            raise _Mistake("needs exactly one of jwks_file, public_key_file and secret_file")
        if given == ["jwks_file"]:
            if algorithm == "HS256":
                raise _Mistake("a set of public keys does not go with HS256")
            path = Path(self.path.parent, _text(table, "jwks_file"))
            return read_key_set(path, algorithm), path
        text = self.file(table, given[0])
        if given == ["secret_file"]:
            # A PEM is published; whoever knows it could sign with it as a secret.
            if "-----BEGIN" in text:
                raise _Mistake("secret_file: is a PEM; expected a secret text")
            key: Any = text
        else:
            key = public_key(text)
        if algorithm_of(key) != algorithm:
            raise _Mistake(f"{given[0]}: this key is not for {algorithm}")
        return {None: key}, None

    def role(self, table: Mapping[str, Any]) -> RoleOn:
        role = table.get("role")
        if role not in ROLES:
            raise _Mistake(f"role: expected one of {', '.join(ROLES)}")
        clusters = _words(table, "clusters")
        if unknown := {*clusters} - {*self.clusters, EVERYWHERE}:
            raise _Mistake(f"clusters: there is no {', '.join(sorted(unknown))[:100]}")
        if not clusters:
            raise _Mistake('clusters: names none; ["*"] means all')
        grants = _words(table, "grants", [])
        if unknown := {*grants} - {*self.kinds}:
            raise _Mistake(f"grants: {', '.join(sorted(unknown))[:100]} needs none")
        return RoleOn(str(role), tuple(dict.fromkeys(clusters)), frozenset(grants))

    def file(self, table: Mapping[str, Any], name: str) -> str:
        try:
            return Path(self.path.parent, _text(table, name)).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise _Mistake(f"{name}: {error}") from None


def _check_fields(table: Mapping[str, Any], known: Collection[str]) -> None:
    if unknown := table.keys() - {*known}:
        raise _Mistake(f"unknown {', '.join(sorted(unknown))[:100]}")


def _text(table: Mapping[str, Any], name: str) -> str:
    value = table.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 1000:
        raise _Mistake(f"{name}: expected a text")
    return value


def _words(table: Mapping[str, Any], name: str, default: list[str] | None = None) -> list[str]:
    value = table.get(name, default)
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise _Mistake(f"{name}: expected a list of texts")
    return value
