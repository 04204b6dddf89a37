"""A PostgreSQL proxy on loopback that delays, resets, and cuts connections before or after a COMMIT.

It understands just enough of the protocol (version 3) to see where a transaction is about to be
committed: at `COMMIT`, and at the end of a statement outside of any transaction. Cut *before*, the
client's message is dropped and the server never hears of it; cut *after*, the server has committed and
its reply never arrives.
"""

from __future__ import annotations

import asyncio
import random
import re
import socket
import struct
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import parse_qs, unquote, urlsplit

from django.db import connections

from tests.faults.harness import ALIAS

_HEAD = struct.Struct("!cI")
_ASKS_FOR_TLS = {80877103, 80877104}
_CANCEL = 80877102
# What a transaction does, by the statements in it.
KINDS = {
    "submit": re.compile(r'INSERT INTO "?job"? |COPY "?job"? ', re.IGNORECASE),
    "claim": re.compile(r"UPDATE job SET\s+state = 'running'", re.IGNORECASE),
    "complete": re.compile(r"INSERT INTO attempt", re.IGNORECASE),
    "fire": re.compile(r'INSERT INTO "?fire"? ', re.IGNORECASE),
    "beat": re.compile(r'UPDATE "?node"?', re.IGNORECASE),
}
_READS = re.compile(r"\s*(SELECT|SHOW|LISTEN|SET|BEGIN|FETCH)\b", re.IGNORECASE)


class Cut(Exception):
    """This connection ends here."""


