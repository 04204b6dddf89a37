"""The child: run attempts and report how they ended.

A process child runs one job at a time in its main thread; a second thread reads the pipe, so that
cancel requests and recalls arrive while a handler works. An io child runs many jobs in one event loop.
Neither has a database connection or decides anything about a job.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import math
import os
import queue
import select
import signal
import socket
import sys
import threading
import time
import traceback
from dataclasses import replace
from typing import Any, TextIO, cast

from django.db import connections

from jobs import registry
from jobs.engine.capture import CapturedStream, JobLog, Pipes
from jobs.engine.clock import countdown
from jobs.engine.frames import MOST_RETRY_AFTER_SECONDS, BrokenPeer, encode, read_frame
from jobs.engine.leftovers import (
    SHORT_SECONDS,
    ForkGuard,
    descriptors_are_scarce,
    end_children,
    has_children,
)
from jobs.engine.marks import REPORTED, SUCCEEDED, Marks
from jobs.engine.output import BoundedOutput, clean
from jobs.engine.secret_values import WithSecrets, filled_in
from jobs.executors import KINDS, PYTHON, RESULT_BYTES, Assignment, Outcome
from jobs.executors.doubt import StoppedInDoubt
from jobs.nul import holds_nul
from jobs.redaction import Redaction, redaction_of
from jobs.references import MissingSecret
from jobs.sealing import is_sealed

# Results of a moment are sent together; no result waits longer than this for company.
FLUSH_SECONDS = 0.02
# Handlers' own connections are looked at no more often than this: it costs more than a short job.
CONNECTION_CHECK_SECONDS = 0.05
# How long the thread that reads may take for a request that was sent before the signal.
CATCH_UP_SECONDS = 0.25
MAX_ERROR = 4096
MAX_TRACE = 16_384
# Secrets of jobs before, of which a thread that one of them left behind may still speak.
MAX_PAST_MASKS = 64

OK, ERROR, CANCELLED = "ok", "error", "cancelled"
# The work failed in a way that leaves its process unfit for more.
CRASHED = "crashed"


class Reporter:
    """Collects what is to be said to the node and sends it in few frames.

    When an attempt began and ended is said in whole microseconds: floats take three times as long to
    write and to read.

    Two threads flush. A row is made before it is added: a flush while it is being made would take the
    list away, and the row would be added to what has been sent.
    """

    def __init__(self, sock: socket.socket, max_result_bytes: int) -> None:
        self._sock = sock
        self._lock = threading.Lock()
        self._results: list[list[Any]] = []
        self._logs: list[list[Any]] = []
        self._progress: dict[int, list[Any]] = {}
        self.max_result_bytes = max_result_bytes
        # Set while something is held whose loss the shared marks could not make good.
        self.is_urgent = False

    def log(self, seq: int, stream: str, level: str | None, text: str) -> None:
        row = [seq, countdown(), stream, level, text]
        self._logs.append(row)

    def progress(self, seq: int, percent: float, note: str) -> None:
        self._progress[seq] = [percent, clean(note)[:200]]

    def succeeded_with_nothing(self, seq: int, started: float, finished: float) -> None:
        row = [seq, OK, int(started * 1e6), int(finished * 1e6)]
        self._results.append(row)

    def ended(
        self,
        seq: int,
        started: float,
        outcome: Outcome,
        trace: str | None = None,
        failed: str = ERROR,
    ) -> None:
        result, outcome = self._as_text(outcome)
        row = [
            seq,
            OK if outcome.ok else failed,
            int(started * 1e6),
            int(countdown() * 1e6),
            result,
            clean(outcome.error_type)[:200] if outcome.error_type else None,
            clean(outcome.error)[:MAX_ERROR] if outcome.error else None,
            clean(trace)[-MAX_TRACE:] if trace else None,
            outcome.is_permanent,
            outcome.retry_after_seconds,
            outcome.effect_unknown,
            outcome.is_throttled,
            outcome.is_bad_definition,
        ]
        self._results.append(row)
        self.is_urgent = True

    def cancelled(self, seq: int, started: float, in_doubt: bool = False) -> None:
        row = [seq, CANCELLED, int(started * 1e6), int(countdown() * 1e6)]
        if in_doubt:
            row.append(True)
        self._results.append(row)
        self.is_urgent = True

    @property
    def is_empty(self) -> bool:
        return not (self._results or self._logs or self._progress)

    def flush(self, **extra: Any) -> None:
        with self._lock:
            # Before they are taken: what comes meanwhile is as urgent.
            self.is_urgent = False
            results, self._results = self._results, []
            logs, self._logs = self._logs, []
            progress, self._progress = self._progress, {}
            message: dict[str, Any] = dict(extra)
            if results:
                message["results"] = results
            if logs:
                message["logs"] = logs
            if progress:
                message["progress"] = progress
            if message:
                self._sock.sendall(encode(message))

    def _as_text(self, outcome: Outcome) -> tuple[str | None, Outcome]:
        """The result as JSON the database can store; a result that is none makes the job fail."""
        if outcome.result is None:
            return None, outcome
        try:
            text = json.dumps(outcome.result, allow_nan=False, ensure_ascii=False)
            text.encode()
        except (TypeError, ValueError, RecursionError) as error:
            return None, _refused(f"the result is not JSON: {error}")
        if holds_nul(text):
            return None, _refused("the result holds a NUL character")
        if (size := len(text.encode())) > self.max_result_bytes:
            return None, _refused(
                f"the result has {size} bytes, the cluster allows {self.max_result_bytes}"
            )
        return text, outcome


def _refused(why: str) -> Outcome:
    return Outcome(False, error=why, error_type="InvalidResult", is_permanent=True)


def assignment(row: list[Any]) -> Assignment:
    """The fields in order; one more at the end says that the payload is bytes in base64, or holds what
    is stored of the secrets that it names."""
    if len(row) > len(Assignment._fields):
        *row, payload, more = row
        is_named = isinstance(more, dict)
        row.append(WithSecrets(payload, more) if is_named else base64.b64decode(payload))
    return Assignment._make(row)


# -- Process children ------------------------------------------------------------------------------


class JobContext:
    """The ``context`` of a handler; see ``registry.Context``."""

    __slots__ = ("_child", "_seq", "attempt", "fence", "id", "max_attempts", "queue", "type")

    def __init__(self, child: ProcessChild, job: Assignment) -> None:
        self._child = child
        self._seq = job.seq
        self.id = job.id
        self.type = job.type
        self.queue = job.queue
        self.attempt = job.attempt
        self.max_attempts = job.max_attempts
        self.fence = job.fence

    @property
    def cancelled(self) -> bool:
        return self._seq in self._child.cancelled

    @property
    def max_result_bytes(self) -> int:
        return self._child.reporter.max_result_bytes

    def log(self, *parts: object, level: str = "info") -> None:
        self._child.write("log", " ".join(map(str, parts)), clean(str(level))[:8])

    def progress(self, percent: float, note: str = "") -> None:
        if not math.isfinite(percent):
            raise ValueError("progress is a number from 0 to 100")
        bounded = min(max(float(percent), 0.0), 100.0)
        self._child.reporter.progress(self._seq, bounded, self._child.redacted(str(note)))


class ProcessChild:
    """Runs jobs one after the other. ``elsewhere`` is where the node's own standard error goes."""

    def __init__(
        self,
        sock: socket.socket,
        marks: Marks,
        max_result_bytes: int,
        pipes: Pipes,
        elsewhere: int,
    ) -> None:
        self.sock = sock
        self.marks = marks
        self._pipes = pipes
        self._poll_pipes = pipes.poll
        self._is_reading = False
        # Whether a handler has forked this process, which then has no job.
        self._is_copy = False
        self._elsewhere = elsewhere
        # Whoever writes holds it; so does the second thread from reading a pipe to writing it down.
        self._output_lock = threading.RLock()
        self.reporter = Reporter(sock, max_result_bytes)
        self.cancelled: set[int] = set()
        self.current: Assignment | None = None
        self._output: BoundedOutput | None = None
        # What must not be seen of the running job, nor of those before it.
        self._redaction: Redaction | None = None
        self._past_masks: tuple[str, ...] = ()
        self._inbox: queue.SimpleQueue[Assignment] = queue.SimpleQueue()
        # Jobs that were given, counted by the second thread, and those that were done, by the first.
        self._given = self._done = 0
        self._may_interrupt = False
        # Set when the next job had better run in another process.
        self._is_unfit = False
        self._connections_checked_at = 0.0

    def write(self, stream: str, text: str, level: str | None = None) -> bool:
        """Add to the output of the running job; false when there is none."""
        with self._output_lock:
            if self.current is None:
                return False
            if self._output is None:
                seq = self.current.seq
                self._output = BoundedOutput(
                    lambda stream, level, text: self.reporter.log(seq, stream, level, text),
                    self._redaction,
                )
            self._output.write(stream, text, level)
            return True

    def redacted(self, text: str) -> str:
        return text if self._redaction is None else self._redaction.text(text)

    def run(self) -> None:
        signal.signal(signal.SIGTERM, self._interrupt)
        guard = ForkGuard()
        os.register_at_fork(before=guard.before_fork, after_in_child=guard.after_fork)
        os.register_at_fork(after_in_child=self._become_a_forked_copy)
        JobLog.install(self)
        sys.stdout = cast(TextIO, CapturedStream(self, "stdout", sys.stdout))
        sys.stderr = cast(TextIO, CapturedStream(self, "stderr", sys.stderr))
        threading.Thread(target=self._read, name="pipe", daemon=True).start()
        while True:
            try:
                job = self._inbox.get_nowait()
            except queue.Empty:
                self.reporter.flush()
                job = self._inbox.get()
            if self.reporter.is_urgent:
                # The next job may kill this process; what the last one said must be out before.
                self.reporter.flush()
            if job.kind == PYTHON:
                self._run_handler(job)
            else:
                self._run_executor(job)
            self._done += 1

    def _run_executor(self, job: Assignment) -> None:
        """Run our own code. It looks at the token; a signal would only cut its cleaning up short."""
        self.current = job
        started = countdown()
        self.marks.begin(job.seq, started)
        outcome: Outcome | None = None
        trace: str | None = None
        try:
            payload = self._open(job)
            outcome = KINDS[job.kind].executor.run(JobContext(self, job), payload)
        except registry.JobCancelled:
            outcome = None
        except MissingSecret as error:
            outcome = _hopeless(error)
        except Exception as error:
            outcome, trace = _failure(error), _trace(error)
        self._finish(job, started, outcome, trace, ERROR)

    def _run_handler(self, job: Assignment) -> None:
        self.current = job
        started = countdown()
        self.marks.begin(job.seq, started)
        outcome: Outcome | None = None
        trace: str | None = None
        failed = ERROR
        try:
            payload = self._open(job)
            if started - self._connections_checked_at > CONNECTION_CHECK_SECONDS:
                # A database that was restarted since then must not fail this job.
                self._connections_checked_at = started
                for connection in connections.all(initialized_only=True):
                    connection.close_if_unusable_or_obsolete()
            registration = registry.find(job.type)
            if registration is None:
                raise registry.PermanentError(f"no handler is registered for {job.type!r}")
            context = JobContext(self, job)
            try:
                self._may_interrupt = True
                if registration.is_async:
                    value = asyncio.run(registration.handler(context, payload))
                else:
                    value = registration.handler(context, payload)
            finally:
                self._may_interrupt = False
                if self._is_copy:
                    self._end_forked_copy()
                finished = countdown()
                if finished - started > SHORT_SECONDS:
                    self._end_leftovers()
                # What the second thread has read it has yet to write down.
                if self._poll_pipes(0) or self._is_reading:
                    self._finish_output()
            if value is None and self._output is None and job.seq not in self.cancelled:
                self.reporter.succeeded_with_nothing(job.seq, started, finished)
                self.marks.end(job.seq, SUCCEEDED)
                self.current = None
                if self._is_unfit:
                    self._retire()
                return
            outcome = Outcome(True, value)
        except registry.JobCancelled:
            outcome = None
        except MissingSecret as error:
            outcome = _hopeless(error)
        except registry.PermanentError as error:
            outcome, trace = _failure(error, is_permanent=True), _trace(error)
        except registry.Throttled as error:
            outcome = _throttled(error)
        except MemoryError as error:
            # Whatever could not be had may be missing anywhere in this process.
            outcome, trace, failed, self._is_unfit = _failure(error), _trace(error), CRASHED, True
        except BaseException as error:  # the runner of attempts is the one place that takes all
            outcome, trace = _failure(error), _trace(error)
        self._finish(job, started, outcome, trace, failed)

    def _open(self, job: Assignment) -> Any:
        """The payload, and from now on what must not be seen of it."""
        if not _has_secrets(job.payload):
            return job.payload
        payload, masks = filled_in(job.kind, job.payload)
        both = dict.fromkeys((*masks, *self._past_masks))
        self._past_masks = (*both,)[: max(MAX_PAST_MASKS, len(masks))]
        self._redaction = redaction_of(self._past_masks)
        return payload

    def _finish(
        self,
        job: Assignment,
        started: float,
        outcome: Outcome | None,
        trace: str | None,
        failed: str,
    ) -> None:
        with self._output_lock:
            if self._output is not None:
                self._output.close()
                self._output = None
            self.current = None
        if outcome is None:
            self.reporter.cancelled(job.seq, started)
        else:
            outcome, trace = _redacted(self._redaction, outcome, trace)
            self.reporter.ended(job.seq, started, outcome, trace, failed)
        self.marks.end(job.seq, REPORTED)
        if self._is_unfit:
            self._retire()
        if job.seq in self.cancelled:
            # What was stopped may have left threads and programs behind; they end with this process
            # group, and the node starts a fresh one.
            self.reporter.flush()
            os.killpg(0, signal.SIGKILL)

    def _end_leftovers(self) -> None:
        """End what the handler left running, before its job is reported."""
        if has_children():
            count, are_gone = end_children()
            if count:
                text = f"ended {count} processes that the handler left running"
                self.write("log", text, "warning")
            self._is_unfit = self._is_unfit or not are_gone
        if descriptors_are_scarce(self.sock.fileno()):
            self.write("log", "the handler left too many files open", "warning")
            self._is_unfit = True

    def _finish_output(self) -> None:
        """Take the last of what a job wrote to the pipes."""
        with self._output_lock:
            self._take_output()
            for stream, text in self._pipes.finish():
                self.write(stream, text)

    def _take_output(self) -> None:
        self._is_reading = True
        for stream, text in self._pipes.read():
            if not self.write(stream, text):
                with contextlib.suppress(OSError):
                    os.write(self._elsewhere, self.redacted(text).encode())
        self._is_reading = False

    def _retire(self) -> None:
        """End this process and all of its group; the node starts a fresh one."""
        self._recall()
        os.killpg(0, signal.SIGKILL)

    def _become_a_forked_copy(self) -> None:
        """In what a handler forks: it speaks to no node any more; what it prints goes to the pipes."""
        self._is_copy = True
        self._output_lock = threading.RLock()
        self.current = self._output = None
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with contextlib.suppress(OSError):
            self.sock.close()

    def _end_forked_copy(self) -> None:
        """A handler came back twice. Only the process that was given the job may speak for it."""
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(0)

    def _interrupt(self, number: int, frame: object) -> None:
        """SIGTERM: the node has asked before, and the handler did not look."""
        job = self.current
        if not self._may_interrupt or job is None:
            return
        # The signal cuts a call in C short that let no other thread run: the request, sent long
        # before, may lie unread, and the handler would come back as if it had ended well.
        given_up_at = countdown() + CATCH_UP_SECONDS
        while job.seq not in self.cancelled and countdown() < given_up_at:
            time.sleep(0.001)
        if job.seq in self.cancelled:
            self._may_interrupt = False
            raise registry.JobCancelled

    def _read(self) -> None:
        """The second thread: take frames from the node, and send what has waited long enough."""
        try:
            flushed_at = 0.0
            while True:
                wait = None if self._is_idle and self.reporter.is_empty else FLUSH_SECONDS
                watched = [self.sock.fileno(), *self._pipes.readers]
                readable = select.select(watched, [], [], wait)[0]
                if watched[0] in readable:
                    self._handle(read_frame(self.sock))
                    continue
                if readable:
                    with self._output_lock:
                        self._take_output()
                # Much may be written all the time; results wait no longer for that.
                if not readable or countdown() - flushed_at > FLUSH_SECONDS:
                    self.reporter.flush()
                    flushed_at = countdown()
        except (BrokenPeer, OSError):
            # The node is gone; whoever rescues its jobs must not find them still running.
            os._exit(0)

    @property
    def _is_idle(self) -> bool:
        return self._given == self._done

    def _handle(self, message: dict[str, Any]) -> None:
        if jobs := message.get("run"):
            self._given += len(jobs)
            for row in jobs:
                self._inbox.put(assignment(row))
        self.cancelled.update(message.get("cancel", ()))
        if message.get("recall"):
            self._recall()

    def _recall(self) -> None:
        """Give back what has not been begun. Taking from the queue is atomic, so nothing is in both."""
        recalled = []
        with contextlib.suppress(queue.Empty):
            while True:
                recalled.append(self._inbox.get_nowait().seq)
                self._given -= 1
        self.reporter.flush(recalled=recalled)


