"""One run of the benchmarks: what was asked for, who takes part, what came out so far."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from benchmarks.contestants import PEERS, Contestant, Ours, OursOnSqlite, Peer, python_of
from benchmarks.results import Measurement
from benchmarks.server import Server, running_server


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of the command line."""

    postgres_url: str | None
    peers: Path | None
    runs: int
    jobs: int
    rows: int
    seconds: float
    sqlite: bool


@dataclass(slots=True)
class Bench:
    asked: Asked
    server: Server
    ours: Ours
    contestants: Sequence[Contestant]
    console: Console
    measurements: list[Measurement] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.console.print(f"[dim]{len(self.measurements):3}[/dim]  {text}", highlight=False)

    def add(self, row: Measurement) -> Measurement:
        self.measurements.append(row)
        return row


@contextmanager
def prepared(asked: Asked, console: Console) -> Iterator[Bench]:
    """A server, and everybody ready to run on it; afterwards nothing of it is left."""
    with (
        tempfile.TemporaryDirectory(prefix="yardmaster-bench-") as name,
        running_server(asked.postgres_url, Path(name)) as server,
    ):
        ours = Ours(_directory(name, "ours"), server)
        contestants: list[Contestant] = [ours]
        peers = []
        for peer in PEERS:
            if asked.peers is None or not python_of(peer, asked.peers).exists():
                console.print(f"{peer} is not installed and left out; see benchmarks/README.md")
                continue
            peers.append(Peer(peer, asked.peers, _directory(name, peer), server))
        contestants += peers
        if asked.sqlite:
            contestants.append(OursOnSqlite(_directory(name, "ours-on-sqlite")))
        try:
            yield Bench(asked, server, ours, contestants, console)
        finally:
            for peer in peers:
                peer.close()
            server.drop_all()


def _directory(parent: str, name: str) -> Path:
    path = Path(parent, name)
    path.mkdir()
    return path
