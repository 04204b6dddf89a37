"""What one check found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

OK, WARN, FAIL = "ok", "warn", "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    check: str
    status: str
    # What there is, in words.
    found: str
    # What to do about it.
    advice: str | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def is_bad(self) -> bool:
        return self.status == FAIL


Check = Callable[[str], list[Finding]]


def fine(check: str, found: str, **details: Any) -> Finding:
    return Finding(check, OK, found, None, details)


def doubtful(check: str, found: str, advice: str, **details: Any) -> Finding:
    return Finding(check, WARN, found, advice, details)


def failed(check: str, found: str, advice: str, **details: Any) -> Finding:
    return Finding(check, FAIL, found, advice, details)


def worst(findings: list[Finding]) -> str:
    """The status of all of them together."""
    return max((finding.status for finding in findings), key=(OK, WARN, FAIL).index, default=OK)


def span(seconds: float) -> str:
    """A duration as people say it."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
