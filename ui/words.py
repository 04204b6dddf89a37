"""How the screen writes numbers and lengths of time; so do alerts."""

from __future__ import annotations

from jobs.words import (
    DASH,
    a_minute,
    clock_change,
    counted,
    number,
    roughly,
    short,
    size,
    span,
    utc,
)

__all__ = [
    "DASH",
    "a_minute",
    "clock_change",
    "counted",
    "number",
    "roughly",
    "short",
    "size",
    "span",
    "utc",
]
