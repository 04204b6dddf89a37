"""The fuse: a node that cannot be heard is dead before others may start its jobs.

Its loop sees to that itself and comes back as a new node, as long as it gets to it. But a network that
swallows packets holds loop and heartbeat in calls that do not return, while the children work on. This
thread never touches the database: it waits until two thirds of the lease have passed without an answer,
gives the loop a moment, and ends the process; the children die with it.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)

EXIT_CUT_OFF = 70


class Fuse(threading.Thread):
    """Watches over one lease until ``disarmed`` is set."""

    def __init__(
        self,
        lease_seconds: float,
        is_in_doubt: Callable[[], bool],
        wake: Callable[[], None],
        disarmed: threading.Event,
    ) -> None:
        super().__init__(name="fuse", daemon=True)
        # Half of what is left of the lease; the other half is for the children to die in.
        self._moment = lease_seconds / 6
        self._is_in_doubt = is_in_doubt
        self._wake = wake
        self._disarmed = disarmed

    def run(self) -> None:
        while not self._disarmed.wait(self._moment / 5):
            if not self._is_in_doubt():
                continue
            # It may be asleep until the database is to be tried again, or the whole process may have been
            # stopped for a while: the loop goes first.
            self._wake()
            if not self._disarmed.wait(self._moment) and self._is_in_doubt():
                logger.critical("the lease is nearly over and the loop does not answer; ending")
                os._exit(EXIT_CUT_OFF)
