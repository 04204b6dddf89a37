"""Lines of the program's own log: what they hold is data, and never a second line or a command."""

from __future__ import annotations

import re
from collections.abc import Mapping, MutableMapping
from typing import Any

# Controls of both kinds, what turns the direction of text around, and what some call the end of a line.
_CONTROL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
# A trace has lines of its own.
_OF_TRACES = re.compile(_CONTROL.pattern.replace("\x00-\x1f", "\x00-\x09\x0b-\x1f"))
_TRACES = frozenset({"exception", "stack"})
MAX_DEPTH = 4


def escaped(text: str) -> str:
    """The text with its control characters written out, as ``\\x1b`` and ``\\u202e``."""
    return _CONTROL.sub(_written_out, text)


def escape_controls(
    logger: Any, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """For structlog: write out the control characters of whatever is logged."""
    for name, value in [*event.items()]:
        if name in _TRACES and isinstance(value, str):
            event[name] = _OF_TRACES.sub(_written_out, value)
        else:
            clean = _clean(value)
            if clean is not value:
                event[name] = clean
    return event


def _clean(value: Any, depth: int = 0) -> Any:
    if isinstance(value, str):
        return escaped(value) if _CONTROL.search(value) else value
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if depth >= MAX_DEPTH:
        return escaped(repr(value))
    if isinstance(value, Mapping):
        return {escaped(str(k)): _clean(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_clean(item, depth + 1) for item in value]
    return escaped(repr(value))


def _written_out(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
