"""Run the fault suite with what it measures in sight; `--help` says how."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults import mutations

ROOT = Path(__file__).resolve().parent.parent.parent
BACKENDS = ("sqlite", "postgresql")
# The small tests, which every commit runs, are run here with so many times their counts.
TIMES = 10.0
# Where tests are; elsewhere only the long ones are ours.
FOLDER, ELSEWHERE = "tests/faults", ("tests/authn", "tests/matrix")
# No test is waited for longer than this.
MINUTES = 60


def main() -> int:
    options = _arguments()
    chosen = options.words
    lines_file = Path(tempfile.mkdtemp(prefix="yardmaster-faults-")) / "faults.jsonl"
    tests = [] if options.mutations else _select(options.backend, chosen)
    if options.list:
        for backend, test, is_long in tests:
            print(f"{backend:10}  {'long ' if is_long else 'small'}  {test}")
        for one in mutations.MUTATIONS:
            print(f"{'/'.join(one.backends):10}  guard  {one.guard}  ({one.test})")
        return 0
    begun = time.monotonic()
    bad: list[str] = []
    for number, (backend, test, is_long) in enumerate(tests, 1):
        name = test.rpartition("::")[2]
        print(f"[{_clock(begun)}] {number}/{len(tests)} {backend} {name}", flush=True)
        scale = options.scale * (1.0 if is_long else TIMES)
        if not _run(backend, test, scale, lines_file, options.seed):
            bad.append(f"{backend} {name}")
    if not (options.no_mutations or (chosen and not options.mutations)):

        def tell(guard: str, backend: str, verdict: str, seconds: float) -> None:
            line = {
                "guard": guard,
                "backend": backend,
                "verdict": verdict,
                "seconds": round(seconds),
            }
            print(json.dumps(line), flush=True)
            if verdict != "red":
                bad.append(f"{backend} without {guard}: {verdict}")

        mutations.run(chosen, tell)
    print(f"\n{_clock(begun)}; lines of JSON in {lines_file}")
    unknown = [line for line in _lines(lines_file) if line["verdict"] == "unknown"]
    for line in unknown:
        print(f"unknown: {line['backend']} {line['test']}: {line.get('why')}")
    print("\n".join(f"BAD: {name}" for name in bad) or "all good")
    return bool(bad)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("words", nargs="*", help="only tests whose name holds one of these")
    parser.add_argument("--list", action="store_true", help="show what there is, and run nothing")
    parser.add_argument("--backend", choices=BACKENDS, action="append", help="only this database")
    parser.add_argument("--scale", type=float, default=1.0, help="counts and durations times this")
    parser.add_argument("--seed", type=int, default=time.time_ns() % 1_000_000)
    parser.add_argument("--mutations", action="store_true", help="only remove guards")
    parser.add_argument("--no-mutations", action="store_true", help="leave the guards alone")
    return parser.parse_args()


def _select(backends: Sequence[str] | None, words: Sequence[str]) -> list[tuple[str, str, bool]]:
    """The tests to run, by backend, each with whether it is one of the long ones."""
    found = []
    for backend in backends or BACKENDS:
        for is_long in (False, True):
            for test in _collect(backend, "long" if is_long else "not long"):
                if not words or any(word in test for word in words):
                    found.append((backend, test, is_long))
    return found


def _collect(backend: str, marked: str) -> list[str]:
    folders = (FOLDER, *ELSEWHERE) if marked == "long" else (FOLDER,)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", marked, *folders],
        cwd=ROOT,
        env={**os.environ, "YARDMASTER_TEST_BACKEND": backend},
        capture_output=True,
        text=True,
        check=False,
    )
    names = [line for line in done.stdout.splitlines() if "::" in line]
    # Those that start no process are one run for each file, with all their parameters.
    return list(dict.fromkeys(_whole_file(name) for name in names))


def _whole_file(name: str) -> str:
    file = name.partition("::")[0]
    return file if file.endswith(("test_stale_holder.py", "test_mutations.py")) else name


def _run(backend: str, test: str, scale: float, lines_file: Path, seed: int) -> bool:
    before = len(_lines(lines_file))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "", test],
            cwd=ROOT,
            env={
                **os.environ,
                "YARDMASTER_TEST_BACKEND": backend,
                "FAULTS_REPORT": str(lines_file),
                "FAULTS_SCALE": str(scale),
                "FAULTS_SEED": str(seed),
            },
            capture_output=True,
            text=True,
            timeout=MINUTES * 60,
            check=False,
        )
    except subprocess.TimeoutExpired:
        print(f"no end within {MINUTES} minutes")
        return False
    for line in _lines(lines_file)[before:]:
        print(json.dumps(line), flush=True)
    if done.returncode:
        print(done.stdout[-6000:])
    return done.returncode == 0


def _lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _clock(begun: float) -> str:
    minutes, seconds = divmod(int(time.monotonic() - begun), 60)
    return f"{minutes}:{seconds:02}"


if __name__ == "__main__":
    sys.exit(main())
