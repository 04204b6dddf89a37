"""Retry timing; pure arithmetic."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import NamedTuple

# Curves without chance, for those who promised their users certain waits.
FIXED, LINEAR, EXPONENTIAL = "fixed", "linear", "exponential"
# How a curve begins that is written as a ``Ramp``.
RAMP, MAX_STEPS = "ramp:", 1000
# Most waits that a curve may list, and the longest of them.
MAX_WAITS, MAX_WAIT_SECONDS = 20, 7 * 86400


class Ramp(NamedTuple):
    """Waits that begin with ``first`` and grow by ``step`` until there were ``steps`` of them.

    The wait itself is chance: from ``jitter`` times that to one time more. A curve writes it as
    ``ramp:60,10.8,50,0.9``.
    """

    first: float
    step: float
    steps: int
    jitter: float

    @classmethod
    @lru_cache(maxsize=64)
    def read(cls, curve: str) -> Ramp:
        """The ramp that a curve writes; ValueError where it is none."""
        first, step, steps, jitter = curve.removeprefix(RAMP).split(",")
        ramp = cls(float(first), float(step), int(steps), float(jitter))
        longest = (ramp.jitter + 1) * ramp.interval(ramp.steps)
        if not (
            min(ramp.first, ramp.step, ramp.jitter) >= 0
            and 1 <= ramp.steps <= MAX_STEPS
            and longest <= MAX_WAIT_SECONDS
        ):
            raise ValueError("a ramp that goes down or too far")
        return ramp

    def __str__(self) -> str:
        return f"{RAMP}{self.first:g},{self.step:g},{self.steps},{self.jitter:g}"

    def interval(self, number: int) -> float:
        return self.first + self.step * min(number, self.steps - 1)

    def wait(self, attempts: int) -> float:
        return round(self.interval(attempts) * (self.jitter + random.random()), 3)  # noqa: S311


def full_jitter(attempts: int, base_seconds: float, cap_seconds: float) -> float:
    """Seconds to wait after the given number of attempts: anything up to a bound that doubles.

    The whole wait is random, because retries in step are a second outage.
    """
    # Beyond 2**60 every bound is the cap; the power itself must stay small.
    bound = min(cap_seconds, base_seconds * 2.0 ** min(max(attempts - 1, 0), 60))
    return random.uniform(0, bound)  # noqa: S311  no secret hangs on it


def spread(seconds: float) -> float:
    """A wait that somebody named, and up to a tenth more, so that not all come back at once."""
    return seconds * random.uniform(1.0, 1.1)  # noqa: S311


def wait(curve: str | None, attempts: int, base_seconds: float, cap_seconds: float) -> float:
    """Seconds to wait after the given number of attempts, by a job's curve; None is full jitter.

    A curve is the same each time (``fixed``), grows by the base (``linear``), doubles (``exponential``)
    or is a list of waits such as ``1,5,30``, of which the last one repeats. A ``Ramp`` has some chance.
    """
    if curve is None:
        return full_jitter(attempts, base_seconds, cap_seconds)
    if curve.startswith(RAMP):
        return Ramp.read(curve).wait(attempts)
    number = max(attempts, 1)
    if curve == FIXED:
        seconds = base_seconds
    elif curve == LINEAR:
        seconds = base_seconds * number
    elif curve == EXPONENTIAL:
        seconds = base_seconds * 2.0 ** min(number - 1, 60)
    else:
        waits = listed(curve)
        return waits[min(number, len(waits)) - 1]
    return min(seconds, cap_seconds)


def listed(curve: str) -> list[float]:
    """The waits of a curve that lists them; ValueError where it is none."""
    if len(curve) > 200:
        raise ValueError("too long")
    waits = [float(part) for part in curve.split(",")]
    if len(waits) > MAX_WAITS or not all(0 <= seconds <= MAX_WAIT_SECONDS for seconds in waits):
        raise ValueError("too many waits, or one that is too long")
    return waits


def first_wait(curve: str) -> float:
    """The wait that a curve begins with, of one that writes its waits out."""
    return Ramp.read(curve).interval(1) if curve.startswith(RAMP) else listed(curve)[0]


def is_curve(curve: str) -> bool:
    if curve in (FIXED, LINEAR, EXPONENTIAL):
        return True
    try:
        return bool(Ramp.read(curve) if curve.startswith(RAMP) else listed(curve))
    except ValueError:
        return False
