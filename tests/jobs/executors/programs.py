"""Programs for the tests of `shell`, and looking for what they leave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.executors import Assignment, Outcome, shell, shell_processes
from tests.jobs.executors.attempts import Recorder, in_loop, make_assignment

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run as somebody else")


async def attempt(recorder: Recorder | None = None, **payload: Any) -> Outcome:
    return await shell.run(make_assignment(payload), recorder or Recorder())


def output_of(script: str, **payload: Any) -> str:
    """What a script that works prints."""
    recorder = Recorder()
    outcome = in_loop(attempt(recorder, script=script, **payload))
    assert outcome.ok, (outcome, recorder.written)
    return recorder.text("stdout")


def living(marker: str) -> list[int]:
    """Processes with the marker among their arguments; finds what the executor may have lost."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if marker.encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found


def folders() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("yardmaster-shell-*"))


def children() -> set[int]:
    """Children of this process, dead ones that nobody has asked for included."""
    return {one.pid for one in shell_processes.scan() if one.parent == os.getpid()}


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextlib.asynccontextmanager
async def running(
    script: str, recorder: Recorder | None = None, **fields: Any
) -> AsyncIterator[tuple[asyncio.Task[Outcome], Assignment]]:
    """A script that was started and has printed `ready`."""
    recorder = recorder or Recorder()
    assignment = make_assignment({"script": script}, **fields)
    task = asyncio.create_task(shell.run(assignment, recorder))
    await until(lambda: task.done() or "ready" in recorder.text("stdout"))
    assert not task.done(), task.result()
    yield task, assignment


async def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def cancelled(task: asyncio.Task[Outcome]) -> float:
    """Cancel and return how long the end took."""
    began_at = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return time.monotonic() - began_at
