"""`manage.py serve` on a free port, and a key that it lets in."""

from __future__ import annotations

import json
import re
import secrets
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from benchmarks.contestants import Ours
from benchmarks.load import Target, fetch
from benchmarks.processes import started
from benchmarks.producer import CLUSTER

WORKERS = 2
START_SECONDS = 30
JOBS = f"/jm-api/{CLUSTER}/jobs"
KEY = re.compile(r"ym_\w+")


@contextmanager
def served(ours: Ours) -> Iterator[Target]:
    """The API of ``ours`` on its present database, for the length of the block."""
    with watched(ours) as (target, _):
        yield target


@contextmanager
def watched(ours: Ours) -> Iterator[tuple[Target, int]]:
    """The same, with the process id of the server."""
    name = f"bench-{secrets.token_hex(4)}"
    text = ours.manage("keys", "create", "--name", name, "--role", "admin", "--all-clusters")
    match = KEY.search(text)
    assert match, text
    target = Target("127.0.0.1", _free_port(), match[0])
    bind = f"{target.host}:{target.port}"
    command = [sys.executable, "manage.py", "serve", "--bind", bind, "--workers", str(WORKERS)]
    with started([command], ours.environment, ours.log) as processes:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and processes[0].poll() is None:
            with suppress(OSError):
                status, body = fetch(target, target.request("GET", f"{JOBS}?limit=1"))
                if status == 200 and "items" in json.loads(body):
                    break
            time.sleep(0.1)
        else:
            raise RuntimeError(f"the server did not start\n{ours.log_tail()}")
        yield target, processes[0].pid


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