class Proxy:
    """Run a proxy in a thread of its own; all knobs may be turned from any thread."""

    def __init__(self, address: str, seed: int) -> None:
        url = urlsplit(address)
        host = parse_qs(url.query).get("host", [unquote(url.hostname or "")])[0]
        self._upstream = (host, url.port or int(parse_qs(url.query).get("port", ["5432"])[0]))
        self._random = random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0
        # Of each direction; a round trip takes twice this.
        self.delay_seconds = 0.0
        # Nothing comes through, and nobody is told.
        self.is_stalled = False
        # Cuts still to be made, by kind and "before" or "after", and how likely each chance is taken.
        self.left: Counter[tuple[str, str]] = Counter()
        self.chance = 0.3
        self.cuts: Counter[str] = Counter()
        self.commits: Counter[str] = Counter()
        self.connections = 0

    @contextmanager
    def running(self) -> Iterator[Proxy]:
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        starting = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, "127.0.0.1", 0), self._loop
        )
        server = starting.result(10)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            asyncio.run_coroutine_threadsafe(self._close(server), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(10)
            self._loop.close()

    async def _close(self, server: asyncio.Server) -> None:
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextmanager
    def between(self) -> Iterator[None]:
        """Let this process, and every process started in the block, reach the database through here."""
        connection = connections[ALIAS]
        before = connection.settings_dict
        connection.close()
        options = {k: v for k, v in before["OPTIONS"].items() if k not in ("host", "port")}
        # As a server without TLS: the proxy reads along.
        connection.settings_dict = {
            **before,
            "HOST": "127.0.0.1",
            "PORT": str(self.port),
            "OPTIONS": {**options, "sslmode": "disable"},
        }
        try:
            yield
        finally:
            connection.close()
            connection.settings_dict = before

    def cut(self, kind: str, when: str, times: int) -> None:
        self.left[kind, when] += times

    @property
    def cuts_left(self) -> int:
        return sum(self.left.values())

    def calm(self) -> None:
        self.left.clear()
        self.delay_seconds = 0.0
        self.is_stalled = False

    # -- One connection ------------------------------------------------------------------------------

    async def hold(self, seconds: float = 0.0) -> None:
        """What a piece of data waits here."""
        if seconds:
            await asyncio.sleep(seconds)
        while self.is_stalled:
            await asyncio.sleep(0.02)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        upstream_writer: asyncio.StreamWriter | None = None
        try:
            host, port = self._upstream
            if host.startswith("/"):
                opened = asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
            else:
                opened = asyncio.open_connection(host, port)
            upstream_reader, upstream_writer = await opened
            await Conversation(self, reader, writer, upstream_reader, upstream_writer).run()
        except (Cut, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            for one in (writer, upstream_writer):
                if one is not None:
                    _reset(one)

    def decide(self, statements: list[str]) -> str | None:
        """Whether to cut this commit: "before", "after", or not at all."""
        text = "\n".join(statements)
        kinds = [kind for kind, pattern in KINDS.items() if pattern.search(text)]
        for kind in kinds:
            self.commits[kind] += 1
        wanted = [key for key in self.left if key[0] in kinds and self.left[key] > 0]
        if not wanted or self._random.random() >= self.chance:
            return None
        key = self._random.choice(wanted)
        self.left[key] -= 1
        self.cuts[f"{key[0]} {key[1]}"] += 1
        return key[1]


class Conversation:
    def __init__(
        self,
        proxy: Proxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        upstream_reader: asyncio.StreamReader,
        upstream_writer: asyncio.StreamWriter,
    ) -> None:
        self.proxy = proxy
        self.reader, self.writer = reader, writer
        self.upstream_reader, self.upstream_writer = upstream_reader, upstream_writer
        self.prepared: dict[bytes, str] = {}
        self.portals: dict[bytes, str] = {}
        self.transaction: list[str] = []
        # What the server said last: I outside of a transaction, T inside, E in a failed one.
        self.status = b"I"
        self.swallow = False

    async def run(self) -> None:
        if not await self._start():
            return
        ways = [asyncio.create_task(self._upwards()), asyncio.create_task(self._downwards())]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)

    async def _start(self) -> bool:
        while True:
            size = await self.reader.readexactly(4)
            body = await self.reader.readexactly(struct.unpack("!I", size)[0] - 4)
            code = struct.unpack("!I", body[:4])[0]
            if code in _ASKS_FOR_TLS:
                self.writer.write(b"N")
                continue
            self.upstream_writer.write(size + body)
            await self.upstream_writer.drain()
            return code != _CANCEL

    async def _message(self, reader: asyncio.StreamReader) -> tuple[bytes, bytes, bytes]:
        head = await reader.readexactly(_HEAD.size)
        kind, size = _HEAD.unpack(head)
        body = await reader.readexactly(size - 4)
        return kind, body, head + body

    async def _upwards(self) -> None:
        """From the client: messages are held back until the unit that they belong to is complete."""
        held: list[bytes] = []
        executed: list[str] = []
        while True:
            kind, body, raw = await self._message(self.reader)
            held.append(raw)
            if kind == b"P":
                name, text, _ = body.split(b"\0", 2)
                self.prepared[name] = text.decode(errors="replace")
            elif kind == b"B":
                portal, name, _ = body.split(b"\0", 2)
                self.portals[portal] = self.prepared.get(name, "")
            elif kind == b"E":
                executed.append(self.portals.get(body.split(b"\0", 1)[0], ""))
            elif kind == b"Q":
                executed.append(body.rstrip(b"\0").decode(errors="replace"))
            if kind in b"SQHcfX" or (kind == b"d" and len(held) > 16):
                await self._pass_on(b"".join(held), executed)
                held, executed = [], []

    async def _pass_on(self, data: bytes, executed: list[str]) -> None:
        self.transaction += executed
        if executed and self._is_commit(executed):
            when = self.proxy.decide(self.transaction)
            self.transaction = []
            if when == "before":
                raise Cut
            self.swallow = when == "after"
        await self.proxy.hold(self.proxy.delay_seconds)
        self.upstream_writer.write(data)
        await self.upstream_writer.drain()

    def _is_commit(self, executed: list[str]) -> bool:
        last = executed[-1].lstrip()[:8].upper()
        if last.startswith(("COMMIT", "END")):
            return True
        if last.startswith("ROLLBACK") and self.status != b"I":
            return False
        return self.status == b"I" and not _READS.match(executed[-1])

    async def _downwards(self) -> None:
        waiting: deque[bytes] = deque()
        while True:
            kind, body, raw = await self._message(self.upstream_reader)
            if kind == b"Z":
                self.status = body
                if self.swallow:
                    raise Cut
                if body == b"I":
                    self.transaction = []
            if self.swallow:
                continue
            waiting.append(raw)
            if kind == b"Z" or len(waiting) > 64 or kind in b"RSKANGHW":
                await self.proxy.hold(self.proxy.delay_seconds if kind == b"Z" else 0.0)
                self.writer.write(b"".join(waiting))
                waiting.clear()
                await self.writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection the hard way: the other side gets a reset, not a farewell."""
    with suppress(OSError, AttributeError):
        own = writer.get_extra_info("socket")
        if own.family != socket.AF_UNIX:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with suppress(Exception):
        writer.transport.abort()
