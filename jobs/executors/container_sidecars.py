"""Whether a sidecar is ready: what it answers to a GET."""

from __future__ import annotations

import asyncio
import http.client
import time
from collections.abc import Callable

from jobs.executors.container_engine import threaded
from jobs.executors.container_request import Probe

PROBE_EVERY_SECONDS = 1.0
# The first probes come quicker: most are ready at once.
PROBE_FIRST_SECONDS = 0.05
ANSWER_SECONDS = 5.0


class ProbeFailed(Exception):
    """The sidecar did not become ready."""


async def wait_until_ready(address: str, probe: Probe, has_ended: Callable[[], bool]) -> None:
    """Ask until the answer is 200; raise ``ProbeFailed`` when there is none in time."""
    deadline = time.monotonic() + probe.timeout_seconds
    wait = PROBE_FIRST_SECONDS
    while True:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ProbeFailed(f"probe timed out after {probe.timeout_seconds:g} s")
        if has_ended():
            raise ProbeFailed("it ended before it was ready")
        if await threaded(lambda: _is_ready(address, probe, min(left, ANSWER_SECONDS))):  # noqa: B023
            return
        await asyncio.sleep(min(wait, max(deadline - time.monotonic(), 0)))
        wait = min(wait * 2, PROBE_EVERY_SECONDS)


def _is_ready(address: str, probe: Probe, seconds: float) -> bool:
    connection = http.client.HTTPConnection(address, probe.port, timeout=seconds)
    try:
        connection.request("GET", probe.path, headers={"Connection": "close"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
