"""gunicorn as we run it: deadlines for slow clients, refusals in our words, long answers apart."""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import signal
import socket
import ssl
import time
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.db import connections
from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.glogging import Logger
from gunicorn.http.errors import LimitRequestHeaders, LimitRequestLine, ParseException
from gunicorn.workers.base import Worker
from gunicorn.workers.sync import SyncWorker
from uuid_utils import uuid7

from config import metrics_directory
from config.logs import escaped
from config.streams import HandedOver, LongAnswers

# What an answer may take beyond reading the request and writing the reply, in seconds.
ANSWER_SECONDS = 30
GRACE_SECONDS = 30
# What is still coming when the answer is out is thrown away for at most this long.
DISCARD_SECONDS = 5.0
TRICKLE_PER_SECOND = 1 << 18


class Server(BaseApplication):
    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        super().__init__()

    def load_config(self) -> None:
        asked = self.options
        wanted: dict[str, Any] = {
            "bind": str(asked["bind"]),
            "workers": asked["workers"],
            "worker_class": DeadlineWorker,
            # A worker that is silent for longer hangs in something no other limit caught.
            "timeout": asked["read_timeout"] + asked["write_timeout"] + ANSWER_SECONDS,
            "graceful_timeout": GRACE_SECONDS,
            "preload_app": True,
            "pre_fork": _close_connections,
            "post_fork": _close_connections,
            "child_exit": _keep_what_it_counted,
            "post_worker_init": _leave_interrupts_to_the_parent,
            "logger_class": OneLog,
            "accesslog": "-" if asked["access_log"] else None,
            "pidfile": asked["pid_file"],
            "limit_request_line": 8190,
            "limit_request_fields": 64,
            "limit_request_field_size": 8190,
            # gunicorn's own remote control, in a thread and a socket nobody asked for.
            "control_socket_disable": True,
            "http_protocols": "h1",
            "proc_name": "yardmaster-serve",
        }
        if asked["tls_cert"]:
            wanted |= {
                "certfile": asked["tls_cert"],
                "keyfile": asked["tls_key"],
                "ca_certs": asked["tls_client_ca"],
                "cert_reqs": ssl.CERT_REQUIRED if asked["tls_client_ca"] else ssl.CERT_NONE,
                "ssl_context": _modern_tls,
            }
        for name, value in wanted.items():
            self.cfg.set(name, value)
        DeadlineWorker.read_seconds = asked["read_timeout"]
        DeadlineWorker.write_seconds = asked["write_timeout"]

    def load(self) -> Any:
        application = LongAnswers(get_wsgi_application())
        # What is loaded now is the same in all workers: keep the collector from touching those pages.
        gc.collect()
        gc.freeze()
        return application

    def run(self) -> None:
        GracefulArbiter(self).run()


class GracefulArbiter(Arbiter):
    """Ctrl-C ends as SIGTERM does: running requests are answered first."""

    def handle_int(self) -> None:
        self.handle_term()

    def start(self) -> None:
        super().start()
        for listener in self.LISTENERS:
            _wait_for_data(listener.sock)


