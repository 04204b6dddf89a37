"""Nodes, clients and figures of one fault test."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from django.db import DatabaseError, InterfaceError, connections

from jobs.engine.enqueue import NewJob, enqueue_many
from jobs.errors import JobError
from tests.faults import ledger
from tests.faults.checker import Freeze, Verdict, check
from tests.faults.database import Database, plain_id
from tests.processes import ROOT, database_url, worker_environment

ALIAS = "cluster-alpha"
# So many times longer than a test thinks a busy machine may take for what is waited for.
PATIENCE = 4
OPEN = "('blocked', 'scheduled', 'ready', 'running', 'waiting')"


@dataclass(eq=False)
class Node:
    """One start of one worker."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    family: list[psutil.Process] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def processes(self) -> list[psutil.Process]:
        """The node, its template and its children."""
        with suppress(psutil.NoSuchProcess):
            own = psutil.Process(self.pid)
            return [own, *own.children(recursive=True)]
        return []

    def children(self) -> list[psutil.Process]:
        """Those that run jobs; the first child of the node is the template."""
        with suppress(psutil.NoSuchProcess, IndexError):
            return psutil.Process(self.pid).children()[0].children()
        return []

    def memory(self) -> int:
        total = 0
        for process in self.processes():
            with suppress(psutil.Error):
                total += process.memory_full_info().pss
        return total

    def is_up(self) -> bool:
        return b" is up: " in self.log.read_bytes()


@dataclass(frozen=True)
class Frozen:
    node: Node
    family: list[psutil.Process]
    begun_at: float


