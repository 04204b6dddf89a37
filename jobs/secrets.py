"""Secret values never come out: ``***`` stands for them, and going in it means what is stored."""

from __future__ import annotations

import re
from typing import Any

MASK = "***"
_SECRET = re.compile(
    r"authorization|cookie|api-?_?key|secret|token|password|passwd|credential", re.IGNORECASE
)
# A reference is no secret.
_REFERENCE = re.compile(r"\{\{\s*Secret\.[A-Za-z0-9_.-]+\s*\}\}\Z")


# Kinds whose payload is ours, so that we know by its names what is a secret in it.
_KNOWN = frozenset({"http"})


def shown_payload(kind: str, payload: Any) -> Any:
    """The payload of a job or schedule as it may be shown."""
    return masked(payload) if kind in _KNOWN else payload


def meant_payload(kind: str, payload: Any, stored: Any) -> Any:
    """A payload that somebody has read and sends back changed: a mask in it means what is stored."""
    return unmasked(payload, stored) if kind in _KNOWN else payload


def masked(value: Any, name: str = "") -> Any:
    """The value as it may be shown, at every depth."""
    if isinstance(value, dict):
        return {key: masked(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [masked(item, name) for item in value]
    if value is None or isinstance(value, bool) or not _SECRET.search(name):
        return value
    is_reference = isinstance(value, str) and (value == "" or _REFERENCE.match(value))
    return value if is_reference else MASK


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
