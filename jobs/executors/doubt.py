"""For executors that are coroutines; apart, because who only checks payloads loads no event loop."""

from __future__ import annotations

from asyncio import CancelledError


class StoppedInDoubt(CancelledError):
    """Raised by a cancelled coroutine that cannot say whether its work happened."""
