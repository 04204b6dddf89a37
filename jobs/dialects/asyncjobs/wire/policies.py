"""The retry policies of the original, of which a task made here has the one named ``default``."""

from __future__ import annotations

from typing import Any, NamedTuple

from jobs.dialects.asyncjobs.wire.times import SECOND_NS
from jobs.engine.backoff import Ramp


class Policy(NamedTuple):
    """Intervals in nanoseconds; the wait itself is this much of one, and up to one time more."""

    first: int
    step: int
    steps: int
    jitter: float

    @property
    def intervals(self) -> list[int]:
        return [self.first + number * self.step for number in range(self.steps)]

    @property
    def curve(self) -> str:
        """The same for the engine."""
        return str(Ramp(self.first / SECOND_NS, self.step / SECOND_NS, self.steps, self.jitter))


_TEN_MINUTES = Policy(60 * SECOND_NS, 10_800_000_000, 50, 0.9)
POLICIES = {
    "10m": _TEN_MINUTES,
    "1h": Policy(600 * SECOND_NS, 150 * SECOND_NS, 20, 0.9),
    "1m": Policy(SECOND_NS, 2_950_000_000, 20, 0.5),
    "default": _TEN_MINUTES,
}
DEFAULT_CURVE = _TEN_MINUTES.curve


def policies_to_wire() -> list[dict[str, Any]]:
    """All of them, by name."""
    return [
        {"name": name, "intervals": policy.intervals, "jitter": policy.jitter}
        for name, policy in sorted(POLICIES.items())
    ]
