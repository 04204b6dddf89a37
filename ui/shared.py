"""What many look at is worked out once: live parts are kept for a moment, in each process by itself.

Twenty people who watch a page ask for the same thing again and again. A part is shared among those who
ask for the same of the same cluster with the same rights; whoever makes it does so as nobody in
particular. What is kept is bounded in number and in age, and a page that is loaded anew is never old.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Value = TypeVar("Value")

# Pages ask every five seconds; so old may be what somebody else has asked for.
MOST, SECONDS = 64, 2.0


@dataclass(slots=True)
class _Kept(Generic[Value]):
    making: threading.Lock = field(default_factory=threading.Lock)
    made_at: float = float("-inf")
    value: list[Value] = field(default_factory=list)


class Shared(Generic[Value]):
    """Values by key, each at most so many seconds old, the most recently asked for."""

    def __init__(self, most: int = MOST, seconds: float = SECONDS) -> None:
        self.seconds = seconds
        self._most = most
        self._kept: OrderedDict[Hashable, _Kept[Value]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value], *, times: float = 1) -> Value:
        """What is kept, or what is made now; who asks meanwhile waits for that one.

        What changes slowly may be so many times as old.
        """
        kept = self._of(key)
        with kept.making:
            if time.monotonic() - kept.made_at > self.seconds * times:
                kept.value[:] = [make()]
                kept.made_at = time.monotonic()
            return kept.value[0]

    def put(self, key: Hashable, value: Value) -> Value:
        """Keep what was made anew."""
        kept = self._of(key)
        with kept.making:
            kept.value[:] = [value]
            kept.made_at = time.monotonic()
        return value

    def forget(self) -> None:
        with self._lock:
            self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)

    def _of(self, key: Hashable) -> _Kept[Value]:
        with self._lock:
            kept = self._kept.setdefault(key, _Kept())
            self._kept.move_to_end(key)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
            return kept
