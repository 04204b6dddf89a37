"""Who is measured: Yardmaster on a database, or a peer. All are driven in the same way."""

from __future__ import annotations

import json
import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks import marks
from benchmarks.processes import ROOT, Command, Processes, run, started
from benchmarks.producer import CLUSTER
from benchmarks.server import Server


@dataclass(frozen=True, slots=True)
class Setting:
    """One way to run workers: a name for the table, and for each process its arguments."""

    name: str
    nodes: int
    arguments: Sequence[str]


class Contestant(ABC):
    name: str
    # Drains use no more jobs than this.
    most_jobs: int = sys.maxsize
    settings: Sequence[Setting]
    # How pick-up latency is measured.
    idle: Setting

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.marks = directory / "marks"
        self.log = directory / f"{self.name.replace(' ', '-')}.log"

    @property
    @abstractmethod
    def environment(self) -> dict[str, str]: ...

    @abstractmethod
    def _make_database(self) -> None: ...

    @abstractmethod
    def _producer(self, verb: str) -> Command: ...

    @abstractmethod
    def _worker(self, arguments: Sequence[str]) -> Command: ...

    def prepare(self) -> None:
        """Begin anew: an empty database, no marks."""
        shutil.rmtree(self.marks, ignore_errors=True)
        self.marks.mkdir()
        self._make_database()

    def produce(self, verb: str, *numbers: float) -> Any:
        command = [*self._producer(verb), *(f"{number:g}" for number in numbers)]
        lines = run(command, self.environment).strip().splitlines()
        return json.loads(lines[-1])

    def log_tail(self) -> str:
        """What its processes said last; the file itself is gone when an error is read."""
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def workers(self, setting: Setting) -> AbstractContextManager[Processes]:
        commands = [self._worker(setting.arguments)] * setting.nodes
        return started(commands, self.environment, self.log)


class Ours(Contestant):
    """Yardmaster, started as everybody starts it."""

    name = "yardmaster"
    settings = [
        Setting("1 node, concurrency 1", 1, ["1"]),
        Setting("1 node, concurrency 2", 1, ["2"]),
        Setting("2 nodes, concurrency 1", 2, ["1"]),
        Setting("2 nodes, concurrency 2", 2, ["2"]),
    ]
    idle = Setting("1 node, concurrency 2", 1, ["2"])

    def __init__(self, directory: Path, server: Server) -> None:
        super().__init__(directory)
        self.server = server
        self.home = directory / "home"
        self.home.mkdir(exist_ok=True)
        self._control = server.create("control")
        self._template = server.create("template")
        self._database = self._template
        self.manage("migrate", "--verbosity", "0")

    @property
    def environment(self) -> dict[str, str]:
        return {
            **_inherited(),
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "PYTHONUNBUFFERED": "1",
            "YARDMASTER_HOME": str(self.home),
            "YARDMASTER_SECRET_KEY": "measured-and-thrown-away-0123456789-abcdefghijklmnopqrst",
            "YARDMASTER_DATABASE_URL": self.control_url,
            "YARDMASTER_CLUSTERS": f"{CLUSTER}={self.url}",
            "YARDMASTER_REQUESTS_PER_SECOND": "0",
            "YARDMASTER_HANDLERS": "benchmarks.handlers",
            marks.VARIABLE: str(self.marks),
        }

    @property
    def control_url(self) -> str:
        return self.server.url(self._control)

    @property
    def url(self) -> str:
        return self.server.url(self._database)

    @property
    def database_names(self) -> list[str]:
        """As the server knows them; none where there is no server."""
        return [self._control, self._database]

    def manage(self, *arguments: str, **variables: str) -> str:
        environment = {**self.environment, **variables}
        return run([sys.executable, "manage.py", *arguments], environment)

    def _make_database(self) -> None:
        # A copy of the migrated database: migrations would take longer than many a measurement.
        self._database = self.server.create("main", template=self._template)
        self.server.checkpoint()

    def _producer(self, verb: str) -> Command:
        return [sys.executable, "-m", "benchmarks.producer", verb]

    def _worker(self, arguments: Sequence[str]) -> Command:
        (concurrency,) = arguments
        worker = [sys.executable, "manage.py", "worker", "--cluster", CLUSTER]
        return [*worker, "--concurrency", concurrency]


