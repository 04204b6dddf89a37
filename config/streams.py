"""Answers that go on for a minute: each in a process of its own, so that none holds up the others.

A worker of ``manage.py serve`` answers one request at a time. When a view returns a ``LongAnswer`` the
worker forks: the child has the client's connection and sends line by line, the worker goes on at once.
How many there are at a time is limited for the whole server; under any other server, and in tests, the
answer is an ordinary one that streams.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import ssl
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.db import connections
from django.http import HttpResponse, StreamingHttpResponse

from clusters.processes import die_with_parent, name_process

# Of the whole server, and of one caller where his limits do not say.
MAX_LONG_ANSWERS, MAX_OF_A_CALLER = 40, 20


class LongAnswer(StreamingHttpResponse):
    """Lines as they come up; an empty one says that there is nothing new, and is not sent.

    The iterator runs after the middleware and perhaps in another process: it binds its cluster itself,
    and it gives a line at least every few seconds, or nobody notices that the client has gone.
    ``when_full`` is answered instead where too many of these run, at all or of the same ``caller``,
    who may have ``of_a_caller`` of them.
    """

    def __init__(
        self,
        lines: Iterable[bytes],
        *,
        content_type: str,
        when_full: HttpResponse,
        caller: str = "",
        of_a_caller: int | None = None,
    ) -> None:
        super().__init__(lines, content_type=content_type)
        self.when_full = when_full
        self.caller = caller
        self.of_a_caller = of_a_caller


class LateAnswer(LongAnswer):
    """One answer that comes late, and whose status is known only then.

    ``answers`` gives None while there is none, at least every few seconds, and then the answer. Only
    where ``may_hand_over`` somebody waits for it; ``when_stopped`` is said when the server ends.
    """

    def __init__(
        self,
        answers: Iterable[HttpResponse | None],
        *,
        when_full: HttpResponse,
        when_stopped: HttpResponse,
        caller: str = "",
    ) -> None:
        super().__init__((), content_type="", when_full=when_full, caller=caller)
        self.answers = answers
        self.when_stopped = when_stopped


# In the environment of a request: its answer may be handed over to a process of its own.
_MAY_HAND_OVER = "yardmaster.may_hand_over"


def may_hand_over(environ: Mapping[str, Any]) -> bool:
    """Whether this request's answer may come from a process of its own."""
    return bool(environ.get(_MAY_HAND_OVER))


class HandedOver(Exception):
    """Another process has the client's connection now."""


class Slots:
    """So many places for processes, each held until its process ends, however it ends."""

    def __init__(self, number: int, of_a_caller: int) -> None:
        self.number, self.of_a_caller = number, of_a_caller
        # Without a name: only what is forked from here can see it. Its bytes are the places.
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  open for as long as the server

    def take(self, caller: str, of_a_caller: int | None = None) -> bool:
        """Take a place for this process; the system gives it back."""
        # Callers whose names fall together share what one has.
        first = self.number + zlib.crc32(caller.encode()) * self.number
        most = self.of_a_caller if of_a_caller is None else of_a_caller
        return self._lock(0, self.number) and self._lock(first, min(most, self.number))

    def is_free(self, caller: str, of_a_caller: int | None = None) -> bool:
        """Whether there is one, for a process that needs none itself."""
        found = self.take(caller, of_a_caller)
        fcntl.lockf(self._file, fcntl.LOCK_UN)
        return found

    def _lock(self, first: int, number: int) -> bool:
        for place in range(first, first + number):
            with contextlib.suppress(OSError):
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, place)
                return True
        return False


