"""Long answers: each has a process of its own, and all of them end."""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import psutil
import pytest

from tests.processes import ROOT, free_port, worker_environment

SLOTS = 3


@contextmanager
def serving(*tls: str) -> Iterator[tuple[psutil.Process, int]]:
    """The server's worker, and the port."""
    port = free_port()
    command = [sys.executable, "-m", "tests.streaming_server", str(port), str(SLOTS), *tls]
    process = subprocess.Popen(
        command, cwd=ROOT, env=worker_environment(), stdout=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and process.poll() is None:
            try:
                _, answer = ask(port, "/pid", tls)
                break
            except OSError:
                time.sleep(0.1)
        yield psutil.Process(int(answer.read())), port
    finally:
        process.terminate()
        process.wait(20)


def ask(
    port: int, path: str, tls: tuple[str, ...] = ()
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    if tls:
        context = ssl.create_default_context(cafile=tls[0])
        connection = http.client.HTTPSConnection("localhost", port, timeout=20, context=context)
    connection.request("GET", path)
    return connection, connection.getresponse()


def test_a_long_answer_leaves_the_worker_free_and_arrives_whole():
    with serving() as (worker, port):
        _, long = ask(port, "/short")
        sender = int(long.readline())
        assert sender != worker.pid
        _, endless = ask(port, "/long")
        other = int(endless.readline())
        assert ask(port, "/pid")[1].read() == str(worker.pid).encode()
        assert psutil.Process(other).status() != psutil.STATUS_ZOMBIE  # it is not yet half way
        endless.close()
        assert long.status == 200
        assert long.headers["Content-Type"] == "text/lines"
        assert long.headers["X-Request-ID"] == "seven"
        # Empty lines are not sent, and the end is a proper one.
        assert long.read() == b"tick\ntick\n"


def test_lines_come_as_they_are_made():
    with serving() as (_, port):
        _, long = ask(port, "/long")
        long.readline()
        begun = time.monotonic()
        assert long.readline() == b"tick\n"
        assert time.monotonic() - begun < 20


def test_too_many_are_refused_and_a_place_is_free_again_when_one_has_ended(eventually):
    with serving() as (_, port), ExitStack() as open_connections:
        for number in range(SLOTS):
            connection, answer = ask(port, f"/long?{number}")
            open_connections.callback(connection.close)
            senders = int(answer.readline())
        _, refused = ask(port, "/long?another")
        assert (refused.status, refused.read()) == (429, b"full")
        assert refused.headers["Retry-After"] == "5"
        assert refused.headers["X-Request-ID"] == "seven"
        os.kill(senders, signal.SIGKILL)
        eventually(lambda: ask(port, "/short")[1].status == 200)


def test_one_caller_leaves_room_for_others():
    with serving() as (worker, port), ExitStack() as open_connections:
        for _ in range(SLOTS - 1):
            connection, answer = ask(port, "/long?me")
            open_connections.callback(connection.close)
            assert answer.status == 200
        assert ask(port, "/long?me")[1].status == 429
        # It took no process to say so.
        assert len(worker.children()) == SLOTS - 1
        connection, answer = ask(port, "/long?you")
        open_connections.callback(connection.close)
        assert answer.status == 200


def test_who_asks_for_the_head_only_gets_it_at_once():
    with serving() as (worker, port):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        begun = time.monotonic()
        connection.request("HEAD", "/long")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"")
        connection.close()
        assert ask(port, "/pid")[1].read() == str(worker.pid).encode()
        assert time.monotonic() - begun < 30


def test_a_client_that_goes_away_is_noticed_and_no_process_is_left(eventually):
    with serving() as (worker, port):
        connection, answer = ask(port, "/long")
        sender = psutil.Process(int(answer.readline()))
        answer.close()
        connection.close()
        eventually(lambda: not sender.is_running() or sender.status() == psutil.STATUS_ZOMBIE)
        # The next look at a request collects what has ended.
        eventually(lambda: ask(port, "/pid") and worker.children() == [])


@pytest.mark.parametrize("how", ["server", "sender"])
def test_a_stop_ends_the_answer_properly(how):
    with serving() as (worker, port):
        _, answer = ask(port, "/long")
        sender = int(answer.readline())
        os.kill(worker.ppid() if how == "server" else sender, signal.SIGTERM)
        # To its last chunk: a cut one would raise.
        rest = answer.read()
        assert set(rest.split(b"\n")) <= {b"tick", b""}
        assert rest.count(b"tick") < 100


def test_an_answer_that_breaks_is_seen_to_be_cut_and_harms_nobody():
    with serving() as (worker, port):
        _, answer = ask(port, "/broken")
        answer.readline()
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.read()
        assert ask(port, "/pid")[1].read() == str(worker.pid).encode()


def test_over_tls(eventually, authority):
    with serving(*authority) as (worker, port):
        connection, answer = ask(port, "/long", authority)
        sender = psutil.Process(int(answer.readline()))
        assert answer.readline() == b"tick\n"
        assert ask(port, "/pid", authority)[1].read() == str(worker.pid).encode()
        answer.close()
        connection.close()
        eventually(lambda: not sender.is_running() or sender.status() == psutil.STATUS_ZOMBIE)
