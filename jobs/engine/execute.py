"""The process child: it runs attempts and reports how they ended.

One job at a time runs in its main thread; a second thread reads the pipe, so that cancel requests and
recalls arrive while a handler works. Like the io child it has no connection to a cluster's database and
decides nothing about a job.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import queue
import select
import signal
import socket
import sys
import threading
import time
from dataclasses import replace
from typing import Any, TextIO, cast

from django.db import connections

from jobs import registry
from jobs.engine.capture import CapturedStream, JobLog, Pipes
from jobs.engine.clock import countdown
from jobs.engine.frames import MOST_RETRY_AFTER_SECONDS, BrokenPeer, read_frame
from jobs.engine.leftovers import (
    SHORT_SECONDS,
    ForkGuard,
    descriptors_are_scarce,
    end_children,
    has_children,
)
from jobs.engine.marks import REPORTED, SUCCEEDED, Marks
from jobs.engine.output import BoundedOutput, clean
from jobs.engine.reporter import (
    ERROR,
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
from jobs.executors import KINDS, PYTHON, Assignment, Outcome
from jobs.redaction import Redaction, redaction_of
from jobs.references import MissingSecret

# Handlers' own connections are looked at no more often than this: it costs more than a short job.
CONNECTION_CHECK_SECONDS = 0.05
# How long the thread that reads may take for a request that was sent before the signal.
CATCH_UP_SECONDS = 0.25
# Secrets of jobs before, of which a thread that one of them left behind may still speak.
MAX_PAST_MASKS = 64

# The work failed in a way that leaves its process unfit for more.
CRASHED = "crashed"


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
        self.reporter = Reporter(sock, marks.words, max_result_bytes)
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
                    lambda stream, level, text: self.reporter.keep(seq, stream, level, text),
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
            outcome = hopeless(error)
        except Exception as error:
            outcome, trace = failure(error), trace_of(error)
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
            outcome = hopeless(error)
        except registry.PermanentError as error:
            outcome, trace = failure(error, is_permanent=True), trace_of(error)
        except registry.Throttled as error:
            outcome = _throttled(error)
        except MemoryError as error:
            # Whatever could not be had may be missing anywhere in this process.
            outcome, trace, failed, self._is_unfit = failure(error), trace_of(error), CRASHED, True
        except BaseException as error:  # the runner of attempts is the one place that takes all
            outcome, trace = failure(error), trace_of(error)
        self._finish(job, started, outcome, trace, failed)

    def _open(self, job: Assignment) -> Any:
        """The payload, and from now on what must not be seen of it."""
        if not has_secrets(job.payload):
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
            outcome, trace = redacted(self._redaction, outcome, trace)
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


def _throttled(error: registry.Throttled) -> Outcome:
    outcome, seconds = failure(error), error.retry_after_seconds
    # Foreign code said it; what is no number of seconds is not said.
    is_sound = isinstance(seconds, (int, float)) and 0 <= seconds <= MOST_RETRY_AFTER_SECONDS
    return replace(
        outcome, is_throttled=True, retry_after_seconds=float(seconds or 0.0) if is_sound else None
    )
