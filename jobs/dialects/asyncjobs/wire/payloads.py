"""Payloads: any JSON value or bytes go in, and base64 of bytes comes out.

Of a JSON value that is its one canonical text: keys sorted, no white space, ``<``, ``>`` and ``&``
escaped and numbers written as the original does it, but whole ones with all of their digits.
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
# Where Python and the original write a number in different ways: whole floats, exponents, small and
# large ones. Digits inside of strings may look like it, so what is found says only to look closer.
_UNLIKE = re.compile(r"[0-9]\.0(?![0-9])|[0-9]e[+-]?[0-9]|[0-9]{22}")
# A backslash begins each part that is repeated, so that there is one way to read a text.
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9][0-9.e+-]*')  # noqa: DUO138
# From here on a number has an exponent, and below that.
_LARGE, _SMALL = Decimal("1e21"), Decimal("1e-6")
_encode = json.JSONEncoder(
    ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False
).encode


def canonical_json(value: Any) -> str:
    """The one text of a JSON value."""
    text = _encode(value)
    if _UNLIKE.search(text):
        text = _TOKEN.sub(_token, text)
    # Outside of strings none of these can be.
    return text.translate(_ESCAPES)


def _token(found: re.Match[str]) -> str:
    text = found[0]
    return text if text.startswith('"') else _number(text)


def _number(text: str) -> str:
    """A number as the original writes it, never a longer text than it has to be.

    Some databases keep 1e300 as a whole number of 301 digits: what a float stands for has an exponent
    again, and a whole number that is no float's keeps its digits.
    """
    number = Decimal(text)
    size = abs(number)
    if not number:
        return "0"
    if size < _LARGE and number == number.to_integral_value():
        return str(int(number))
    if _SMALL <= size < _LARGE:
        return f"{number:f}"
    if text.lstrip("-").isdigit() and Decimal(repr(float(text))) != number:
        return text
    sign, digits, exponent = number.normalize().as_tuple()
    assert isinstance(exponent, int)
    first, rest = str(digits[0]), "".join(map(str, digits[1:]))
    point = f"{first}.{rest}" if rest else first
    return f"{'-' if sign else ''}{point}e{exponent + len(rest):+d}"


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
