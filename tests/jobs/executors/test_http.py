"""Kind `http`: what is sent, and how it ends; on real servers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial

import pytest
from django.conf import settings

from jobs.errors import InvalidJob
from jobs.executors import Assignment, Outcome, http, http_addresses
from jobs.executors.http_request import validate
from tests.jobs.executors.attempts import Recorder, corpus, in_loop, make_assignment
from tests.jobs.executors.servers import OK, Server, answer, ask, attempt, header

# -- What is sent ----------------------------------------------------------------------------------


def test_a_request_is_sent_as_the_payload_says(names):
    names["api.test"] = [["127.0.0.1"]]
    server = Server(answer(201, b"made", X_One="1"))

    async def work():
        async with server.on():
            return await attempt(
                {
                    "method": "POST",
                    "url": server.url("/a/../b//c?q=%20&r[]=1#fragment", host="api.test"),
                    "headers": {"Authorization": "Bearer x", "X-Tab": "a\tb"},
                    "json": {"name": "Müller", "n": [1, None]},
                },
                id="0198-job",
                fence=41,
                attempt=3,
            )

    outcome = in_loop(work())
    assert outcome.ok
    assert outcome.result["status"] == 201
    assert outcome.result["headers"]["x-one"] == "1"
    assert outcome.result["body"] == "made"
    assert outcome.result["is_truncated"] is False
    assert 0 <= outcome.result["elapsed_seconds"] < 5
    [request] = server.requests
    assert request.startswith(b"POST /a/../b//c?q=%20&r[]=1 HTTP/1.1\r\n")
    assert request.endswith(b'\r\n\r\n{"name":"M\xc3\xbcller","n":[1,null]}')
    sent = {
        "Host": f"api.test:{server.port}",
        "Authorization": "Bearer x",
        "X-Tab": "a\tb",
        "Content-Type": "application/json",
        "X-Job-Id": "0198-job",
        "X-Job-Fence": "41",
        "X-Job-Attempt": "3",
        "Idempotency-Key": "0198-job",
    }
    assert {name: header(request, name) for name in sent} == sent
    assert (header(request, "User-Agent") or "").startswith("Yardmaster/")


def test_a_text_body_and_a_null_are_bodies():
    server = Server()
    in_loop(
        ask(
            server, method="PUT", body="äöü", headers={"content-type": "text/x", "user-agent": "me"}
        )
    )
    in_loop(ask(server, method="POST", json=None))
    in_loop(ask(server, method="POST", body="x"))
    text, null, plain = server.requests
    assert text.endswith("\r\n\r\näöü".encode())
    assert header(text, "Content-Type") == "text/x"
    assert header(text, "User-Agent") == "me"
    assert null.endswith(b"\r\n\r\nnull")
    assert header(plain, "Content-Type") == "text/plain; charset=utf-8"


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PATCH"])
def test_every_method_is_sent(method):
    server = Server(answer(200))
    assert in_loop(ask(server, method=method)).ok
    assert server.requests[0].startswith(method.encode() + b" / HTTP/1.1\r\n")


def test_proxies_of_the_environment_are_not_used(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    assert in_loop(ask(Server())).ok


@pytest.mark.parametrize("case", corpus("bad_headers.txt"))
def test_no_header_of_the_corpus_is_accepted(case):
    server = Server()
    with pytest.raises(InvalidJob) as caught:
        validate({"url": "http://example.com/", "headers": json.loads(case)})
    assert (caught.value.field or "").startswith("payload.headers")
    outcome = in_loop(ask(server, headers=json.loads(case)))
    assert outcome.is_permanent
    assert not server.requests


def test_one_job_is_one_request_with_its_headers_and_no_more():
    received = b""

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        received += await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()
        received += await reader.read()

    server = Server(listen)

    async def work():
        async with server.on():
            path = "/%0d%0aX-Injected:%20yes%0d%0a%0d%0aGET%20/second?%0a=%0d"
            headers = {"X-A": "a: b, %0d%0aX-Injected: no", "X-B": "", "X-C": "GET / HTTP/1.1"}
            outcome = await attempt({"url": server.url(path), "headers": headers})
            await asyncio.sleep(0.05)
            return outcome

    assert in_loop(work()).ok
    assert server.connections == 1
    head, _, rest = received.partition(b"\r\n\r\n")
    assert rest == b""
    lines = head.decode().split("\r\n")
    assert lines[0].startswith("GET /%0d%0aX-Injected")
    assert sorted(line.partition(":")[0] for line in lines[1:]) == sorted(
        [
            "Accept",
            "Accept-Encoding",
            "Connection",
            "Host",
            "Idempotency-Key",
            "User-Agent",
            "X-A",
            "X-B",
            "X-C",
            "X-Job-Attempt",
            "X-Job-Fence",
            "X-Job-Id",
        ]
    )


# -- Payloads --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (None, "payload"),
        ("http://example.com/", "payload"),
        ({}, "payload.url"),
        ({"url": 5}, "payload.url"),
        ({"url": "http://user@example.com/"}, "payload.url"),
        ({"uri": "http://example.com/"}, "payload.uri"),
        ({"method": "get"}, "payload.method"),
        ({"method": "CONNECT"}, "payload.method"),
        ({"method": "TRACE"}, "payload.method"),
        ({"method": "GET / HTTP/1.1\r\nX: y"}, "payload.method"),
        ({"method": ["GET"]}, "payload.method"),
        ({"headers": []}, "payload.headers"),
        ({"headers": {f"X-{n}": "" for n in range(51)}}, "payload.headers"),
        ({"headers": {"X-A": "a" * 8192}}, "payload.headers"),
        ({"body": {}}, "payload.body"),
        ({"body": "a", "json": 1}, "payload.body"),
        ({"body": "\ud800"}, "payload.body"),
        ({"body": "a" * (1 << 20) + "a"}, "payload.body"),
        ({"json": "\ud800"}, "payload.json"),
        ({"json": float("nan")}, "payload.json"),
        ({"json": {1, 2}}, "payload.json"),
        ({"expected_status": []}, "payload.expected_status"),
        ({"expected_status": 200}, "payload.expected_status"),
        ({"expected_status": [99]}, "payload.expected_status"),
        ({"expected_status": [600]}, "payload.expected_status"),
        ({"expected_status": [True]}, "payload.expected_status"),
        ({"expected_status": ["2XX"]}, "payload.expected_status"),
        ({"expected_status": ["200"]}, "payload.expected_status"),
        ({"expected_status": ["2xx"] * 51}, "payload.expected_status"),
        ({"follow_redirects": 1}, "payload.follow_redirects"),
        ({"verify": False}, "payload.verify"),
        ({"proxy": "http://127.0.0.1"}, "payload.proxy"),
    ],
)
def test_a_wrong_payload_is_refused_by_the_name_of_its_field(payload, field):
    if isinstance(payload, dict) and field != "payload.url":
        payload = {"url": "http://example.com/", **payload}
    with pytest.raises(InvalidJob) as caught:
        validate(payload)
    assert caught.value.field == field
    outcome = in_loop(attempt(payload))
    assert not outcome.ok
    assert outcome.is_permanent


def test_checking_a_payload_does_not_load_the_client():
    code = (
        "import sys; from jobs.executors import KINDS;"
        "KINDS['http'].validate({'url': 'http://example.com/'});"
        "sys.exit('aiohttp' in sys.modules or 'asyncio' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# -- How it ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "expected", "ok", "is_permanent"),
    [
        (200, None, True, False),
        (204, None, True, False),
        (302, None, False, True),
        (400, None, False, True),
        (404, None, False, True),
        (404, ["2xx", 404], True, False),
        (200, [204], False, True),
        (503, ["5xx"], True, False),
        (408, None, False, False),
        (425, None, False, False),
        (429, None, False, False),
        (500, None, False, False),
        (503, None, False, False),
        (599, None, False, False),
    ],
)
def test_the_status_decides_and_tells_whether_to_try_again(status, expected, ok, is_permanent):
    payload = {} if expected is None else {"expected_status": expected}
    outcome = in_loop(ask(Server(answer(status)), method="POST", **payload))
    assert (outcome.ok, outcome.is_permanent) == (ok, is_permanent)
    assert outcome.result["status"] == status
    assert not outcome.effect_unknown
    if not ok:
        assert str(status) in (outcome.error or "")


def in_seconds(seconds: float) -> str:
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("status", "headers", "low", "high"),
    [
        (429, {"Retry_After": "7"}, 7, 7),
        (503, {"Retry_After": "0"}, 0, 0),
        (503, {"Retry_After": "86400"}, 3600, 3600),
        (503, {"Retry_After": "9" * 5000}, 3600, 3600),
        (503, {"Retry_After": partial(in_seconds, 100)}, 80, 101),
        (503, {"Retry_After": partial(in_seconds, 90_000)}, 3600, 3600),
        (503, {"Retry_After": partial(in_seconds, -100)}, 0, 0),
        # The other side's clock is half an hour behind, and only the difference counts.
        (
            503,
            {"Date": partial(in_seconds, -1800), "Retry_After": partial(in_seconds, -1740)},
            59,
            61,
        ),
    ],
)
def test_retry_after_is_obeyed_up_to_an_hour(status, headers, low, high):
    # Dates are made now: the tests may have been collected a while ago.
    headers = {name: value() if callable(value) else value for name, value in headers.items()}
    outcome = in_loop(ask(Server(answer(status, **headers))))
    assert outcome.retry_after_seconds is not None
    assert low <= outcome.retry_after_seconds <= high


@pytest.mark.parametrize(
    ("status", "value"),
    [
        (404, "7"),
        (500, "7"),
        (503, "-7"),
        (503, "soon"),
        (503, "\u0667"),
        (503, "7.5"),
        (503, "Mon, 99"),
    ],
)
def test_other_retry_after_headers_are_ignored(status, value):
    raw = answer(status).replace(b"\r\n\r\n", b"\r\nRetry-After: " + value.encode() + b"\r\n\r\n")
    assert in_loop(ask(Server(raw))).retry_after_seconds is None


def test_a_connection_that_is_refused_may_be_tried_again():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/?secret"
        settings.HTTP_ALLOW.append(f"127.0.0.1:{unused.getsockname()[1]}")
        outcome = in_loop(attempt({"url": url, "method": "POST"}))
    assert (outcome.ok, outcome.is_permanent, outcome.effect_unknown) == (False, False, False)
    assert outcome.error == "127.0.0.1: Connection refused"


def test_a_name_that_does_not_resolve_may_be_tried_again(monkeypatch):
    def fail(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    outcome = in_loop(attempt({"url": "http://missing.test/", "method": "POST"}))
    assert (outcome.ok, outcome.is_permanent, outcome.effect_unknown) == (False, False, False)
    assert outcome.error == "missing.test: Name or service not known"


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n12345",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n",
        b"nonsense\r\n\r\n",
    ],
)
@pytest.mark.parametrize(
    ("method", "is_unknown"), [("POST", True), ("DELETE", True), ("GET", False)]
)
def test_an_answer_that_breaks_off_leaves_doubt_unless_the_method_is_safe(
    reply, method, is_unknown
):
    outcome = in_loop(ask(Server(reply), method=method))
    assert (outcome.ok, outcome.is_permanent) == (False, False)
    assert outcome.effect_unknown is is_unknown


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def test_the_own_deadline_ends_what_nobody_cancels(monkeypatch):
    monkeypatch.setattr(http, "BACKSTOP_SECONDS", 0.1)

    async def work():
        server = Server(say_nothing)
        async with server.on():
            return await attempt({"url": server.url(), "method": "POST"}, timeout_seconds=0.1)

    began_at = time.monotonic()
    outcome = in_loop(work())
    assert time.monotonic() - began_at < 9
    assert (outcome.error_type, outcome.is_permanent) == ("Timeout", False)
    assert outcome.effect_unknown


def test_bytes_that_trickle_do_not_put_the_deadline_off(monkeypatch):
    monkeypatch.setattr(http, "BACKSTOP_SECONDS", 0.1)

    async def trickle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.02)

    async def work():
        server = Server(trickle)
        async with server.on():
            return await attempt({"url": server.url()}, timeout_seconds=0.2)

    began_at = time.monotonic()
    assert in_loop(work()).error_type == "Timeout"
    assert time.monotonic() - began_at < 9


def test_a_connection_that_does_not_come_about_ends_after_its_own_time(monkeypatch):
    monkeypatch.setattr(http, "CONNECT_SECONDS", 0.2)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = []
        for _ in range(4):  # fill the queue of connections that nobody accepts
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}/"
        settings.HTTP_ALLOW.append(f"127.0.0.1:{full.getsockname()[1]}")
        outcome = in_loop(attempt({"url": url, "method": "POST"}))
        for one in waiting:
            one.close()
    assert (outcome.error_type, outcome.effect_unknown) == ("Timeout", False)


def test_cancelling_closes_the_socket_at_once():
    is_asked, is_closed = asyncio.Event(), asyncio.Event()
    recorder = Recorder()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        is_asked.set()
        await reader.read()
        is_closed.set()

    async def work():
        server = Server(watch)
        async with server.on():
            payload = {"url": server.url(), "method": "POST"}
            task = asyncio.create_task(http.run(make_assignment(payload), recorder))
            await is_asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.wait_for(is_closed.wait(), 1)

    in_loop(work())
    assert "stopped" in recorder.text("log")


def test_cancelling_in_the_middle_of_a_body_sends_no_more_of_it(monkeypatch):
    size = 1 << 20
    received = 0
    may_read, is_closed = asyncio.Event(), asyncio.Event()
    real = http_addresses.Gate.open

    def open_narrow(self, addr_info):
        made = real(self, addr_info)
        # So that most of the body is still in our hands, not in the system's.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return made

    monkeypatch.setattr(http_addresses.Gate, "open", open_narrow)

    async def take_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal received
        writer.transport.pause_reading()
        await may_read.wait()
        writer.transport.resume_reading()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                received += len(data)
        is_closed.set()

    async def work():
        server = Server(take_late)
        async with server.on():
            payload = {"url": server.url(), "method": "POST", "body": "x" * size}
            task = asyncio.create_task(
                http.run(make_assignment(payload, grace_seconds=60), Recorder())
            )
            while not server.connections:
                await asyncio.sleep(0.001)
            await asyncio.sleep(0.05)
            task.cancel()
            began_at = time.monotonic()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert time.monotonic() - began_at < 20
            may_read.set()
            await asyncio.wait_for(is_closed.wait(), 2)

    in_loop(work())
    assert 0 < received < size


def test_one_line_is_logged_and_it_holds_no_secrets():
    recorder = Recorder()
    server = Server(answer(200, b"the body", X_Answer="hidden"))

    async def work():
        async with server.on():
            payload = {
                "url": server.url("/path/token?key=hidden#hidden"),
                "method": "POST",
                "headers": {"Authorization": "hidden"},
                "body": "hidden",
            }
            return await http.run(make_assignment(payload), recorder)

    in_loop(work())
    [(stream, line, level)] = recorder.written
    assert (stream, level) == ("log", "info")
    assert line.startswith("POST 127.0.0.1 200 in ")
    assert line.endswith(" ms")


def test_many_attempts_share_a_loop():
    """Nothing of one attempt is found by another, and all sockets are closed in the end."""
    server = Server()

    async def work() -> tuple[list[Outcome], int]:
        async with server.on():
            assignments: list[Assignment] = [
                make_assignment({"url": server.url(f"/{n}")}, attempt=1) for n in range(50)
            ]
            outcomes = await asyncio.gather(*(http.run(one, Recorder()) for one in assignments))
            ids = {header(request, "X-Job-Id") for request in server.requests}
            return outcomes, len(ids)

    outcomes, ids = in_loop(work())
    assert all(outcome.ok for outcome in outcomes)
    assert (server.connections, ids) == (50, 50)
