"""Cancel and timeout, at the start, in the middle and at the end of work of each kind."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import threading
import time
from collections.abc import Iterator

import psutil
import pytest
from django.conf import settings

from jobs.engine.enqueue import NewJob
from jobs.models import Job
from tests.faults.conftest import LASTING
from tests.faults.database import plain_id, seconds
from tests.faults.report import percentile, scaled

# The node looks for cancel requests once a second, or at each beat if that is later.
ASKED_SECONDS = 1.2
GRACE = 2.0
BUSY_HOST = 8.0
LENGTH = 2.0
# How long the programs sleep; nobody else sleeps for just so long.
MARKER = f"4711.{os.getpid()}"


@pytest.fixture
def settings_of_the_cluster() -> dict[str, float]:
    return LASTING


class SlowServer:
    """An HTTP server that answers after a while, and knows which requests still wait.

    It has many addresses: a node leaves a target alone that ran out of time ten times in a row.
    """

    def __init__(self) -> None:
        first = socket.create_server(("127.0.0.1", 0))
        port = first.getsockname()[1]
        others = [socket.create_server((f"127.0.0.{n}", port)) for n in range(2, 22)]
        self._servers = [first, *others]
        self.targets = ["{}:{}".format(*server.getsockname()) for server in self._servers]
        self.open: set[socket.socket] = set()
        for server in self._servers:
            threading.Thread(target=self._accept, args=(server,), daemon=True).start()

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = server.accept()
                self.open.add(one)
                threading.Thread(target=self._answer, args=(one,), daemon=True).start()

    def _answer(self, one: socket.socket) -> None:
        """Read the request, wait as its path says, and hear when the client goes away."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            path = one.recv(65536).split()[1].decode()
            one.settimeout(float(path.lstrip("/")))
            try:
                one.recv(1)  # the client has said all; this returns when it has gone
            except TimeoutError:
                one.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        self.open.discard(one)
        one.close()

    def close(self) -> None:
        for server in self._servers:
            server.close()


@pytest.fixture
def server(monkeypatch) -> Iterator[SlowServer]:
    one = SlowServer()
    monkeypatch.setattr(settings, "HTTP_ALLOW", one.targets)
    yield one
    one.close()


def _jobs(kind: str, count: int, length: float, server: SlowServer, **more) -> list[NewJob]:
    if kind == "python":
        # Who looks at requests, who is stopped by the signal, and who by nothing but the end of its
        # process; the last two have started programs.
        types = ["fault:polite", "fault:family", "fault:deaf"]
        if length <= LENGTH:
            types = ["fault:polite", "fault:work"]
        payload = {"seconds": length, "marker": MARKER}
        return [
            NewJob(type=types[number % len(types)], payload=payload, **more)
            for number in range(count)
        ]
    if kind == "http":
        targets = itertools.cycle(server.targets)
        urls = [f"http://{next(targets)}/{length}" for _ in range(count)]
        return [NewJob(kind="http", payload={"url": url}, **more) for url in urls]
    # Programs in the background and one in a session of its own, as daemons do.
    script = f"sleep {MARKER} &\nsetsid sleep {MARKER} &\nsleep {length}\ntrue"
    return [NewJob(kind="shell", payload={"script": script}, **more) for _ in range(count)]


def _survivors() -> list[int]:
    found = []
    for one in psutil.process_iter(["cmdline", "status"]):
        if one.info["status"] != psutil.STATUS_ZOMBIE and MARKER in (one.info["cmdline"] or ()):
            found.append(one.pid)
    return found


def _ends(yard, ids: list[str]) -> dict[str, tuple[str, str | None, float, float]]:
    """State, reason, and when it ended and was asked to, by id."""
    wanted = {plain_id(one) for one in ids}
    return {
        plain_id(pk): (state, reason, seconds(finished), seconds(asked))
        for pk, state, reason, finished, asked in yard.database.rows(
            "SELECT id, state, reason, finished_at, cancel_requested_at FROM job"
        )
        if plain_id(pk) in wanted
    }


def _outcomes(yard) -> dict[str, str]:
    return {
        plain_id(job): outcome
        for job, outcome in yard.database.rows("SELECT job_id, outcome FROM attempt ORDER BY fence")
    }


