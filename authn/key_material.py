"""Keys that sign and check tokens: what a key is decides which algorithm goes with it, and no token does.

Read at start by the settings, so this knows nothing of models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import (
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
)
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from jwt import PyJWK
from jwt.exceptions import PyJWTError

MIN_SECRET_BYTES = 32
MIN_RSA_BITS = 2048
ALGORITHMS = ("HS256", "RS256", "ES256")
MAX_KEY_ID = 200


class BadKey(ValueError):
    """A key that must not be used; the text says why and never quotes it."""


def algorithm_of(key: Any) -> str:
    """The one algorithm that a key is used with."""
    if isinstance(key, str):
        if len(key.encode()) < MIN_SECRET_BYTES:
            raise BadKey(f"needs at least {MIN_SECRET_BYTES} bytes")
        return "HS256"
    if isinstance(key, RSAPrivateKey | RSAPublicKey):
        if key.key_size < MIN_RSA_BITS:
            raise BadKey(f"is an RSA key of less than {MIN_RSA_BITS} bits")
        return "RS256"
    if isinstance(key, EllipticCurvePrivateKey | EllipticCurvePublicKey):
        if not isinstance(key.curve, SECP256R1):
            raise BadKey("is no key on the curve P-256")
        return "ES256"
    raise BadKey("is neither a secret text nor an RSA key nor one on the curve P-256")


def signing_key(text: str) -> Any:
    """A secret text, or a private key out of a PEM."""
    if not _is_pem(text):
        return text
    try:
        return load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise BadKey("is no private key in PEM without a password") from None


def public_key(text: str) -> Any:
    """A public key out of a PEM."""
    if not _is_pem(text):
        raise BadKey("is no public key in PEM")
    try:
        return load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm):
        raise BadKey("is no public key in PEM") from None


def verifying_key(key: Any) -> Any:
    """What checks the signatures of a signing key."""
    return key if isinstance(key, str) else key.public_key()


def read_key_set(path: Path, algorithm: str) -> Mapping[str, Any]:
    """The public keys of a JWKS file by their ids, each fit for the one algorithm."""
    try:
        document = json.loads(path.read_text())
        entries = document["keys"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise BadKey(f"cannot read a set of keys from {path}") from None
    found: dict[str, Any] = {}
    for entry in entries if isinstance(entries, list) else []:
        key_id = entry.get("kid") if isinstance(entry, dict) else None
        if not isinstance(key_id, str) or not 0 < len(key_id) <= MAX_KEY_ID or key_id in found:
            raise BadKey("needs a `kid` of its own for each key")
        if entry.get("use", "sig") != "sig" or "d" in entry:
            raise BadKey(f"holds what is no public key to check signatures with: {key_id!r}")
        found[key_id] = _from_set(entry, key_id, algorithm)
    if not found:
        raise BadKey(f"finds no key in {path}")
    return found


def _from_set(entry: Mapping[str, Any], key_id: str, algorithm: str) -> Any:
    try:
        key = PyJWK({**entry, "alg": algorithm}).key
    except (PyJWTError, ValueError, TypeError):
        raise BadKey(f"holds a key that is not for {algorithm}: {key_id!r}") from None
    if isinstance(key, bytes | str) or algorithm_of(key) != algorithm:
        raise BadKey(f"holds a key that is not for {algorithm}: {key_id!r}")
    return key


def _is_pem(text: str) -> bool:
    return text.lstrip().startswith("-----BEGIN")
