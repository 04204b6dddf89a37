"""Child processes of a command that runs others: started together, ended together."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
# A node cuts its work short in less, and gunicorn drops its requests.
HURRIED_SECONDS = 5.0
MANAGE = Path(__file__).resolve().parent.parent.parent / "manage.py"


class Children:
    """Processes of ours by name. None outlives this one, however it ends."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = dict(environment)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, tuple[tuple[str, ...], float]] = {}

    def start(self, name: str, *arguments: str) -> None:
        """Start `manage.py` with these arguments."""
        self._started[name] = (arguments, time.monotonic())
        self._processes[name] = subprocess.Popen(  # noqa: S603  our own program
            [sys.executable, str(MANAGE), *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            # A terminal's Ctrl-C is for the parent, which ends them in order.
            start_new_session=True,
            preexec_fn=_die_with_parent(os.getpid()),
        )

    def dead(self) -> list[tuple[str, int]]:
        """Names and exit codes of those that have ended by themselves."""
        ended = ((name, process.poll()) for name, process in self._processes.items())
        return [(name, code) for name, code in ended if code is not None]

    def start_again(self, name: str) -> None:
        """Replace one that has ended, and end what it left behind."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._processes[name].pid, signal.SIGKILL)
        self.start(name, *self._started[name][0])

    def age_seconds(self, name: str) -> float:
        """How long ago it was started."""
        return time.monotonic() - self._started[name][1]

    def stop(self, grace_seconds: float, is_hurried: Callable[[], bool]) -> list[str]:
        """Ask all to end, again when somebody gets impatient, and kill what is left then.

        A node that is asked twice releases its jobs; killed, it would leave them to be rescued and
        charged with a crash.
        """
        self._terminate()
        deadline, hurried = time.monotonic() + grace_seconds, False
        while self._living() and time.monotonic() < deadline:
            if is_hurried() and not hurried:
                hurried, deadline = True, time.monotonic() + HURRIED_SECONDS
                self._terminate()
            time.sleep(0.05)
        killed = self._living()
        for process in self._processes.values():
            # The group too: what a killed parent could not end any more.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return killed

    def _terminate(self) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()

    def _living(self) -> list[str]:
        return [name for name, process in self._processes.items() if process.poll() is None]


def run(
    environment: Mapping[str, str], *arguments: str, is_shown: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `manage.py` to its end; unless it is shown, its output is kept for whoever asked."""
    return subprocess.run(  # noqa: S603  our own program
        [sys.executable, str(MANAGE), *arguments],
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=None if is_shown else subprocess.PIPE,
        stderr=None if is_shown else subprocess.STDOUT,
        text=True,
        check=False,
    )


def _die_with_parent(parent: int) -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def in_child() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the line above
            os.kill(os.getpid(), signal.SIGTERM)

    return in_child
