"""Containers for the tests of kind `container`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from jobs.executors import Assignment, Outcome, container
from tests.engines import IMAGE
from tests.jobs.executors.attempts import Recorder, in_loop, make_assignment
from tests.settings import BACKEND

once = pytest.mark.skipif(
    BACKEND == "postgresql", reason="asks no database; runs with the suite on SQLite"
)
# Enough for a loaded machine.
SECONDS = 120.0


def outcome_of(recorder: Recorder | None = None, **payload: Any) -> Outcome:
    assignment = make_assignment({"image": IMAGE, **payload})
    return in_loop(container.run(assignment, recorder or Recorder()), SECONDS)


def output_of(run: str, **payload: Any) -> str:
    """What a script that works prints."""
    recorder = Recorder()
    outcome = outcome_of(recorder, run=run, **payload)
    assert outcome.ok, (outcome, recorder.written)
    return recorder.text("stdout")


async def until(condition: Any) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(
    recorder: Recorder, grace_seconds: float = 5.0, **payload: Any
) -> AsyncIterator[tuple[asyncio.Task[Outcome], Assignment]]:
    """A container that was started and has printed `ready`."""
    assignment = make_assignment({"image": IMAGE, **payload}, grace_seconds=grace_seconds)
    task = asyncio.create_task(container.run(assignment, recorder))
    await until(lambda: task.done() or "ready" in recorder.text("stdout"))
    assert not task.done(), task.result()
    yield task, assignment
