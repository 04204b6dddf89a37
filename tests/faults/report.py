"""One line of JSON per test: what ran, at which scale, with which figures."""

from __future__ import annotations

import json
import os
import subprocess
import time
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent


def path() -> Path:
    """Where the lines go: named by the runner, else beside this run's other files."""
    from tests import settings

    return Path(os.environ.get("FAULTS_REPORT", settings.TEST_DIR / "faults.jsonl"))


def scale() -> float:
    """Counts and durations of every test are multiplied by this; 1 is what ENGINE.md says."""
    return float(os.environ.get("FAULTS_SCALE", "1"))


def scaled(count: float, *, least: int = 1) -> int:
    return max(round(count * scale()), least)


@cache
def seed() -> int:
    return int(os.environ.get("FAULTS_SEED", time.time_ns() % 1_000_000))


@cache
def commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def write(test: str, verdict: str, took: float, figures: dict[str, Any]) -> None:
    from tests import settings

    line = {
        "test": test,
        "verdict": verdict,
        "backend": settings.BACKEND,
        "seed": seed(),
        "commit": commit(),
        "scale": scale(),
        "seconds": round(took, 1),
        **figures,
    }
    with path().open("a") as file:
        file.write(json.dumps(line, default=str) + "\n")


def lines() -> list[dict[str, Any]]:
    if not path().exists():
        return []
    return [json.loads(line) for line in path().read_text().splitlines()]


def percentile(values: list[float], share: float) -> float | None:
    """The value that so large a share does not exceed; None where there is none."""
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(int(len(ordered) * share), len(ordered) - 1)], 4)
