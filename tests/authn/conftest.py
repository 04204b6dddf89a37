"""Issuers of tokens with keys of their own, as a configuration file names them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from authn.configuration import read_configuration
from authn.passwords import proofs
from jobs.executors import GRANTED_KINDS

RSA_ISSUER, EC_ISSUER = "https://rsa.example", "https://ec.example"
FILE = """
[issuers.rsa]
issuer = "https://rsa.example"
audience = "jobs"
algorithm = "RS256"
jwks_file = "jwks.json"
roles_claim = "groups"
[issuers.rsa.roles.ops]
role = "operator"
clusters = ["alpha"]
grants = ["shell"]
[issuers.rsa.roles.all]
role = "viewer"
clusters = ["*"]
[issuers.rsa.roles.boss]
role = "admin"
clusters = ["alpha"]

[issuers.ec]
issuer = "https://ec.example"
audience = "jobs"
algorithm = "ES256"
public_key_file = "ec.pem"
subjects = "users"
"""


@dataclass(frozen=True)
class Issuers:
    directory: Path
    keys: dict[str, Any]

    def token(
        self,
        of: str,
        key: Any = None,
        header: dict[str, Any] | None = None,
        claims: dict[str, Any] | None = None,
    ) -> str:
        """A good token, but for what is said."""
        issuer, algorithm = {"rsa": (RSA_ISSUER, "RS256"), "ec": (EC_ISSUER, "ES256")}[of]
        now = int(time.time())
        body = {"iss": issuer, "aud": "jobs", "sub": "ann", "iat": now, "exp": now + 600}
        head = {"kid": "one"} if of == "rsa" else {}
        return jwt.encode(
            {**body, **(claims or {})},
            self.keys[of] if key is None else key,
            algorithm=algorithm,
            headers={**head, **(header or {})},
        )


@lru_cache(maxsize=1)
def made_keys() -> dict[str, Any]:
    return {
        **{name: rsa.generate_private_key(65537, 2048) for name in ("rsa", "rsa2", "stranger_rsa")},
        **{name: ec.generate_private_key(ec.SECP256R1()) for name in ("ec", "stranger_ec")},
    }


def public_pem(key: Any) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def private_pem(key: Any) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def jwk(key: Any, key_id: str) -> dict[str, Any]:
    algorithm = (
        jwt.algorithms.RSAAlgorithm
        if hasattr(key, "key_size") and hasattr(key.public_key(), "encrypt")
        else jwt.algorithms.ECAlgorithm
    )
    return {**algorithm.to_jwk(key.public_key(), as_dict=True), "kid": key_id, "use": "sig"}


@pytest.fixture
def issuers(tmp_path: Path, settings: Any) -> Issuers:
    keys = made_keys()
    key_set = {"keys": [jwk(keys["rsa"], "one"), jwk(keys["rsa2"], "two")]}
    (tmp_path / "jwks.json").write_text(json.dumps(key_set))
    (tmp_path / "ec.pem").write_text(public_pem(keys["ec"]))
    (tmp_path / "auth.toml").write_text(FILE)
    settings.AUTH = configured(tmp_path)
    return Issuers(tmp_path, keys)


def configured(directory: Path) -> Any:
    problems: list[str] = []
    found = read_configuration(
        str(directory / "auth.toml"), ["alpha", "beta"], GRANTED_KINDS, problems
    )
    assert problems == []
    return found


@pytest.fixture(autouse=True)
def _forget_passwords() -> Iterator[None]:
    proofs.forget()
    yield
    proofs.forget()