def _has_secrets(payload: Any) -> bool:
    return isinstance(payload, WithSecrets) or is_sealed(payload)


def _hopeless(error: MissingSecret) -> Outcome:
    """No attempt can find what nobody has written."""
    return replace(_failure(error, is_permanent=True), is_bad_definition=True)


def _failure(error: BaseException, is_permanent: bool = False) -> Outcome:
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be shown)"
    return Outcome(
        False, error=text or repr(error), error_type=type(error).__name__, is_permanent=is_permanent
    )


def _redacted(
    redaction: Redaction | None, outcome: Outcome, trace: str | None
) -> tuple[Outcome, str | None]:
    """What an attempt says of itself, without its secrets; done before any cut goes through one."""
    if redaction is None:
        return outcome, trace
    try:
        result = redaction.value(outcome.result)
    except RecursionError:
        return _refused("the result is nested too deeply"), None
    outcome = replace(
        outcome,
        result=result,
        # Executors quote from what programs and servers said, and cut what is long.
        error="\n".join(map(redaction.clipped, redaction.text(outcome.error).split("\n")))
        if outcome.error
        else outcome.error,
        error_type=redaction.text(outcome.error_type) if outcome.error_type else outcome.error_type,
    )
    return outcome, redaction.text(trace) if trace else trace


