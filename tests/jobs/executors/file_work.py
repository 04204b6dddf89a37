"""Jobs of kind `files` for tests: with real files, cancelled at any look at the token."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

from jobs.executors import Outcome, files
from jobs.executors.file_drafts import is_temporary


class FakeWork:
    """What a process child hands to an executor. ``cancels`` is asked at each look at the token."""

    def __init__(self, fence: int = 1, job: str = "", cancels: Callable[[], bool] | None = None):
        self.id = job or str(uuid4())
        self.fence = fence
        self.max_result_bytes = 65_536
        self.looks = 0
        self.lines: list[tuple[str, str]] = []
        self.told: list[float] = []
        self._cancels = cancels

    @property
    def cancelled(self) -> bool:
        self.looks += 1
        return self._cancels is not None and self._cancels()

    def log(self, *parts: object, level: str = "info") -> None:
        self.lines.append((level, " ".join(map(str, parts))))

    def progress(self, percent: float, note: str = "") -> None:
        self.told.append(percent)


def attempt(operation: str, path: str, to: Any = None, **more: Any) -> Outcome:
    """Run one job below the root `in`; ``to`` is a path below the root `out`."""
    work = more.pop("work", None) or FakeWork()
    payload: dict[str, Any] = {"operation": operation, "root": "in", "path": path, **more}
    if to is not None:
        payload["to"] = {"root": "out", "path": to} if isinstance(to, str) else to
    return files.run(work, payload)


def done(operation: str, path: str, to: Any = None, **more: Any) -> dict[str, Any]:
    """The result of a job that works."""
    outcome = attempt(operation, path, to, **more)
    assert outcome.ok, outcome
    return outcome.result


def write(path: Path, content: str | bytes = "x", age: float = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    if age:
        moment = time.time() - age
        os.utime(path, (moment, moment))
    return path


def tree(folder: Path) -> dict[str, bytes]:
    """All regular files below a folder with their contents; drafts too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def drafts(*folders: Path) -> list[Path]:
    return [p for folder in folders for p in folder.rglob(".*") if is_temporary(p.name)]