class DeadlineWorker(SyncWorker):
    """A worker whose clients cannot hold it by sending or reading slowly."""

    read_seconds = 15
    write_seconds = 30
    wsgi: LongAnswers

    def init_process(self) -> None:
        self.own_pid = os.getpid()
        super().init_process()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        self.wsgi.at_fork = self._leave_listening

    def notify(self) -> None:
        super().notify()
        self.wsgi.reap()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Refuse in our own words what is no HTTP, or too long a line, and never reaches a view."""
        if isinstance(exc, HandedOver):
            # Let go of our end without a word; the other process has its own.
            with contextlib.suppress(OSError):
                os.close(getattr(client, "raw", client).detach())
            return
        if not isinstance(exc, ParseException):
            super().handle_error(req, client, addr, exc)
            return
        status = {LimitRequestLine: 414, LimitRequestHeaders: 431}.get(type(exc), 400)
        self.log.debug("a request was refused: %s", exc)
        phrase = HTTPStatus(status).phrase
        body = json.dumps(
            {
                "type": "about:blank",
                "title": phrase,
                "status": status,
                "code": "invalid_request",
                "detail": "This is not a request that can be read.",
                "request_id": str(uuid7()),
                "errors": [{"field": "request", "code": "invalid", "message": phrase}],
            }
        )
        with contextlib.suppress(OSError):
            client.sendall(
                f"HTTP/1.1 {status} {phrase}\r\nConnection: close\r\n"
                f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
                f"{body}".encode()
            )

    def handle_request(self, listener: Any, req: Any, client: Any, addr: Any) -> None:
        super().handle_request(listener, req, client, addr)
        # 0: all of the body was read, or there was none; other readers cannot tell.
        if isinstance(client, DeadlineSocket) and getattr(req.body.reader, "length", 1) == 0:
            client.has_said_all = True

    def handle(self, listener: Any, client: socket.socket, address: Any) -> None:
        guarded: Any = client
        if self.cfg.is_ssl:
            # TLS reads and writes below Python, where the limit is one for each read.
            client.settimeout(self.read_seconds)
        else:
            guarded = DeadlineSocket(client, self.read_seconds, self.write_seconds)
        try:
            super().handle(listener, guarded, address)
        finally:
            if os.getpid() != self.own_pid:
                # A long answer has come to its end, and its process with it.
                os._exit(0)

    def _leave_listening(self) -> None:
        for listener in self.sockets:
            listener.sock.close()


class DeadlineSocket:
    """A client's socket with one deadline for all that is read from it."""

    def __init__(self, client: socket.socket, read_seconds: float, write_seconds: float) -> None:
        self._client = client
        self._deadline = time.monotonic() + read_seconds
        self._write_seconds = write_seconds
        # The request was read to its end.
        self.has_said_all = False
        self._is_over = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    @property
    def raw(self) -> socket.socket:
        return self._client

    def settimeout(self, seconds: float) -> None:
        """gunicorn sets one when it closes: how long it waits for the client's own end."""
        self._deadline = time.monotonic() + seconds

    def shutdown(self, how: int) -> None:
        """Let a client that still sends a body read why it was refused: closing would reset it."""
        self._client.shutdown(how)
        if self.has_said_all and self._is_silent():
            # To wait for the client's own end would hold the worker for the way there and back.
            self._is_over = True
            return
        begun, thrown_away = time.monotonic(), 0
        self._client.settimeout(DISCARD_SECONDS / 10)
        with contextlib.suppress(OSError):
            while data := self._client.recv(1 << 16):
                thrown_away += len(data)
                passed = time.monotonic() - begun
                # A trickle is no body on its way but a client that wants to hold us. One short read
                # is no trickle: a sender on a busy machine stops for a moment.
                if passed > DISCARD_SECONDS or thrown_away < (passed - 0.5) * TRICKLE_PER_SECOND:
                    return

    def _is_silent(self) -> bool:
        """Nothing of the client's is left to be thrown away, and closing will reset nothing."""
        self._client.settimeout(0)
        try:
            return not self._client.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False

    def recv(self, size: int) -> bytes:
        if self._is_over:
            return b""
        try:
            # Never 0, which would mean not to wait at all.
            self._client.settimeout(max(0.001, self._deadline - time.monotonic()))
            return self._client.recv(size)
        except TimeoutError:
            raise ConnectionResetError(errno.ECONNRESET, "the request came too slowly") from None

    def sendall(self, data: bytes) -> None:
        try:
            # Of the whole call, however many parts the data leaves in.
            self._client.settimeout(self._write_seconds)
            self._client.sendall(data)
        except TimeoutError:
            raise BrokenPipeError(errno.EPIPE, "the answer was read too slowly") from None


class OneLog(Logger):
    """Send gunicorn's messages through our own logging, and tell of each request in one JSON object."""

    def setup(self, cfg: Any) -> None:
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True
        self.error_log.setLevel(settings.LOG_LEVEL)

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: timedelta) -> None:
        """Without the query and without headers, which may hold what nobody is to read."""
        if not self.access_log_enabled:
            return
        line = {
            "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": "request",
            "method": environ.get("REQUEST_METHOD", ""),
            "path": environ.get("PATH_INFO", ""),
            "status": int(str(resp.status).split(None, 1)[0]),
            "seconds": round(request_time.total_seconds(), 6),
            "bytes": getattr(resp, "sent", None),
            "address": environ.get("REMOTE_ADDR", ""),
            "agent": environ.get("HTTP_USER_AGENT", "")[:200],
            "request_id": dict(resp.headers).get("X-Request-ID", ""),
        }
        told = {k: escaped(v) if isinstance(v, str) else v for k, v in line.items()}
        self.access_log.info("%s", json.dumps(told))


def _wait_for_data(sock: socket.socket) -> None:
    """Hand a connection to a worker only when it has sent something: a silent one holds nobody."""
    if hasattr(socket, "TCP_DEFER_ACCEPT") and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DeadlineWorker.read_seconds)


def _keep_what_it_counted(arbiter: Arbiter, worker: Worker) -> None:
    """A worker has ended; the requests it had answered are counted still."""
    if (directory := metrics_directory.current()) is not None:
        metrics_directory.keep_what_the_dead_counted(directory)


def _close_connections(arbiter: Arbiter, worker: Worker) -> None:
    """A connection that is used on both sides of a fork mixes up both conversations."""
    connections.close_all()


def _leave_interrupts_to_the_parent(worker: Worker) -> None:
    # A terminal sends Ctrl-C to all processes; the arbiter alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _modern_tls(config: Any, make_default: Any) -> ssl.SSLContext:
    context: ssl.SSLContext = make_default()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context
