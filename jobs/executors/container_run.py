"""One container from its making to its end, and what it prints meanwhile."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from docker.errors import NotFound

from jobs.executors import Output
from jobs.executors.container_engine import ENGINE_ERRORS, Engine, close_stream, settled, threaded
from jobs.executors.container_request import Program
from jobs.executors.container_spec import Surroundings, archive, create_options, read_member
from jobs.executors.told import PROGRESS_BYTES, PROGRESS_SECONDS, percent_of

TAIL_LINES = 10
TAIL_LINE_CHARS = 300
# Pieces of output under way from the thread that reads them to the loop.
PIECES = 64
DRAINED_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Ended:
    exit_code: int
    is_out_of_memory: bool


class Container:
    """A container of an attempt. ``output`` is where what it prints goes."""

    def __init__(self, engine: Engine, output: Output, program: Program) -> None:
        self.id = ""
        self.program = program
        self.tail = Tail()
        self._engine = engine
        self._output = output
        self._end: asyncio.Task[Ended] | None = None
        self._stream: Any = None
        make = codecs.getincrementaldecoder("utf-8")
        self._decoders = {stream: make("replace") for stream in ("stdout", "stderr")}

    async def start(self, around: Surroundings, role: str, hosts: Mapping[str, str]) -> None:
        engine, program = self._engine, self.program
        await engine.fetch(program.image, program.registry)
        options = create_options(engine.api, around, program, role, hosts)
        made = await engine.call("create_container", **options)
        self.id = made["Id"]
        await engine.call("put_archive", self.id, "/", archive(program))
        for network in around.networks[1:]:
            await engine.call("connect_container_to_network", self.id, network)
        # Before it starts, so that nothing it prints is missed.
        await threaded(self._attach)
        await engine.call("start", self.id)
        self._end = asyncio.create_task(self._watch())

    def _attach(self) -> None:
        # Kept here, on the thread: whoever waits for it may be cancelled.
        self._stream = self._engine.api.attach(
            self.id, stdout=True, stderr=True, stream=True, demux=True
        )

    async def wait(self) -> Ended:
        """Wait for its end; cancelled, the container goes on."""
        assert self._end is not None
        return await asyncio.shield(self._end)

    @property
    def has_ended(self) -> bool:
        return self._end is not None and self._end.done()

    async def stop(self, grace_seconds: float) -> None:
        """Ask it to end and give it the grace; one more cancel takes the rest of it away."""
        if self._end is None or self._end.done():
            return
        with contextlib.suppress(*ENGINE_ERRORS, asyncio.CancelledError):
            seen = await self._engine.call("inspect_container", self.id)
            await self._engine.call("kill", self.id, seen["Config"].get("StopSignal") or "SIGTERM")
            await asyncio.wait([self._end], timeout=grace_seconds)

    async def close(self) -> None:
        """Let go of it, once it is removed or may go on without being watched."""
        if self._stream is not None:
            close_stream(self._stream)
        if self._end is not None:
            self._end.cancel()
            await settled(self._end)

    async def read(self, path: str, most: int) -> tuple[bytes, int]:
        """Return the start of a file in it, and the size of the whole."""
        api = self._engine.api

        def fetch() -> tuple[bytes, int]:
            try:
                chunks, found = api.get_archive(self.id, path)
            except NotFound:
                return b"", 0
            data, size = read_member(chunks, most), int(found.get("size") or 0)
            if size < DRAINED_BYTES:
                # A connection that was read to its end serves again.
                for _ in chunks:
                    pass
            return data, size

        return await threaded(fetch)

    async def follow_progress(self, path: str) -> None:
        """Tell how far it is, until cancelled."""
        seen = b""
        while True:
            await asyncio.sleep(PROGRESS_SECONDS)
            try:
                data, _ = await self.read(path, PROGRESS_BYTES)
            except ENGINE_ERRORS:
                continue
            percent = percent_of(data)
            if data != seen and percent is not None:
                self._output.progress(percent)
            seen = data

    async def _watch(self) -> Ended:
        """Pass on what it prints to its end, and tell how that was."""
        loop, room = asyncio.get_running_loop(), threading.Semaphore(PIECES)
        await threaded(lambda: self._pump(loop, room), is_left=True)
        for stream in self._decoders:
            self._pass_on(stream, b"", is_last=True)
        state = await self._state()
        return Ended(int(state["ExitCode"]), bool(state.get("OOMKilled")))

    def _pump(self, loop: asyncio.AbstractEventLoop, room: threading.Semaphore) -> None:
        # The library's ways to say that the other end is gone are many; the state will tell.
        with contextlib.suppress(Exception):
            for pieces in self._stream:
                room.acquire()
                loop.call_soon_threadsafe(self._take, pieces, room)

    def _take(self, pieces: tuple[bytes | None, bytes | None], room: threading.Semaphore) -> None:
        room.release()
        for stream, data in zip(("stdout", "stderr"), pieces, strict=True):
            if data:
                self._pass_on(stream, data)

    def _pass_on(self, stream: str, data: bytes, *, is_last: bool = False) -> None:
        if text := self._decoders[stream].decode(data, is_last):
            self.tail.add(text)
            self._output.write(stream, text)

    async def _state(self) -> Mapping[str, Any]:
        state = await self._inspect_state()
        if state.get("Running") or state.get("Status") in ("running", "stopping", "paused"):
            # It has closed its streams, or is just ending.
            await self._engine.call("wait", self.id, timeout=None)
            state = await self._inspect_state()
        return state

    async def _inspect_state(self) -> Mapping[str, Any]:
        seen = await self._engine.call("inspect_container", self.id)
        state: Mapping[str, Any] = seen["State"]
        return state


class Tail:
    """The last lines of what was printed."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=TAIL_LINES)
        self._partial = ""

    def add(self, text: str) -> None:
        *lines, partial = (self._partial + text).split("\n")
        self._partial = partial[-TAIL_LINE_CHARS:]
        self._lines.extend(line[:TAIL_LINE_CHARS] for line in lines[-TAIL_LINES:] if line.strip())

    def __str__(self) -> str:
        last = [self._partial] if self._partial.strip() else []
        return "\n".join([*self._lines, *last][-TAIL_LINES:])
