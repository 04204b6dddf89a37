"""A load generator on bare sockets: one fixed request, sent by several clients again and again.

An HTTP library would use as much of the two cores as the server that is measured. Connections are kept
as long as the server keeps them.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from benchmarks.results import percentiles

TIMEOUT_SECONDS = 10
HEADERS_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Target:
    host: str
    port: int
    api_key: str

    def request(self, method: str, path: str, body: bytes = b"") -> bytes:
        head = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self.host}:{self.port}",
            f"X-API-Key: {self.api_key}",
            "Accept: application/json",
        ]
        if body:
            head += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        return "\r\n".join(head).encode() + HEADERS_END + body


@dataclass(slots=True)
class Load:
    """What the clients saw."""

    milliseconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        return len(self.milliseconds) / self.seconds

    def percentiles(self) -> dict[str, float]:
        found = percentiles(self.milliseconds, 50, 99)
        return {f"{name} ms": value for name, value in found.items()}


def put_under_load(target: Target, request: bytes, clients: int, seconds: float) -> Load:
    """Send the request from all clients at once, each waiting for its answer."""
    load = Load()
    begun = time.perf_counter()
    until = begun + seconds
    errors: list[BaseException] = []
    threads = [
        threading.Thread(target=_client, args=(target, request, until, load, errors))
        for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds = time.perf_counter() - begun
    if errors:
        raise errors[0]
    if refused := {status for status in load.statuses if status not in (200, 201)}:
        raise RuntimeError(f"the server answered {sorted(refused)}")
    return load


def _client(
    target: Target, request: bytes, until: float, load: Load, errors: list[BaseException]
) -> None:
    connection = None
    try:
        while (sent_at := time.perf_counter()) < until:
            connection = connection or socket.create_connection(
                (target.host, target.port), TIMEOUT_SECONDS
            )
            connection.sendall(request)
            status, is_kept, _ = read_answer(connection)
            load.milliseconds.append((time.perf_counter() - sent_at) * 1000)
            load.statuses[status] += 1
            if not is_kept:
                connection.close()
                connection = None
    except (OSError, ValueError) as error:
        errors.append(error)
    finally:
        if connection:
            connection.close()


def fetch(target: Target, request: bytes) -> tuple[int, bytes]:
    """One request: status and body."""
    with socket.create_connection((target.host, target.port), TIMEOUT_SECONDS) as connection:
        connection.sendall(request)
        status, _, body = read_answer(connection)
    return status, body


def read_answer(connection: socket.socket) -> tuple[int, bool, bytes]:
    """Status, whether the connection is kept, and the body, whose length the server must say."""
    status, headers, body = read_reply(connection)
    return status, headers.get("connection") != "close", body


def read_reply(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers in small letters, and the body."""
    data = b""
    while HEADERS_END not in data:
        data += _receive(connection)
    head, _, body = data.partition(HEADERS_END)
    lines = head.decode("latin-1").lower().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:])
    status = int(lines[0].split()[1])
    length = 0 if status == 204 else int(headers["content-length"])
    parts, size = [body], len(body)
    while size < length:
        parts.append(_receive(connection))
        size += len(parts[-1])
    return status, headers, b"".join(parts)


def _receive(connection: socket.socket) -> bytes:
    part = connection.recv(1 << 18)
    if not part:
        raise ConnectionResetError("the server closed the connection within an answer")
    return part