class OursOnSqlite(Ours):
    """The same on the embedded default; one node, as it is meant."""

    name = "yardmaster on SQLite"
    most_jobs = 10_000
    settings = [Setting("1 node, concurrency 2", 1, ["2"])]

    def __init__(self, directory: Path) -> None:
        Contestant.__init__(self, directory)
        self.home = directory / "home-sqlite"
        self.home.mkdir(exist_ok=True)
        self.manage("migrate", "--verbosity", "0")
        self._template_file = self.home / "template.sqlite3"
        # Closing the last connection has moved everything from the log into the file.
        self._file.rename(self._template_file)

    @property
    def control_url(self) -> str:
        return f"sqlite:///{quote(str(self.home / 'control.sqlite3'))}"

    @property
    def url(self) -> str:
        return f"sqlite:///{quote(str(self._file))}"

    @property
    def database_names(self) -> list[str]:
        return []

    @property
    def _file(self) -> Path:
        return self.home / "main.sqlite3"

    def _make_database(self) -> None:
        for path in self.home.glob("main.sqlite3*"):
            path.unlink()
        shutil.copy(self._template_file, self._file)


@dataclass(frozen=True, slots=True)
class PeerKind:
    """What we know of a peer: the best settings found for it, and how many jobs it gets through."""

    settings: Sequence[Setting]
    idle: Setting
    most_jobs: int = sys.maxsize


PEERS: Mapping[str, PeerKind] = {
    "pgqueuer": PeerKind(
        [
            Setting("1 process, batch 100", 1, ["1", "100"]),
            Setting("1 process, batch 500", 1, ["1", "500"]),
            Setting("2 processes, batch 100", 2, ["2", "100"]),
            Setting("2 processes, batch 500", 2, ["1", "500"]),
        ],
        Setting("1 process, batch 10", 1, ["1", "10"]),
    ),
    "procrastinate": PeerKind(
        [
            Setting("1 process, concurrency 10, uvloop", 1, ["10", "uvloop"]),
            Setting("2 processes, concurrency 10, uvloop", 2, ["10", "uvloop"]),
        ],
        Setting("1 process, concurrency 10", 1, ["10"]),
        most_jobs=6000,
    ),
}


class Peer(Contestant):
    """Another job queue, in a virtual environment of its own, driven by its adapter."""

    def __init__(self, name: str, harness: Path, directory: Path, server: Server) -> None:
        self.name = name
        super().__init__(directory)
        self.python = python_of(name, harness)
        self._adapter = harness / "adapters" / f"{name}_.py"
        self._server = server
        self.settings, self.idle = PEERS[name].settings, PEERS[name].idle
        self.most_jobs = PEERS[name].most_jobs
        # The adapters connect to this one, and make a second one of that name and `_peers`.
        self._database = server.create("base")

    @property
    def environment(self) -> dict[str, str]:
        return {
            **_inherited(),
            "PYTHONDONTWRITEBYTECODE": "1",
            "BENCH_PG_HOST": quote(self._server.host, safe=""),  # may be a directory of a socket
            "BENCH_PG_PORT": self._server.port,
            "BENCH_PG_USER": self._server.user,
            "BENCH_PG_PASSWORD": self._server.password,
            "BENCH_PG_DB": self._database,
            marks.VARIABLE: str(self.marks),
        }

    def _make_database(self) -> None:
        run(self._producer("setup"), self.environment)
        self._server.checkpoint()

    def _producer(self, verb: str) -> Command:
        return [self.python, self._adapter, verb]

    def _worker(self, arguments: Sequence[str]) -> Command:
        return [self.python, self._adapter, "worker", *arguments]

    def version(self) -> str:
        ask = f"import importlib.metadata as m; print(m.version({self.name!r}))"
        return run([self.python, "-c", ask], self.environment).strip()

    def close(self) -> None:
        self._server.drop(f"{self._database}_peers")


def python_of(name: str, harness: Path) -> Path:
    """Where the peer's interpreter should be: below $BENCH_HOME, as its set-up script makes it."""
    home = Path(os.environ.get("BENCH_HOME") or harness / ".bench")
    return home / "venvs" / name / "bin" / "python"


def _inherited() -> dict[str, str]:
    ours = ("YARDMASTER_", "BENCH_", "DJANGO_", "PYTHONPATH")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "PYTHONPATH": str(ROOT)}
