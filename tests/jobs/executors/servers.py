"""Servers of bytes for the tests of `http`, and attempts that ask them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from django.conf import settings

from jobs.executors import Outcome, http
from tests.jobs.executors.attempts import Recorder, make_assignment

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """A server of bytes: keeps the requests it gets, answers what it is told."""

    def __init__(self, answer: bytes | list[bytes] | Handler = OK) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0
        self._handlers: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"

    @contextlib.asynccontextmanager
    async def on(
        self, host: str = "127.0.0.1", port: int = 0, **options: Any
    ) -> AsyncIterator[Server]:
        """Listen, and let jobs reach this port of 127.0.0.1, as an installation would."""
        server = await asyncio.start_server(self._handle, host, port, **options)
        self.port = server.sockets[0].getsockname()[1]
        settings.HTTP_ALLOW.append(f"127.0.0.1:{self.port}")
        try:
            yield self
        finally:
            server.close()
            while self._handlers:
                handler, writer = self._handlers.popitem()
                writer.transport.abort()
                await handler

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        handler = asyncio.current_task()
        assert handler is not None
        self._handlers[handler] = writer
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            if callable(self.answer):
                await self.answer(reader, writer)
            else:
                self.requests.append(await read_request(reader))
                answers = [self.answer] if isinstance(self.answer, bytes) else self.answer
                writer.write(answers[min(len(self.requests), len(answers)) - 1])
                await writer.drain()
        writer.close()


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = header(head, "Content-Length")
    return head + await reader.readexactly(int(length or 0))


def header(request: bytes, name: str) -> str | None:
    for line in request.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.lower() == name.lower():
            return value.strip()
    return None


def answer(status: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} Some", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


async def attempt(payload: Any, **fields: Any) -> Outcome:
    return await http.run(make_assignment(payload, **fields), Recorder())


async def ask(server: Server, **payload: Any) -> Outcome:
    async with server.on():
        return await attempt({"url": server.url(), **payload})
