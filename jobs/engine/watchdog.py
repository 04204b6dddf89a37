"""The watchdog: a loop that makes no progress for three periods ends its node.

Backing off is progress; hanging is not. A node with one dead loop is half a node: it holds leases, and
nobody sees that it does not do what they are for. It exits, its children die with it, its supervisor
starts a new one.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading

from jobs.engine.clock import countdown

logger = logging.getLogger(__name__)

# The longest single call of a loop: SQLite's wait for its write lock, twice PostgreSQL's statement limit.
PERIOD_SECONDS = 10.0
# So many periods without a sign: not well; then: not alive.
LATE_PERIODS, STUCK_PERIODS = 2, 3
EXIT_STUCK = 70


class Pulse:
    """The sign of life of one loop."""

    def __init__(self, name: str, period_seconds: float) -> None:
        self.name = name
        self.period_seconds = period_seconds
        self.last_at = countdown()
        self._is_fresh = True
        # Without a sign, as far as the watchdog itself was there to see it.
        self.still_seconds = 0.0

    def beat(self) -> None:
        self.last_at = countdown()
        self._is_fresh = True

    def look(self, elapsed: float) -> None:
        """Another stretch of time has passed."""
        if self._is_fresh:
            self._is_fresh = False
            self.still_seconds = 0.0
        else:
            self.still_seconds += elapsed

    @property
    def is_late(self) -> bool:
        return self.still_seconds > LATE_PERIODS * self.period_seconds

    @property
    def is_stuck(self) -> bool:
        return self.still_seconds > STUCK_PERIODS * self.period_seconds


class Watchdog(threading.Thread):
    """Watches pulses until ``stop``."""

    def __init__(self, node: str) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._node = node
        self._pulses: dict[str, Pulse] = {}
        self._stopping = threading.Event()
        self._looked_at = countdown()

    def watch(self, name: str, period_seconds: float = 0.0) -> Pulse:
        """Watch a loop from now on, in place of a former one of the same name."""
        pulse = Pulse(name, max(period_seconds, PERIOD_SECONDS))
        self._pulses[name] = pulse
        return pulse

    def forget(self, pulse: Pulse) -> None:
        """The loop has ended as it should."""
        if self._pulses.get(pulse.name) is pulse:
            del self._pulses[pulse.name]

    def pulses(self) -> list[Pulse]:
        return [*self._pulses.values()]

    def stop(self) -> None:
        self._stopping.set()

    def run(self) -> None:
        while not self._stopping.wait(self._tick()):
            for pulse in self.look():
                logger.critical(
                    "the loop %r of %s makes no progress for %.0f s; ending the node",
                    pulse.name,
                    self._node,
                    countdown() - pulse.last_at,
                )
                # Where it hangs; files and lines only.
                faulthandler.dump_traceback(sys.__stderr__ or sys.stderr)
                # Its children die with it, and its jobs are rescued when the lease is over.
                os._exit(EXIT_STUCK)

    def look(self) -> list[Pulse]:
        """The loops that are stuck."""
        now = countdown()
        # A whole process that was stopped for a while has not hung: only time that we were awake counts.
        elapsed = min(now - self._looked_at, 2 * self._tick())
        self._looked_at = now
        pulses = self.pulses()
        for pulse in pulses:
            pulse.look(elapsed)
        return [pulse for pulse in pulses if pulse.is_stuck]

    def _tick(self) -> float:
        shortest = min((pulse.period_seconds for pulse in self.pulses()), default=PERIOD_SECONDS)
        return shortest / 10
