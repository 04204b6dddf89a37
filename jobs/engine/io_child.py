"""The io child: it runs many jobs in one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from typing import Any

from jobs.engine.clock import countdown
from jobs.engine.frames import BrokenPeer, read_frame
from jobs.engine.marks import REPORTED, Marks
from jobs.engine.output import BoundedOutput
from jobs.engine.reporter import (
    FLUSH_SECONDS,
    Reporter,
    assignment,
    failure,
    has_secrets,
    hopeless,
    redacted,
    trace_of,
)
from jobs.engine.secret_values import filled_in
from jobs.executors import KINDS, RESULT_BYTES, Assignment, Outcome
from jobs.executors.doubt import StoppedInDoubt
from jobs.redaction import Redaction, redaction_of
from jobs.references import MissingSecret


class IoOutput(BoundedOutput):
    """What one job of an io child says while it runs."""

    def __init__(self, child: IoChild, seq: int, redaction: Redaction | None) -> None:
        super().__init__(lambda stream, level, text: child.log(seq, stream, level, text), redaction)
        self._child = child
        self._seq = seq

    def progress(self, percent: float) -> None:
        self._child.progress(self._seq, percent)


class IoChild:
    def __init__(self, sock: socket.socket, marks: Marks, max_result_bytes: int) -> None:
        self.sock = sock
        self.marks = marks
        self.reporter = Reporter(sock, marks.words, max_result_bytes)
        self._max_result_bytes = max_result_bytes
        self._running: dict[int, asyncio.Task[None]] = {}
        self._flush_is_due = False

    def run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        # Every job's task begins in a copy of this context.
        RESULT_BYTES.set(self._max_result_bytes)
        loop = asyncio.get_running_loop()
        node_is_gone = asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, node_is_gone.set)

        def readable() -> None:
            try:
                self._handle(read_frame(self.sock))
            except (BrokenPeer, OSError):
                loop.remove_reader(self.sock)
                node_is_gone.set()

        loop.add_reader(self.sock, readable)
        await node_is_gone.wait()
        # The node died: end what runs, children and sockets included, before its lease is over.
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        os._exit(0)

    def _handle(self, message: dict[str, Any]) -> None:
        for row in message.get("run", ()):
            job = assignment(row)
            self._running[job.seq] = asyncio.create_task(self._run(job))
        for seq in message.get("cancel", ()):
            if seq in self._running:
                self._running[seq].cancel()

    async def _run(self, job: Assignment) -> None:
        started = countdown()
        self.marks.begin(job.seq, started)
        outcome: Outcome | None = None
        trace: str | None = None
        in_doubt = False
        output: IoOutput | None = None
        redaction: Redaction | None = None
        try:
            if has_secrets(job.payload):
                payload, masks = filled_in(job.kind, job.payload)
                job, redaction = job._replace(payload=payload), redaction_of(masks)
            output = IoOutput(self, job.seq, redaction)
            outcome = await KINDS[job.kind].executor.run(job, output)
        except asyncio.CancelledError as stopped:
            in_doubt = isinstance(stopped, StoppedInDoubt)
        except MissingSecret as error:
            outcome = hopeless(error)
        except Exception as error:
            outcome, trace = failure(error), trace_of(error)
        if output is not None:
            output.close()
        self._running.pop(job.seq, None)
        if outcome is None:
            self.reporter.cancelled(job.seq, started, in_doubt)
        else:
            outcome, trace = redacted(redaction, outcome, trace)
            self.reporter.ended(job.seq, started, outcome, trace)
        self.marks.end(job.seq, REPORTED)
        self._flush_soon(0)

    def log(self, seq: int, stream: str, level: str | None, text: str) -> None:
        self.reporter.log(seq, stream, level, text)
        self._flush_soon(FLUSH_SECONDS * 5)

    def progress(self, seq: int, percent: float) -> None:
        self.reporter.progress(seq, percent, "")
        self._flush_soon(FLUSH_SECONDS * 5)

    def _flush_soon(self, seconds: float) -> None:
        if seconds and self._flush_is_due:
            return
        self._flush_is_due = True
        asyncio.get_running_loop().call_later(seconds, self._flush)

    def _flush(self) -> None:
        self._flush_is_due = False
        # The node going away is noticed by the reader, which ends this process.
        with contextlib.suppress(OSError):
            self.reporter.flush()