class LongAnswers:
    """A WSGI application that sends the long answers of another one from forked processes."""

    def __init__(
        self,
        application: Any,
        number: int = MAX_LONG_ANSWERS,
        of_a_caller: int = MAX_OF_A_CALLER,
    ) -> None:
        self.application = application
        self.slots = Slots(number, of_a_caller)
        # Told in the child, which must leave alone what belongs to the worker.
        self.at_fork: Callable[[], None] | None = None
        self._children: set[int] = set()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        begun: list[Any] = []
        environ[_MAY_HAND_OVER] = True
        response = self.application(environ, lambda *begin: begun.append(begin))
        if not isinstance(response, LongAnswer):
            start_response(*begun[0])
            return response
        if environ["REQUEST_METHOD"] == "HEAD":
            # Without this the server would go through all lines, and send none.
            start_response(*begun[0])
            response.close()
            return []
        if not self.slots.is_free(response.caller, response.of_a_caller):
            return _refused(response, start_response, begun[0])
        return self._hand_over(response, environ, start_response, begun[0])

    def reap(self) -> None:
        """Forget the children that have ended."""
        for child in [*self._children]:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(child, os.WNOHANG)[0] == 0:
                    continue
            self._children.discard(child)

    def _hand_over(
        self, response: LongAnswer, environ: dict[str, Any], start_response: Any, begin: Any
    ) -> Iterable[bytes]:
        # A connection that is used on both sides of a fork mixes up both conversations.
        connections.close_all()
        worker = os.getpid()
        if child := os.fork():
            self._children.add(child)
            raise HandedOver
        stop = _Stop()
        die_with_parent(worker, signal.SIGTERM)
        name_process("yardmaster-line")
        if self.at_fork is not None:
            self.at_fork()
        if not self.slots.take(response.caller, response.of_a_caller):
            return _refused(response, start_response, begin)
        if isinstance(response, LateAnswer):
            answer = stop.wait(response, environ.get("gunicorn.socket"))
            return _answered(answer, response, start_response, begin)
        start_response(*begin)
        return stop.until(response, environ.get("gunicorn.socket"))


class _Stop:
    """SIGTERM ends the answer between two lines, and while it waits for the next."""

    def __init__(self) -> None:
        self._is_asked = self._may_interrupt = False
        signal.signal(signal.SIGTERM, self._ask)

    def until(self, response: LongAnswer, client: Any) -> Iterator[bytes]:
        lines = iter(response)
        # The head goes out now: whoever waits for it may wait long for the first line.
        yield b""
        try:
            while not self._is_asked and not _is_gone(client):
                try:
                    self._may_interrupt = True
                    line = next(lines, None)
                finally:
                    self._may_interrupt = False
                if line is None:
                    return
                if line:
                    yield line
        except _Asked:
            return
        finally:
            response.close()

    def wait(self, response: LateAnswer, client: Any) -> HttpResponse:
        """The answer; that of a server that ends where it is asked to stop, or nobody is left."""
        try:
            answers = iter(response.answers)
            while not self._is_asked and not _is_gone(client):
                try:
                    self._may_interrupt = True
                    answer = next(answers)
                finally:
                    self._may_interrupt = False
                if answer is not None:
                    return answer
        except _Asked:
            pass
        return response.when_stopped

    def _ask(self, *_: Any) -> None:
        self._is_asked = True
        if self._may_interrupt:
            self._may_interrupt = False
            raise _Asked


class _Asked(BaseException):
    """Asked to stop while waiting for a line; no mistake, so whoever catches those lets it pass."""


def _refused(response: LongAnswer, start_response: Any, begin: Any) -> list[bytes]:
    return _answered(response.when_full, response, start_response, begin)


def _answered(
    answer: HttpResponse, response: LongAnswer, start_response: Any, begin: Any
) -> list[bytes]:
    """Say this instead of what was begun, whose headers it carries."""
    response.close()
    start_response(f"{answer.status_code} {answer.reason_phrase}", _merged(answer, begin[1]))
    return [answer.content]


def _merged(refusal: HttpResponse, headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers of another answer, with what every one carries."""
    own = dict(refusal.items())
    own["Content-Length"] = str(len(refusal.content))
    taken = {name.lower() for name in own}
    return [*own.items(), *(pair for pair in headers if pair[0].lower() not in taken)]


def _is_gone(client: Any) -> bool:
    """The client has closed its side. It has nothing more to say, so reading takes nothing away."""
    if client is None:
        return False
    raw: socket.socket = getattr(client, "raw", client)
    try:
        if not select.select([raw], [], [], 0)[0]:
            return False
        if isinstance(raw, ssl.SSLSocket):
            waits = raw.gettimeout()
            raw.settimeout(0)
            try:
                return not raw.recv(1)
            finally:
                raw.settimeout(waits)
        return not raw.recv(1, socket.MSG_PEEK)
    except (ssl.SSLWantReadError, BlockingIOError):
        return False
    except (OSError, ValueError):
        return True
