"""What all tests of executors need."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.executors import http, shell_processes
from jobs.executors.http_targets import Targets
from tests.jobs.executors.file_work import drafts
from tests.jobs.executors.procedures import ProcedureDatabase, procedure_database
from tests.jobs.executors.programs import children, folders, living, open_descriptors


@pytest.fixture(autouse=True)
def _nothing_is_allowed(settings):
    settings.HTTP_ALLOW = []
    settings.HTTP_PORTS = ["80", "443"]


@pytest.fixture(autouse=True)
def _no_target_is_known(monkeypatch):
    monkeypatch.setattr(http, "TARGETS", Targets())


class Names(dict[str, list[list[str]]]):
    """Names and what they resolve to: each look-up takes the next answer, the last one stays."""

    def __init__(self) -> None:
        self.lookups: list[str] = []


@pytest.fixture
def names(monkeypatch):
    known = Names()
    real = socket.getaddrinfo

    def getaddrinfo(host, port, *args, **kwargs):
        if host not in known:
            return real(host, port, *args, **kwargs)
        known.lookups.append(host)
        addresses = known[host].pop(0) if len(known[host]) > 1 else known[host][0]
        return [entry for address in addresses for entry in real(address, port, *args, **kwargs)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


@pytest.fixture
def marker() -> Iterator[str]:
    """A number of seconds that only the `sleep` of one test sleeps."""
    text = f"97{os.getpid()}{time.monotonic_ns() % 10**6}.25"
    yield text
    for pid in living(text):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def nothing_is_left(monkeypatch, tmp_path_factory) -> Iterator[None]:
    """Give each test a directory for temporary files, and see that nothing is left of any kind."""
    tmp_path_factory.getbasetemp()  # stays where it is
    # Most disks are slower than what is tested here.
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as top:
        Path(top).chmod(0o1777)
        monkeypatch.setattr(tempfile, "tempdir", top)
        before = open_descriptors(), children()
        yield
        assert folders() == []
        assert (open_descriptors(), children()) == before
    assert shell_processes._families == {}


@pytest.fixture(scope="session")
def procedure_server() -> Iterator[ProcedureDatabase]:
    with procedure_database() as database:
        yield database


@pytest.fixture
def procedures(procedure_server, settings, tmp_path) -> ProcedureDatabase:
    """The database with nothing done in it yet; all of its procedures but one may be called."""
    procedure_server.ask("TRUNCATE work.done, work.checked")
    settings.PROCEDURES = procedure_server.connections(tmp_path / "procedures.toml")
    return procedure_server


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def roots(settings, source, target) -> Iterator[None]:
    """The roots `in` and `out` of file jobs; no draft is left in them."""
    settings.FILE_ROOTS = [f"in={source}", f"out={target}"]
    before = open_descriptors()
    yield
    assert drafts(source, target) == []
    assert open_descriptors() == before
