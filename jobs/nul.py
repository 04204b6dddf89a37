"""The character that no database keeps, in JSON that was written already."""

from __future__ import annotations

import re

# The character itself, not a backslash followed by its number, which is sound text.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


def holds_nul(written: str) -> bool:
    """Whether a text or a key in this JSON holds a NUL."""
    return _NUL.search(written) is not None
