"""A node's health over HTTP, for supervisors: off unless asked for, and for this host only.

`/livez`: every loop goes on and the lease is sure; 503 says that the node should be replaced.
`/readyz`: it takes work: the database answers, nobody has asked it to drain, and its cluster does not
wait for a person after it was restored.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any

from jobs.engine.clock import countdown
from jobs.engine.heartbeat import Heartbeat
from jobs.engine.trouble import Trouble
from jobs.engine.upkeep import Upkeep
from jobs.engine.watchdog import Watchdog

logger = logging.getLogger(__name__)

# One that asks must not hold a thread for longer.
PATIENCE_SECONDS = 5.0
# How often it looks whether it is to end.
STOP_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Health:
    """What is told, and whether it is good news."""

    is_well: bool
    details: dict[str, Any]


@dataclass(slots=True)
class Vitals:
    """What a node's health is read from. Asked by threads of their own; the node's loop keeps it."""

    cluster_id: str
    watchdog: Watchdog
    trouble: Trouble
    # None while the process is no node: before the database answered, or after its lease was over.
    node_id: str | None = None
    heartbeat: Heartbeat | None = None
    upkeep: Upkeep | None = None
    is_draining: bool = False
    awaits_confirmation: bool = False

    def now_of(
        self, node_id: str | None, heartbeat: Heartbeat | None, upkeep: Upkeep | None
    ) -> None:
        self.node_id, self.heartbeat, self.upkeep = node_id, heartbeat, upkeep

    def livez(self) -> Health:
        pulses = self.watchdog.pulses()
        heartbeat = self.heartbeat
        in_doubt = heartbeat is not None and heartbeat.lease_is_in_doubt()
        loops = {
            pulse.name: {
                "age_seconds": round(countdown() - pulse.last_at, 3),
                "is_late": pulse.is_late,
            }
            for pulse in pulses
        }
        details = {
            "cluster": self.cluster_id,
            "node": self.node_id,
            "is_lease_in_doubt": in_doubt,
            "loops": loops,
        }
        return Health(not in_doubt and not any(pulse.is_late for pulse in pulses), details)

    def readyz(self) -> Health:
        live, heartbeat, upkeep = self.livez(), self.heartbeat, self.upkeep
        is_up = heartbeat is not None and not self.trouble.is_on
        is_draining = self.is_draining or (heartbeat is not None and heartbeat.drain_is_ordered)
        details = {
            **live.details,
            "database": "up" if is_up else "down",
            "is_draining": is_draining,
            "awaits_confirmation": self.awaits_confirmation,
            "failing_duties": upkeep.conditions() if upkeep is not None else {},
        }
        takes_work = is_up and not is_draining and not self.awaits_confirmation
        return Health(live.is_well and takes_work, details)


class HealthUnavailable(Exception):
    """Nobody can listen there."""


class HealthServer:
    """Answers on ``where``, a host and port or the path of a Unix socket, until ``stop``."""

    def __init__(self, where: tuple[str, int] | Path, vitals: Vitals) -> None:
        questions = {"/livez": vitals.livez, "/readyz": vitals.readyz}

        class Handler(_Handler):
            answers = questions

        self._path = where if isinstance(where, Path) else None
        try:
            if self._path is not None:
                _remove_leftover(self._path)
                self._server: _Server = _UnixServer(str(self._path), Handler)  # type: ignore[arg-type]
            else:
                assert isinstance(where, tuple)
                self._server = (_Server6 if ":" in where[0] else _Server)(where, Handler)
        except OSError as error:
            place = self._path or ":".join(map(str, where))  # type: ignore[arg-type]
            raise HealthUnavailable(f"cannot listen on {place}: {error.strerror}") from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(STOP_SECONDS,), name="health", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()


def _remove_leftover(path: Path) -> None:
    """Of a node that was killed; one that still answers keeps its place, and our bind is refused."""
    if not path.is_socket():
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # Without the look-up of our own name, which may take long where there is no resolver.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "localhost", 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a question after our health could not be answered", exc_info=True)


class _Server6(_Server):
    address_family = socket.AF_INET6


class _UnixServer(_Server):
    address_family = socket.AF_UNIX
    allow_reuse_address = False


class _Handler(BaseHTTPRequestHandler):
    answers: dict[str, Callable[[], Health]] = {}
    timeout = PATIENCE_SECONDS
    server_version = "yardmaster"
    sys_version = ""

    def do_GET(self) -> None:
        question = self.answers.get(self.path.partition("?")[0].rstrip("/"))
        if question is None:
            self._answer(404, {"status": "unknown", "paths": sorted(self.answers)})
            return
        health = question()
        status = "up" if health.is_well else "down"
        self._answer(200 if health.is_well else 503, {"status": status, **health.details})

    do_HEAD = do_GET  # noqa: N815

    def _answer(self, status: int, document: dict[str, Any]) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def address_string(self) -> str:
        return "local"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        logger.debug("health: " + format, *args)
