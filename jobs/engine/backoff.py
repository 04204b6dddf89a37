"""Retry timing; pure arithmetic."""

from __future__ import annotations

import random

# Curves without chance, for those who promised their users certain waits.
FIXED, LINEAR, EXPONENTIAL = "fixed", "linear", "exponential"
# Most waits that a curve may list, and the longest of them.
MAX_WAITS, MAX_WAIT_SECONDS = 20, 7 * 86400


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
    or is a list of waits such as ``1,5,30``, of which the last one repeats.
    """
    if curve is None:
        return full_jitter(attempts, base_seconds, cap_seconds)
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


def is_curve(curve: str) -> bool:
    if curve in (FIXED, LINEAR, EXPONENTIAL):
        return True
    try:
        return bool(listed(curve))
    except ValueError:
        return False
