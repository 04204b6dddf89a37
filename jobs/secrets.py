"""Secret values never come out: ``***`` stands for them, and going in it means what is stored.

Of a payload that is stored sealed they are known by their values too, and ``[REDACTED]`` stands for them.
"""

from __future__ import annotations

import re
from typing import Any

from jobs.redaction import REDACTED, redaction_of
from jobs.references import is_reference, only_refers
from jobs.sealing import Sealed, SealError, is_sealed, opened

MASK = "***"
_SECRET = re.compile(
    r"authorization|cookie|api-?_?key|secret|token|password|passwd|credential", re.IGNORECASE
)
# Neither a reference is a secret, with what announces it, nor an expression, which stands for a value
# that is said elsewhere.
_EXPRESSION = re.compile(r"([A-Za-z]+ )?\{\{[\w\s.\[\]\"'-]+\}\}\Z")


# Kinds whose payload is ours, so that we know by its names what is a secret in it.
_KNOWN = frozenset({"http", "webhook"})
# An address that we call for somebody may be a secret from its path on.
_BEYOND_HOST = re.compile(r"([a-z]+://[^/?#]*)[/?#].+", re.IGNORECASE | re.DOTALL)
_OF_STEPS = frozenset({"steps", "group"})


def shown_payload(kind: str, payload: Any) -> Any:
    """The payload of a job or schedule as it may be shown."""
    if not isinstance(payload, Sealed):
        if not is_sealed(payload):
            return _masked_by_name(kind, payload)
        try:
            payload = opened(payload)
        except SealError:
            return REDACTED
    return redacted(kind, payload)


def redacted(kind: str, payload: Sealed) -> Any:
    """An opened payload as it may be shown."""
    redaction = redaction_of(payload.masks)
    value = payload.payload if redaction is None else redaction.value(payload.payload)
    return _masked_by_name(kind, _without_secrets(value) if kind in _OF_STEPS else value)


def meant_payload(kind: str, payload: Any, stored: Any) -> Any:
    """A payload that somebody has read and sends back changed: a mask in it means what is stored."""
    if not is_sealed(stored):
        meant = unmasked(payload, stored) if kind in _KNOWN else payload
        return _with_address(meant, stored) if kind == "webhook" else meant
    kept = opened(stored)
    return _as_stored(payload, kept.payload, redacted(kind, kept))


def _masked_by_name(kind: str, payload: Any, *, is_step: bool = False) -> Any:
    if kind in _OF_STEPS:
        return _masked_steps(payload)
    if kind == "webhook" and isinstance(payload, dict):
        payload = _without_path(payload)
    return masked(payload, is_step=is_step) if kind in _KNOWN else payload


def _without_path(payload: dict[str, Any]) -> dict[str, Any]:
    """A delivery with the host alone of where it goes."""
    found = _BEYOND_HOST.fullmatch(str(payload.get("url")))
    return {**payload, "url": f"{found[1]}/{MASK}"} if found else payload


def _with_address(meant: Any, stored: Any) -> Any:
    """A delivery with the stored address, where what is shown of that came back."""
    if not isinstance(meant, dict) or not isinstance(stored, dict) or "url" not in stored:
        return meant
    is_shown = meant.get("url") == _without_path(stored)["url"]
    return {**meant, "url": stored["url"]} if is_shown else meant


def _masked_steps(value: Any) -> Any:
    """A definition, with the payload of each step masked as that of a job of its kind."""
    if isinstance(value, list):
        return [_masked_steps(item) for item in value]
    if not isinstance(value, dict):
        return value
    kind = value.get("kind")
    return {
        key: masked(item, key, is_step=True)
        if key == "webhooks"
        else _masked_by_name(kind, item, is_step=True)
        if key == "payload" and isinstance(kind, str)
        else _masked_steps(item)
        if key in ("steps", "finally", "parallel", "each", "step", "subjob")
        else item
        for key, item in value.items()
    }


def _without_secrets(value: Any) -> Any:
    """Values too short to be looked for everywhere are left out where they are declared."""
    if isinstance(value, list):
        return [_without_secrets(item) for item in value]
    if not isinstance(value, dict):
        return value
    shown = {key: _without_secrets(item) for key, item in value.items()}
    if isinstance(shown.get("secrets"), dict):
        shown["secrets"] = {
            name: item if is_reference(item) else REDACTED
            for name, item in shown["secrets"].items()
        }
    registry = shown.get("registry")
    if isinstance(registry, dict) and not is_reference(registry.get("password")):
        shown["registry"] = {
            **registry,
            **({"password": REDACTED} if "password" in registry else {}),
        }
    return shown


def _as_stored(value: Any, stored: Any, shown: Any) -> Any:
    """The value, and what is stored wherever it is what was shown."""
    if value == shown and type(value) is type(shown):
        return stored
    if isinstance(value, dict) and isinstance(stored, dict) and isinstance(shown, dict):
        # A secret in a name is masked there as well.
        names = dict(zip(shown, stored, strict=False)) if len(shown) == len(stored) else {}
        return {
            names.get(key, key): _as_stored(item, stored.get(names.get(key, key)), shown.get(key))
            for key, item in value.items()
        }
    if isinstance(value, list) and isinstance(stored, list) and isinstance(shown, list):
        known = min(len(stored), len(shown))
        return [
            _as_stored(item, stored[index], shown[index]) if index < known else item
            for index, item in enumerate(value)
        ]
    return value


def masked(value: Any, name: str = "", *, is_step: bool = False) -> Any:
    """The value as it may be shown, at every depth; of a step's the expressions are."""
    if isinstance(value, dict):
        return {key: masked(item, key, is_step=is_step) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item, name, is_step=is_step) for item in value]
    if value is None or isinstance(value, bool) or not _SECRET.search(name):
        return value
    is_no_secret = isinstance(value, str) and (
        value == "" or only_refers(value) or (is_step and _EXPRESSION.match(value))
    )
    return value if is_no_secret else MASK


def unmasked(value: Any, stored: Any, name: str = "") -> Any:
    """The value with each mask replaced by what is stored in its place, where there is something."""
    if isinstance(value, dict):
        known = stored if isinstance(stored, dict) else {}
        # Names of headers and of .NET's members are the same in any case.
        lower = {str(key).lower(): item for key, item in known.items()}
        return {
            key: unmasked(item, known.get(key, lower.get(key.lower())), key)
            for key, item in value.items()
        }
    if isinstance(value, list):
        known_items = stored if isinstance(stored, list) else []
        return [
            unmasked(item, known_items[index] if index < len(known_items) else None, name)
            for index, item in enumerate(value)
        ]
    is_mask = value == MASK and _SECRET.search(name) is not None
    return stored if is_mask and stored is not None else value


def masks_left(value: Any, path: str) -> list[str]:
    """Where a mask stands for nothing that is stored."""
    if isinstance(value, dict):
        return [
            found
            for key, item in value.items()
            for found in (
                [f"{path}.{key}"]
                if item == MASK and _SECRET.search(key)
                else masks_left(item, f"{path}.{key}")
            )
        ]
    if isinstance(value, list):
        return [
            found
            for index, item in enumerate(value)
            for found in masks_left(item, f"{path}[{index}]")
        ]
    return []
