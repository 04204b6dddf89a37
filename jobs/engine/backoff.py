"""Retry timing; pure arithmetic."""

from __future__ import annotations

import random


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
