"""Payloads: any JSON value or bytes go in, and base64 of bytes comes out.

Of a JSON value that is its one canonical text: keys sorted, no white space, ``<``, ``>`` and ``&``
escaped as the original escapes them, and numbers as they are, however large.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from decimal import Decimal
from typing import Any

from jobs.secrets import shown_payload

_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
# A float that is a whole number is written like one: some databases keep it so.
_WHOLE_FLOAT = re.compile(r"[0-9]\.0(?![0-9])|[0-9]e\+?[0-9]")
_encode = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
).encode


def canonical_json(value: Any) -> str:
    """The one text of a JSON value."""
    text = _encode(value)
    if _WHOLE_FLOAT.search(text):
        text = _encode(_without_whole_floats(value))
    # Outside of strings none of these can be.
    return text.translate(_ESCAPES)


def _without_whole_floats(value: Any) -> Any:
    if isinstance(value, float):
        return int(Decimal(repr(value))) if value.is_integer() else value
    if isinstance(value, dict):
        return {key: _without_whole_floats(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_whole_floats(item) for item in value]
    return value


def payload_data(kind: str, payload: Any, data: Any) -> bytes:
    """The bytes of what is stored, as it may be shown; none where there is nothing."""
    if data is not None:
        return bytes(data)
    if payload is None:
        return b""
    return canonical_json(shown_payload(kind, payload)).encode("utf-8", "replace")


def to_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def from_base64(text: str) -> bytes | None:
    """The bytes of standard base64 with its padding; lines may be broken. None for all else."""
    try:
        return base64.b64decode(text.replace("\r", "").replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        return None
