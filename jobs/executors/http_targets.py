"""Which hosts ``http`` jobs had better leave alone for a while; in the memory of one io child.

Two rules for each target, which is a host and a port. When the last calls all failed, its circuit is
open: jobs come back later, one at a time tries whether it answers again. And of all calls only a share
may be retries: one that is over it comes back later. Coming back later spends no attempt.
"""

from __future__ import annotations

import random
import time
from collections import OrderedDict
from dataclasses import dataclass

# So many calls in a row without an answer, or with one of 500 and above, open the circuit.
FAILURES = 10
OPEN_SECONDS = 5.0
MOST_OPEN_SECONDS = 60.0
# A retry spends one, each call earns a tenth; the reserve, which fills up slowly by itself, lets single
# jobs be retried at all.
RETRY_SHARE = 0.1
RETRY_RESERVE = 10.0
RETRIES_PER_SECOND = 0.1
RETRY_PAUSE_SECONDS = 5.0
MOST_TARGETS = 1000


@dataclass(slots=True)
class _Target:
    failures: int = 0
    open_seconds: float = 0.0
    open_until: float = 0.0
    probe_until: float = 0.0
    retries_left: float = RETRY_RESERVE
    called_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A call that is not made now, and when to ask again."""

    why: str
    seconds: float


class Targets:
    """The targets called of late; the one not called for longest is forgotten first."""

    def __init__(self) -> None:
        self._targets: OrderedDict[tuple[str, int], _Target] = OrderedDict()

    def refuse(self, host: str, port: int, *, is_retry: bool, seconds: float) -> Refusal | None:
        """Say why a call that may take so long had better not be made now; None: it is made."""
        target, now = self._of(host, port), time.monotonic()
        earned = (now - target.called_at) * RETRIES_PER_SECOND
        target.retries_left = min(target.retries_left + earned, RETRY_RESERVE)
        target.called_at = now
        if is_retry and target.retries_left < 1.0:
            return Refusal(f"too many retries at {host}", _scattered(RETRY_PAUSE_SECONDS))
        if target.failures >= FAILURES:
            if now < max(target.open_until, target.probe_until):
                wait = max(target.open_until - now, OPEN_SECONDS)
                return Refusal(f"{host} has not answered for a while", _scattered(wait))
            target.probe_until = now + min(seconds, MOST_OPEN_SECONDS)
        target.retries_left += RETRY_SHARE - (1.0 if is_retry else 0.0)
        return None

    def note(self, host: str, port: int, *, answered: bool) -> None:
        """Remember how a call ended."""
        target = self._of(host, port)
        target.probe_until = 0.0
        if answered:
            target.failures, target.open_seconds = 0, 0.0
            return
        target.failures += 1
        if target.failures >= FAILURES:
            target.open_seconds = min(max(target.open_seconds * 2, OPEN_SECONDS), MOST_OPEN_SECONDS)
            target.open_until = time.monotonic() + target.open_seconds

    def forget_probe(self, host: str, port: int) -> None:
        """A call was stopped before it could tell anything."""
        self._of(host, port).probe_until = 0.0

    def _of(self, host: str, port: int) -> _Target:
        key = (host, port)
        target = self._targets.setdefault(key, _Target())
        self._targets.move_to_end(key)
        if len(self._targets) > MOST_TARGETS:
            self._targets.popitem(last=False)
        return target


def _scattered(seconds: float) -> float:
    """Those who wait for the same host do not come back together."""
    return seconds * random.uniform(1.0, 2.0)  # noqa: S311
