"""Variables in the payload of a schedule: ``{{Name}}`` becomes what is known when a run is made.

They are filled in inside the strings of the parsed payload, never in its text, so no value can become
anything but text. A name that is not known stays as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_VARIABLE = re.compile(r"\{\{\s*([A-Za-z][A-Za-z.]{0,59})\s*\}\}")
# What one payload may grow to, in characters, by what is filled in.
MAX_FILLED = 1 << 20


def fill(value: Any, known: Mapping[str, str]) -> Any:
    """The value with all variables of its strings filled in; keys of objects are left alone."""
    return _Filler(known).fill(value)


class _Filler:
    def __init__(self, known: Mapping[str, str]) -> None:
        self._known = known
        self._left = MAX_FILLED

    def fill(self, value: Any) -> Any:
        if isinstance(value, str):
            return _VARIABLE.sub(self._value, value) if "{{" in value else value
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if isinstance(value, dict):
            return {key: self.fill(item) for key, item in value.items()}
        return value

    def _value(self, match: re.Match[str]) -> str:
        known = self._known.get(match[1])
        if known is None or len(known) > self._left:
            return match[0]
        self._left -= len(known)
        return known