def _throttled(error: registry.Throttled) -> Outcome:
    outcome, seconds = _failure(error), error.retry_after_seconds
    # Foreign code said it; what is no number of seconds is not said.
    is_sound = isinstance(seconds, (int, float)) and 0 <= seconds <= MOST_RETRY_AFTER_SECONDS
    return replace(
        outcome, is_throttled=True, retry_after_seconds=float(seconds or 0.0) if is_sound else None
    )


def _trace(error: BaseException) -> str:
    # From the handler inwards: the frames above it are ours and say nothing.
    inner = error.__traceback__.tb_next if error.__traceback__ else None
    try:
        return "".join(traceback.format_exception(type(error), error, inner))
    except Exception:
        return type(error).__name__


# -- Io children -----------------------------------------------------------------------------------


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
        self.reporter = Reporter(sock, max_result_bytes)
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
            if _has_secrets(job.payload):
                payload, masks = filled_in(job.kind, job.payload)
                job, redaction = job._replace(payload=payload), redaction_of(masks)
            output = IoOutput(self, job.seq, redaction)
            outcome = await KINDS[job.kind].executor.run(job, output)
        except asyncio.CancelledError as stopped:
            in_doubt = isinstance(stopped, StoppedInDoubt)
        except MissingSecret as error:
            outcome = _hopeless(error)
        except Exception as error:
            outcome, trace = _failure(error), _trace(error)
        if output is not None:
            output.close()
        self._running.pop(job.seq, None)
        if outcome is None:
            self.reporter.cancelled(job.seq, started, in_doubt)
        else:
            outcome, trace = _redacted(redaction, outcome, trace)
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