@pytest.mark.parametrize("kind", ["python", "http", "shell"])
def test_cancelled_work_is_dead_within_a_beat_and_the_grace(kind, yard, figures, server):
    """Red without: the kill of the group."""
    count = scaled(10, least=3)
    flags = ("--enable-shell", "--io-concurrency", "40")
    env = {"YARDMASTER_HTTP_ALLOW": ",".join(server.targets)}
    yard.start_and_wait(*flags, concurrency=min(count, 10), env=env)
    took: list[float] = []
    wrong: list[str] = []
    for stage, wait in (("start", 0.0), ("middle", 0.7), ("end", LENGTH)):
        for part in range(0, count, 10):
            size = min(10, count - part)
            length = LENGTH if stage == "end" else 60.0
            ids = yard.submit(_jobs(kind, size, length, server))
            if stage != "start":
                yard.wait(lambda: not _waiting(yard), 10, every=0.01)
                time.sleep(wait)
            for one in ids:
                # At the end: some just before, some just after the work is over.
                if stage == "end":
                    time.sleep(yard.random.uniform(0, 0.03))
                Job.objects.filter(pk=one).cancel()
            yard.wait_until_all_ended(ASKED_SECONDS + GRACE + 10)
            outcomes = _outcomes(yard)
            for one, (state, _, finished, asked) in _ends(yard, ids).items():
                if state == "cancelled":
                    took.append(max(finished - asked, 0.0))
                    wrong += [f"{stage}: {one}"] if outcomes.get(one) == "succeeded" else []
                elif (state, outcomes.get(one)) != ("succeeded", "succeeded") or stage == "middle":
                    wrong.append(f"{stage}: {one} is {state}, its attempt {outcomes.get(one)}")
    yard.wait(lambda: not server.open, 5)
    survivors = _survivors()
    figures |= {
        "kind": kind,
        "cancelled": len(took),
        "p50_seconds": percentile(took, 0.5),
        "p99_seconds": percentile(took, 0.99),
        "survivors": len(survivors),
        "wrong": len(wrong),
    }
    assert not wrong, wrong
    assert not survivors
    assert took and max(took) <= ASKED_SECONDS + GRACE + BUSY_HOST
    yard.stop()
    yard.judge().assert_sound()


def _waiting(yard) -> int:
    return int(yard.database.value("SELECT count(*) FROM job WHERE state = 'ready'"))


@pytest.mark.parametrize("kind", ["python", "http", "shell"])
def test_work_that_is_out_of_time_is_dead_within_the_grace(kind, yard, figures, server):
    """Red without: the kill of the group."""
    count = scaled(10, least=3)
    env = {"YARDMASTER_HTTP_ALLOW": ",".join(server.targets)}
    yard.start_and_wait(
        "--enable-shell", "--io-concurrency", "40", concurrency=min(count, 10), env=env
    )
    over: list[float] = []
    wrong: list[str] = []
    for stage, length, timeout in (("start", 60.0, 0.2), ("middle", 60.0, 1.0), ("end", 1.5, 1.5)):
        for part in range(0, count, 10):
            size = min(10, count - part)
            ids = yard.submit(
                _jobs(kind, size, length, server, timeout_seconds=timeout, max_attempts=1)
            )
            yard.wait_until_all_ended(timeout + GRACE + 10)
            for one, (state, reason, finished, _) in _ends(yard, ids).items():
                if (state, reason) == ("failed", "timeout"):
                    began = seconds(
                        yard.database.value(
                            "SELECT started_at FROM job WHERE id = %s",
                            [one],
                        )
                    )
                    over.append(finished - began - timeout)
                elif state != "succeeded" or stage != "end":
                    wrong.append(f"{stage}: {one} is {state} {reason}")
    yard.wait(lambda: not server.open, 5)
    survivors = _survivors()
    figures |= {
        "kind": kind,
        "timed_out": len(over),
        "p99_over_seconds": percentile(over, 0.99),
        "survivors": len(survivors),
        "wrong": len(wrong),
    }
    assert not wrong, wrong
    assert not survivors
    assert over and max(over) <= GRACE + BUSY_HOST
    yard.stop()
    yard.judge().assert_sound()
