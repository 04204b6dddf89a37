"""Moments and durations as this API writes them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from decimal import Decimal

MAX_LENGTH = 100
_UNITS = {
    **{"ns": Decimal("1e-9"), "us": Decimal("1e-6"), "µs": Decimal("1e-6"), "μs": Decimal("1e-6")},
    **{"ms": Decimal("1e-3"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)},
}
_PART = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)"
_DURATION = re.compile(rf"[+-]?(?:{_PART})+")
# The original counts nanoseconds in 63 bits.
_LARGEST = Decimal(2**63 - 1) / 10**9


def parse_duration(text: str) -> float | None:
    """Seconds of a duration such as ``1h30m``, None where it is none."""
    if text in ("0", "+0", "-0"):
        return 0.0
    if len(text) > MAX_LENGTH or not _DURATION.fullmatch(text):
        return None
    total = sum(
        (Decimal(number) * _UNITS[unit] for number, unit in re.findall(_PART, text)), Decimal(0)
    )
    if total > _LARGEST:
        return None
    return float(-total if text.startswith("-") else total)


def duration_to_wire(seconds: float) -> str:
    """The shortest way to write so many seconds."""
    whole, rest = divmod(round(seconds * 1000), 1000)
    hours, left = divmod(whole, 3600)
    minutes, left = divmod(left, 60)
    parts = ((hours, "h"), (minutes, "m"), (left, "s"), (rest, "ms"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"


def moment_to_wire(moment: datetime) -> str:
    moment = moment.astimezone(UTC)
    text = f"{moment:%Y-%m-%dT%H:%M:%S.%f}".rstrip("0").rstrip(".")
    return f"{text}Z"
