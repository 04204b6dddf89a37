"""How passwords are hashed: as Django does it, but while somebody guesses after everything else."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from django.contrib.auth.hashers import PBKDF2PasswordHasher

from authn.hashing import gate

# A hash keeps a core busy for a fifth of a second; whoever guesses passwords pays for it, not the others.
# Only then: beside jobs that keep all cores busy a hash that makes way takes seconds.
NICENESS = 10


class PatientPBKDF2PasswordHasher(PBKDF2PasswordHasher):
    """Stores and reads what Django's own does; any password of either is one of the other."""

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        def hashed() -> str:
            return PBKDF2PasswordHasher.encode(self, password, salt, iterations)

        return _after_others(hashed) if gate.is_suspicious else hashed()


def _after_others(call: Callable[[], str]) -> str:
    # A thread for each: one that made way once cannot ask for its place back.
    with ThreadPoolExecutor(1, "hash", _make_way) as thread:
        return thread.submit(call).result()


def _make_way() -> None:
    # Elsewhere a priority is that of a whole process.
    if sys.platform == "linux":
        with suppress(OSError):
            own = os.getpriority(os.PRIO_PROCESS, 0)
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), min(own + NICENESS, 19))
