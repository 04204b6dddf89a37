"""Run other programs: to their end, or beside a block that leaves nothing of them behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

Command = Sequence[str | Path]
Processes = list[subprocess.Popen[bytes]]
STOP_SECONDS = 15


def run(command: Command, environment: dict[str, str], timeout: float = 1200) -> str:
    """What the program prints; a failure raises with what it complained of."""
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command[-1]} failed: {done.stderr[-2000:]}")
    return done.stdout


@contextmanager
def started(
    commands: Sequence[Command], environment: dict[str, str], log: Path
) -> Iterator[Processes]:
    """Run the programs beside the block, each in a process group of its own."""
    with log.open("ab") as output, ExitStack() as stack:
        processes: Processes = []
        stack.callback(_stop, processes)
        for command in commands:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            processes.append(process)
        yield processes


def _stop(processes: Processes) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.1, deadline - time.monotonic()))
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
