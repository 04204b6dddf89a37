"""What a child says to its node: how attempts ended, what they print, and how far they are."""

from __future__ import annotations

import base64
import json
import socket
import threading
import traceback
from dataclasses import replace
from typing import Any

from jobs.engine.clock import countdown
from jobs.engine.frames import encode
from jobs.engine.last_words import LastWords
from jobs.engine.output import clean
from jobs.engine.secret_values import WithSecrets
from jobs.executors import Assignment, Outcome
from jobs.nul import holds_nul
from jobs.redaction import Redaction
from jobs.references import MissingSecret
from jobs.sealing import is_sealed

# Results of a moment are sent together; no result waits longer than this for company.
FLUSH_SECONDS = 0.02
MAX_ERROR = 4096
MAX_TRACE = 16_384
OK, ERROR, CANCELLED = "ok", "error", "cancelled"


class Reporter:
    """Collects what is to be said to the node and sends it in few frames.

    When an attempt began and ended is said in whole microseconds: floats take three times as long to
    write and to read.

    Two threads flush. A row is made before it is added: a flush while it is being made would take the
    list away, and the row would be added to what has been sent.
    """

    def __init__(self, sock: socket.socket, words: LastWords, max_result_bytes: int) -> None:
        self._sock = sock
        self._words = words
        self._lock = threading.Lock()
        self._results: list[list[Any]] = []
        self._logs: list[list[Any]] = []
        self._progress: dict[int, list[Any]] = {}
        self.max_result_bytes = max_result_bytes
        # Set while something is held whose loss the shared marks could not make good.
        self.is_urgent = False

    def log(self, seq: int, stream: str, level: str | None, text: str) -> None:
        at = countdown()
        row = [seq, at, stream, level, text, self._words.add(seq, at, stream, level, text)]
        self._logs.append(row)

    def keep(self, seq: int, stream: str, level: str | None, text: str) -> None:
        """Have a line said if this process dies, and not otherwise."""
        self._words.add(seq, countdown(), stream, level, text)

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
            if logs:
                self._words.sent(logs[-1][-1])

    def _as_text(self, outcome: Outcome) -> tuple[str | None, Outcome]:
        """The result as JSON the database can store; a result that is none makes the job fail."""
        if outcome.result is None:
            return None, outcome
        try:
            text = json.dumps(outcome.result, allow_nan=False, ensure_ascii=False)
            text.encode()
        except (TypeError, ValueError, RecursionError) as error:
            return None, refused(f"the result is not JSON: {error}")
        if holds_nul(text):
            return None, refused("the result holds a NUL character")
        if (size := len(text.encode())) > self.max_result_bytes:
            return None, refused(
                f"the result has {size} bytes, the cluster allows {self.max_result_bytes}"
            )
        return text, outcome


def refused(why: str) -> Outcome:
    return Outcome(False, error=why, error_type="InvalidResult", is_permanent=True)


def assignment(row: list[Any]) -> Assignment:
    """The fields in order; one more at the end says that the payload is bytes in base64, or holds what
    is stored of the secrets that it names."""
    if len(row) > len(Assignment._fields):
        *row, payload, more = row
        is_named = isinstance(more, dict)
        row.append(WithSecrets(payload, more) if is_named else base64.b64decode(payload))
    return Assignment._make(row)


def has_secrets(payload: Any) -> bool:
    return isinstance(payload, WithSecrets) or is_sealed(payload)


def hopeless(error: MissingSecret) -> Outcome:
    """No attempt can find what nobody has written."""
    return replace(failure(error, is_permanent=True), is_bad_definition=True)


def failure(error: BaseException, is_permanent: bool = False) -> Outcome:
    try:
        text = str(error)
    except Exception:
        text = "(its text cannot be shown)"
    return Outcome(
        False, error=text or repr(error), error_type=type(error).__name__, is_permanent=is_permanent
    )


def redacted(
    redaction: Redaction | None, outcome: Outcome, trace: str | None
) -> tuple[Outcome, str | None]:
    """What an attempt says of itself, without its secrets; done before any cut goes through one."""
    if redaction is None:
        return outcome, trace
    try:
        result = redaction.value(outcome.result)
    except RecursionError:
        return refused("the result is nested too deeply"), None
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


def trace_of(error: BaseException) -> str:
    # From the handler inwards: the frames above it are ours and say nothing.
    inner = error.__traceback__.tb_next if error.__traceback__ else None
    try:
        return "".join(traceback.format_exception(type(error), error, inner))
    except Exception:
        return type(error).__name__
