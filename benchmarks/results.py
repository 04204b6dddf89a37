"""What was measured: medians with the lowest and the highest, and the ratio of ours to a peer."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

OURS = "yardmaster"


@dataclass(slots=True)
class Measurement:
    """One row of the table. ``what`` names the comparison, ``who`` and ``how`` the contestant."""

    section: str
    what: str
    who: str
    how: str
    unit: str
    values: list[float] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def to_json(self) -> dict[str, Any]:
        return {
            "section": self.section,
            "what": self.what,
            "who": self.who,
            "how": self.how,
            "unit": self.unit,
            "median": rounded(self.median),
            "min": rounded(min(self.values)),
            "max": rounded(max(self.values)),
            "values": [rounded(value) for value in self.values],
            "notes": self.notes,
        }


def ratio(row: Measurement, rows: Sequence[Measurement]) -> float | None:
    """Our best median by this row's; above 1 we are faster at a rate, below 1 at a time."""
    ours = [other for other in rows if other.what == row.what and other.who == OURS]
    if row.who == OURS or not ours or not row.median:
        return None
    best = max if row.unit == "/s" else min
    return best(other.median for other in ours) / row.median


def percentiles(values: Sequence[float], *wanted: int) -> dict[str, float]:
    """The wanted percentiles by name: ``p50``, ``p99``."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {f"p{p}": rounded(ordered[min(last, len(ordered) * p // 100)]) for p in wanted}


def median_of(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each number over several runs."""
    return {name: rounded(statistics.median(run[name] for run in runs)) for name in runs[0]}


def rounded(value: float) -> float:
    return round(value, 1 if value >= 100 else 2)
