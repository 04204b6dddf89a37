"""Payloads that hold secrets are stored encrypted, whole; and so are the named secrets of a cluster.

What is stored is ``{"$sealed": "<key>:<base64>"}``, in AES-SIV: the same payload under the same key is
the same text, so that a second enqueue of it is seen to be one. Inside is the payload, and with it the
values that must never be seen of what the job says (see ``jobs.redaction``). Beside it stand the names of
the secrets that it refers to, for the node that must fetch those.

A named secret is ``<key>:<base64>`` of a nonce and what AES-SIV makes of the value under its name: nobody
can see that two are the same, or put one in the place of another.

Keys are those of the configuration; the first one encrypts, the others are known from earlier.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

from jobs.errors import InvalidJob
from jobs.references import is_reference, names_in_json

SEAL, NAMES = "$sealed", "names"
_ABOUT = [b"yardmaster payload 1"]
_ABOUT_SECRET = b"yardmaster secret 1"
_NONCE_BYTES = 16


class SealError(InvalidJob):
    """A sealed payload cannot be opened."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """A payload that is to be stored sealed; or one that was, opened. Nobody can send us one."""

    payload: Any
    masks: tuple[str, ...] = ()
    # Why what is stored could not be opened; whoever checks it says so.
    problem: SealError | None = None


def is_sealed(stored: Any) -> bool:
    return isinstance(stored, dict) and SEAL in stored


def seal(payload: Any, masks: Iterable[str]) -> dict[str, Any]:
    """What is stored of a payload. Raises ``InvalidJob`` where no key is configured."""
    keys = _keys(tuple(settings.SECRETS_KEYS))
    if not keys:
        raise InvalidJob(
            "holds secrets, and no YARDMASTER_SECRETS_KEY is set to keep them with", field="payload"
        )
    key_id, cipher = next(iter(keys.items()))
    inside = {"payload": payload, "masks": sorted({*masks})}
    text = json.dumps(inside, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    data = cipher.encrypt(text.encode(errors="surrogatepass"), _ABOUT)
    sealed: dict[str, Any] = {SEAL: f"{key_id}:{base64.b64encode(data).decode()}"}
    if names := sorted(names_in_json(text)):
        sealed[NAMES] = names
    return sealed


def opened(stored: Any) -> Sealed:
    """A stored payload as it was meant; one that is not sealed has nothing to hide."""
    if not is_sealed(stored):
        return Sealed(stored)
    cipher, data = _taken_apart(stored[SEAL], "the payload")
    try:
        inside = json.loads(cipher.decrypt(data, _ABOUT))
    except (InvalidTag, ValueError):
        raise SealError("the encrypted payload is damaged", field="payload") from None
    return Sealed(inside["payload"], tuple(inside["masks"]))


def _taken_apart(text: Any, what: str) -> tuple[AESSIV, bytes]:
    key_id, _, encoded = text.partition(":") if isinstance(text, str) else ("", "", "")
    cipher = _keys(tuple(settings.SECRETS_KEYS)).get(key_id)
    if cipher is None:
        raise SealError(
            f"{what} is encrypted with the key {key_id[:16]!r}, which this process does not have",
            field="payload",
        )
    try:
        return cipher, base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise SealError(f"what is stored of {what} is damaged", field="payload") from None


# -- Named secrets ---------------------------------------------------------------------------------


def seal_secret(name: str, value: str) -> str:
    """What is stored of a named secret. Raises ``InvalidJob`` where no key is configured."""
    keys = _keys(tuple(settings.SECRETS_KEYS))
    if not keys:
        raise InvalidJob("no YARDMASTER_SECRETS_KEY is set to keep secrets with", field="value")
    key_id, cipher = next(iter(keys.items()))
    nonce = os.urandom(_NONCE_BYTES)
    data = cipher.encrypt(value.encode(), [_ABOUT_SECRET, name.encode(), nonce])
    return f"{key_id}:{base64.b64encode(nonce + data).decode()}"


def opened_secret(name: str, stored: str) -> str:
    """The value of a named secret; raises ``SealError``."""
    cipher, data = _taken_apart(stored, f"the secret {name!r}")
    nonce, sealed = data[:_NONCE_BYTES], data[_NONCE_BYTES:]
    try:
        return cipher.decrypt(sealed, [_ABOUT_SECRET, name.encode(), nonce]).decode()
    except (InvalidTag, ValueError):
        raise SealError(f"the secret {name!r} is damaged", field="payload") from None


def key_of(sealed: str) -> str:
    """The name of the key that something is encrypted with."""
    return sealed.partition(":")[0]


def first_key() -> str | None:
    """The name of the key that encrypts what is stored from now on."""
    return next(iter(_keys(tuple(settings.SECRETS_KEYS))), None)


def taken(stored: Any) -> Any:
    """A stored payload for a new job: one that was sealed will be again."""
    if not is_sealed(stored):
        return stored
    try:
        return opened(stored)
    except SealError as error:
        return Sealed(None, problem=error)


def seal_notes(notes: Mapping[str, Any] | None, masks: Iterable[str]) -> dict[str, Any] | None:
    """What is stored of a dialect's notes beside a sealed payload: the definition as it was submitted."""
    if notes is None:
        return None
    masks = [*masks]
    return {
        key: seal(item, masks) if isinstance(item, dict) and not is_sealed(item) else item
        for key, item in notes.items()
    }


@lru_cache(maxsize=8)
def _keys(texts: tuple[str, ...]) -> dict[str, AESSIV]:
    """Ciphers by the names of their keys, the first one first."""
    return {_derived(text, b"name", 6).hex(): AESSIV(_derived(text, b"key", 64)) for text in texts}


def _derived(text: str, what: bytes, length: int) -> bytes:
    derivation = HKDF(SHA256(), length, salt=None, info=b"yardmaster secrets " + what)
    return derivation.derive(text.encode())


# -- What is secret in a payload -------------------------------------------------------------------


def secrets_in(kind: str, payload: Any) -> list[str] | None:
    """The secret values of a sound payload; None where it holds nothing that is to be kept secret."""
    if kind == "container":
        found = [*_of_container(payload)]
    elif kind in ("steps", "group"):
        found = [*_of_definition(payload, is_rendered=True)]
    else:
        return None
    return found or None


def _of_definition(value: Any, *, is_rendered: bool = False) -> Iterator[str]:
    """Those of a definition, of its steps and of the definitions in them."""
    if not isinstance(value, dict):
        return
    for text in (value.get("secrets") or {}).values():
        # An expression says which secret it is, not what it is.
        if isinstance(text, str) and (is_rendered or "{{" not in text) and not is_reference(text):
            yield text
    for part in ("steps", "finally", "parallel"):
        for step in value.get(part) or ():
            yield from _of_step(step)
    if isinstance(value.get("each"), dict):
        yield from _of_step(value["each"].get("step"))
    yield from _of_definition(value.get("subjob"))


def _of_step(step: Any) -> Iterator[str]:
    if not isinstance(step, dict):
        return
    if step.get("kind") == "container":
        yield from _of_container(step.get("payload"))
    yield from _of_definition(step)


def _of_container(payload: Any) -> Iterator[str]:
    places: Sequence[Any] = [payload]
    if isinstance(payload, dict) and isinstance(payload.get("sidecars"), list):
        places = [payload, *payload["sidecars"]]
    for place in places:
        registry = place.get("registry") if isinstance(place, dict) else None
        password = registry.get("password") if isinstance(registry, dict) else None
        if isinstance(password, str) and not is_reference(password):
            yield password
