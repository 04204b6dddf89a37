"""What one caller may ask of a server: requests, streams, bytes of a body, time of a statement.

The defaults are settings of the environment. ``[callers."key:importer"]`` in the TOML file changes them
for the caller of that name, as ``whoami`` and the audit write it.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

# A second's requests may come at once, and as many again.
SECONDS_AT_ONCE = 2.0
MAX_STREAMS = 40


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one caller; 0 requests a second: as many as he likes."""

    requests_per_second: float = 500
    streams: int = 5
    max_body_bytes: int = 64 << 20
    statement_seconds: float = 5

    @property
    def at_once(self) -> float:
        """How many requests may come at once."""
        return max(1.0, self.requests_per_second * SECONDS_AT_ONCE)


# Least and most of each.
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "requests_per_second": (0, 1_000_000),
    "streams": (0, MAX_STREAMS),
    "max_body_bytes": (1024, 64 << 20),
    "statement_seconds": (0.1, 300),
}
_TYPES = {field.name: field.type for field in fields(Limits)}


def read_limits(toml_path: str, defaults: Limits, problems: list[str]) -> dict[str, Limits]:
    """The limits of callers who have their own, by their name."""
    tables = _tables(toml_path)
    if not isinstance(tables, dict):
        problems.append(f"{toml_path}: 'callers' must be a table")
        return {}
    found = {}
    for caller, table in tables.items():
        where = f'{toml_path}: [callers."{caller}"]'
        if not isinstance(table, dict):
            problems.append(f"{where} must be a table")
            continue
        wrong = [f"{where} {problem}" for problem in _problems(table)]
        problems += wrong
        if not wrong:
            found[caller] = replace(defaults, **table)
    return found


def _tables(toml_path: str) -> Any:
    if not toml_path:
        return {}
    try:
        return tomllib.loads(Path(toml_path).read_text()).get("callers", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return {}  # clusters.registry has complained of it


def _problems(table: Mapping[str, Any]) -> list[str]:
    problems = []
    for name, value in table.items():
        if name not in _BOUNDS:
            problems.append(f"unknown limit {name!r}; known are {', '.join(_BOUNDS)}")
            continue
        low, high = _BOUNDS[name]
        allowed = int if _TYPES[name] == "int" else (int, float)
        is_number = isinstance(value, allowed) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not low <= value <= high:
            problems.append(f"{name} must be a number from {low:g} to {high:g}")
    return problems