class Yard:
    """The cluster under test: a database, its nodes, and what clients were told."""

    def __init__(self, directory: Path, seed: int) -> None:
        self.directory = directory
        self.random = random.Random(seed)
        self.database = Database(database_url(ALIAS))
        self.ledger_path = directory / "ledger"
        self.nodes: list[Node] = []
        self.freezes: list[Freeze] = []
        self.accepted: list[str] = []
        self.refused: list[str] = []
        self.unknown: list[str] = []
        self.killed: list[tuple[str, float]] = []  # node ids in the database, and when

    # -- Nodes ---------------------------------------------------------------------------------------

    def start(
        self,
        *flags: str,
        concurrency: int = 4,
        env: dict[str, str] | None = None,
        root: Path = ROOT,
    ) -> Node:
        name = f"n{len(self.nodes) + 1}"
        log = self.directory / f"{name}.log"
        variables = {
            "YARDMASTER_HANDLERS": "tests.faults.handlers",
            ledger.PATH: str(self.ledger_path),
            ledger.NODE: name,
            **(env or {}),
        }
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "manage.py", "worker", "--cluster", "alpha"),
                    *("--concurrency", str(concurrency), *flags),
                ],
                cwd=root,
                env=worker_environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        node = Node(name, process, log)
        self.nodes.append(node)
        return node

    def start_and_wait(self, *flags: str, **options: Any) -> Node:
        node = self.start(*flags, **options)
        self.wait(lambda: node.is_up() or not node.is_running, 30)
        assert node.is_running, node.log.read_text()
        return node

    def running(self) -> list[Node]:
        return [node for node in self.nodes if node.is_running]

    def kill(self, node: Node) -> float:
        """SIGKILL, to the node alone: what dies with it is its own affair. Returns when."""
        for (pk,) in self.database.rows(
            "SELECT id FROM node WHERE pid = %s AND status IN ('live', 'draining')", [node.pid]
        ):
            self.killed.append((plain_id(pk), time.time()))
        node.family = node.processes()
        node.process.kill()
        at = ledger.now()
        node.process.wait()
        return at

    def busy(self, jobs: int = 1) -> list[Node]:
        """Nodes that hold at least so many jobs, as the database says."""
        pids = {
            pid
            for pid, count in self.database.rows(
                "SELECT n.pid, count(*) FROM job j JOIN node n ON n.id = j.node_id"
                " WHERE j.state = 'running' AND n.status = 'live' GROUP BY n.pid"
            )
            if count >= jobs
        }
        return [node for node in self.running() if node.pid in pids]

    def kill_busy(self, feed: Callable[[], object]) -> float:
        """SIGKILL a node that has work in hand; ``feed`` sees to it that there is some."""

        def found() -> list[Node]:
            feed()
            return self.busy()

        return self.kill(self.random.choice(self.wait(found, 60)))

    def freeze(self, node: Node) -> Frozen:
        """SIGSTOP to the node and all that it started."""
        family = node.processes()
        begun = ledger.now()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.suspend()
        return Frozen(node, family, begun)

    def thaw(self, frozen: Frozen) -> None:
        # Noted first, and with a moment for the node to see what time it is.
        self.freezes.append(Freeze(frozen.node.name, frozen.begun_at, ledger.now() + 5.0))
        for process in frozen.family:
            with suppress(psutil.NoSuchProcess):
                process.resume()

    def stop_one(self, node: Node, seconds: float = 30) -> int:
        """Let one node drain; returns its exit status."""
        node.process.terminate()
        return node.process.wait(seconds)

    def stop(self, seconds: float = 30) -> None:
        """Let every node drain, and make sure that nothing is left of any."""
        running = self.running()
        families = [process for node in running for process in node.processes()]
        families += [process for node in self.nodes for process in node.family]
        for node in running:
            node.process.send_signal(signal.SIGCONT)
            node.process.terminate()
        deadline = time.monotonic() + seconds
        for node in running:
            with suppress(subprocess.TimeoutExpired):
                node.process.wait(max(deadline - time.monotonic(), 0.1))
        for process in families:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for node in self.nodes:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(node.pid, signal.SIGKILL)
            node.process.wait()

    def logs(self) -> list[Path]:
        return [node.log for node in self.nodes]

    def said(self, text: str) -> int:
        """How often the nodes' logs hold a text."""
        return sum(path.read_text(errors="replace").count(text) for path in self.logs())

    # -- Clients -------------------------------------------------------------------------------------

    def submit(self, news: Sequence[NewJob]) -> list[str]:
        """Enqueue in one call, under ids of our own, and keep what we were told about it."""
        named = [new if new.id else _with_id(new) for new in news]
        ids = [str(new.id) for new in named]
        try:
            enqueue_many(named, by="fault")
        except (DatabaseError, InterfaceError):
            # Whether it was committed is exactly what we cannot know.
            self.unknown += ids
            with suppress(Exception):
                connections[ALIAS].close()
            connections[ALIAS].connection = None
            return []
        except JobError:
            self.refused += ids
            return []
        self.accepted += ids
        return ids

    def settle_unknown(self) -> int:
        """What was unknown and is there counts as accepted from now on; returns how many were."""
        there = {plain_id(row[0]) for row in self.database.rows("SELECT id FROM job")}
        found = [one for one in self.unknown if plain_id(one) in there]
        self.accepted += found
        self.unknown = [one for one in self.unknown if plain_id(one) not in there]
        return len(found)

    # -- Waiting and judging -------------------------------------------------------------------------

    def wait(self, condition: Callable[[], Any], seconds: float, every: float = 0.05) -> Any:
        deadline = time.monotonic() + PATIENCE * seconds
        while not (value := condition()):
            assert time.monotonic() < deadline, (
                f"still {value!r} after {PATIENCE * seconds:g} s\n{self.tails()}"
            )
            time.sleep(every)
        return value

    def open_jobs(self) -> int:
        return int(self.database.value(f"SELECT count(*) FROM job WHERE state IN {OPEN}"))

    def final_jobs(self) -> int:
        return int(
            self.database.value("SELECT count(*) FROM job WHERE finished_at IS NOT NULL") or 0
        )

    def wait_until_all_ended(self, seconds: float) -> float:
        begun = time.monotonic()
        self.wait(lambda: self.open_jobs() == 0, seconds, every=0.2)
        return time.monotonic() - begun

    def tails(self) -> str:
        return "\n".join(
            f"{path.name}: ...{path.read_text(errors='replace')[-1500:]}"
            for path in self.logs()[-4:]
        )

    def judge(self, **options: Any) -> Verdict:
        return check(
            self.database,
            ledger_path=self.ledger_path,
            accepted=self.accepted,
            unknown=self.unknown,
            freezes=self.freezes,
            logs=self.logs(),
            **options,
        )

    def recoveries(self) -> list[float]:
        """For each killed node that held jobs: seconds until the last of them had been taken from it."""
        found = []
        for pk, killed_at in self.killed:
            given_up = self.database.value(
                "SELECT max(at) FROM fault_edge WHERE before = 'running' AND at > %s"
                + (" AND node = %s::uuid" if self.database.is_postgresql else " AND node = %s"),
                [killed_at, pk],
            )
            if given_up:
                found.append(given_up - killed_at)
        return found


def _with_id(new: NewJob) -> NewJob:
    from dataclasses import replace

    return replace(new, id=uuid.uuid4())


def new_jobs(
    count: int,
    *,
    type_name: str = "fault:work",
    payload: Callable[[int], Any] | None = None,
    **more: Any,
) -> list[NewJob]:
    return [
        NewJob(type=type_name, payload=payload(number) if payload else None, **more)
        for number in range(count)
    ]


def batches(news: Sequence[NewJob], size: int) -> Iterable[Sequence[NewJob]]:
    for start in range(0, len(news), size):
        yield news[start : start + size]
