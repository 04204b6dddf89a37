"""What executors are called with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from jobs.executors import Assignment

CORPORA = Path(__file__).parents[2] / "corpora"
T = TypeVar("T")


def make_assignment(payload: Any, **fields: Any) -> Assignment:
    """One attempt at a job of its own."""
    defaults: dict[str, Any] = {
        "seq": 0,
        "id": str(uuid4()),
        "fence": 7,
        "kind": "any",
        "type": "",
        "queue": "default",
        "attempt": 2,
        "max_attempts": 5,
        "timeout_seconds": 10.0,
        "grace_seconds": 5.0,
    }
    return Assignment(payload=payload, **{**defaults, **fields})


class Recorder:
    """Keeps what an attempt writes."""

    def __init__(self) -> None:
        self.written: list[tuple[str, str, str | None]] = []
        self.percents: list[float] = []

    def write(self, stream: str, text: str, level: str | None = None) -> None:
        self.written.append((stream, text, level))

    def progress(self, percent: float) -> None:
        self.percents.append(percent)

    def text(self, stream: str) -> str:
        return "".join(text for name, text, _ in self.written if name == stream)


def corpus(name: str) -> list[str]:
    """The cases of a corpus; comments begin with `# `, a case in quotes is a JSON string."""
    lines = (CORPORA / name).read_text(encoding="utf-8").splitlines()
    cases = [line for line in lines if line and not line.startswith("# ")]
    return [json.loads(case) if case.startswith('"') else case for case in cases]


def in_loop(work: Coroutine[Any, Any, T], seconds: float = 60.0) -> T:
    """Run to the end in a loop of its own; a test that hangs fails."""
    return asyncio.run(asyncio.wait_for(work, seconds))
