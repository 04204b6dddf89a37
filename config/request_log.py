"""The log of requests: who asked which cluster for what, how it was answered, and how long it took.

Lines go to the log of the cluster in the address, or of the default cluster where none is named, if the
settings name that cluster. A thread of each process writes them, many at a time: no request waits for
its line, and none fails for it. What is more than the thread can write, or what a database does not
take, is dropped, and the server's log says how many.
"""

from __future__ import annotations

import atexit
import logging
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.core.exceptions import MiddlewareNotUsed
from django.db import connections
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponseBase
from django.urls import ResolverMatch

from clusters.health import watch
from clusters.registry import alias_of
from config.logs import escaped
from config.mistakes import DIALECTS
from config.request_metrics import surface_of

logger = logging.getLogger(__name__)

GetResponse = Callable[[HttpRequest], HttpResponseBase]

MAX_WAITING = 10_000
MAX_AT_ONCE = 500
# A line is written after this at the latest, in seconds.
LATEST_SECONDS = 1.0
LOGGED_SURFACES = frozenset({"native", *DIALECTS})
# Probes ask for these every few seconds, and nobody asks who did.
PROBES = frozenset({"healthz", "readyz", "health"})
MAX_PATH, MAX_METHOD = 500, 10
_KEY = re.compile(r"(ym_[0-9a-fA-F]{16}_)[0-9a-fA-F]+")


class Line(NamedTuple):
    """One request that was answered."""

    ended_at: float
    surface: str
    method: str
    path: str
    status: int
    duration_ms: float
    actor: str
    address: str
    request_id: str


class RequestLogMiddleware:
    """Tell the cluster's log of each request to its APIs."""

    def __init__(self, get_response: GetResponse) -> None:
        if not settings.LOGGED_CLUSTERS:
            raise MiddlewareNotUsed
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        begun = time.perf_counter()
        response = self.get_response(request)
        match = request.resolver_match
        cluster_id = _told_of(match)
        if match is not None and cluster_id is not None:
            requests_log.add(
                alias_of(cluster_id),
                Line(
                    ended_at=time.monotonic(),
                    surface=surface_of(match),
                    method=(request.method or "")[:MAX_METHOD],
                    path=_shown(request.path),
                    status=response.status_code,
                    duration_ms=(time.perf_counter() - begun) * 1000,
                    actor=getattr(request, "caller", "")[:200],
                    address=request.META.get("REMOTE_ADDR", "")[:45],
                    request_id=getattr(request, "request_id", ""),
                ),
            )
        return response


def _told_of(match: ResolverMatch | None) -> str | None:
    """The cluster whose log tells of this request."""
    if match is None or match.url_name in PROBES or surface_of(match) not in LOGGED_SURFACES:
        return None
    cluster_id = match.kwargs.get("cluster_id")
    if cluster_id not in settings.CLUSTERS:
        cluster_id = settings.DEFAULT_CLUSTER_ID
    logged = settings.LOGGED_CLUSTERS
    return str(cluster_id) if "*" in logged or cluster_id in logged else None


def _shown(path: str) -> str:
    """A path that can be stored and shown: no control characters, and no key that was put there."""
    return escaped(_KEY.sub(r"\1***", path))[:MAX_PATH]


class RequestsLog:
    """Lines on their way to the databases, and the thread that takes them there."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._begin_anew()
        # A forked process has no such thread, and its parent writes what is waiting here.
        os.register_at_fork(after_in_child=self._begin_anew)

    def _begin_anew(self) -> None:
        self._waiting: queue.Queue[tuple[str, Line] | None] = queue.Queue(self._max_waiting)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._dropped = 0

    def add(self, alias: str, line: Line) -> None:
        """Have a line written soon."""
        try:
            self._waiting.put_nowait((alias, line))
        except queue.Full:
            self._dropped += 1
        if self._thread is None:
            self._start()

    def close(self) -> None:
        """Write what is waiting, and end the thread; the next line starts another."""
        with self._starting:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._waiting.put(None)
            thread.join(LATEST_SECONDS * 10)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="requests-log", daemon=True)
                self._thread.start()
                atexit.unregister(self.close)
                atexit.register(self.close)

    def _run(self) -> None:
        goes_on = True
        while goes_on:
            lines: dict[str, list[Line]] = {}
            goes_on = self._gather(lines)
            for alias, found in lines.items():
                self._write(alias, found)
            if self._dropped:
                dropped, self._dropped = self._dropped, 0
                logger.warning("the log of requests lacks %d lines", dropped)
        for alias in settings.DATABASES:
            with suppress(Exception):
                connections[alias].close()

    def _gather(self, lines: dict[str, list[Line]]) -> bool:
        """What is waiting, and what comes within the time; False where it is to be the last."""
        until: float | None = None
        for _ in range(MAX_AT_ONCE):
            try:
                wait = None if until is None else max(until - time.monotonic(), 0.0)
                found = self._waiting.get(timeout=wait)
            except queue.Empty:
                break
            if found is None:
                return False
            lines.setdefault(found[0], []).append(found[1])
            if until is None:
                until = time.monotonic() + LATEST_SECONDS
        return True

    def _write(self, alias: str, lines: list[Line]) -> None:
        if watch.is_down(alias):
            self._dropped += len(lines)
            return
        from clusters.log import LogEntry

        try:
            LogEntry.objects.using(alias).bulk_create(_entries(lines))
        except Exception as error:  # of a log that fails nobody must hear but the log
            self._dropped += len(lines)
            logger.warning("the log of requests was not written: %s", type(error).__name__)
            with suppress(Exception):
                connections[alias].close()


def _entries(lines: Iterable[Line]) -> list[Any]:
    from clusters.log import Category, Level, LogEntry

    now = time.monotonic()
    return [
        LogEntry(
            # By the database's clock, whichever server it was.
            logged_at=Now() - timedelta(seconds=round(max(now - line.ended_at, 0.0), 6)),
            category=Category.API,
            level=Level.ERROR
            if line.status >= 500
            else Level.WARNING
            if line.status in (401, 403, 429)
            else Level.INFO,
            message=f"{line.method} {line.path} {line.status} by {line.actor or 'nobody known'}"[
                :700
            ],
            actor=line.actor,
            address=line.address,
            request_id=line.request_id,
            surface=line.surface,
            method=line.method,
            path=line.path,
            status=line.status,
            duration_ms=round(line.duration_ms, 3),
        )
        for line in lines
    ]


requests_log = RequestsLog()
