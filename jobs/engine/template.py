"""The template: a clean process that has the handlers imported and forks the children.

It is forked from the node before the node has a thread or a connection, because a fork beside either
hangs or shares it. Handlers are imported here and never in the node. Pages of the interpreter are
shared with every child; freezing the heap keeps the garbage collector from copying them.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from typing import NoReturn

from django.conf import settings

from clusters.processes import die_with_parent, forbid_inspection
from jobs import registry
from jobs.engine.clock import countdown
from jobs.engine.execute import IoChild, ProcessChild
from jobs.engine.marks import Marks, shared_file
from jobs.executors import IO, PROCESS

# A template that does not fork within this is as good as dead, and its node with it.
FORK_SECONDS = 10.0
CLOSE_SECONDS = 2.0


@dataclass(slots=True)
class Forked:
    """A new child as its node gets it."""

    pid: int
    sock: socket.socket
    marks: Marks


class Template:
    """The node's end of the template."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        gc.collect()
        gc.freeze()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _run_template(theirs, parent)
        theirs.close()
        self.sock = ours
        self._exits: dict[int, int] = {}
        hello = json.loads(self.sock.recv(1 << 20) or b'{"error": "the template process ended"}')
        if "error" in hello:
            os.waitpid(self.pid, 0)
            raise registry.HandlersUnusable(hello["error"])
        self.types: list[str] = hello["types"]

    def fork(self, pool: str, max_result_bytes: int) -> Forked:
        """Start a child and return its process id, its pipe and the memory it marks."""
        ours, theirs = socket.socketpair()
        descriptor = shared_file()
        request = json.dumps([pool, max_result_bytes]).encode()
        socket.send_fds(self.sock, [request], [theirs.fileno(), descriptor])
        theirs.close()
        self.sock.settimeout(FORK_SECONDS)
        while True:
            message = json.loads(self.sock.recv(4096) or b"{}")
            if "pid" in message:
                return Forked(message["pid"], ours, Marks(descriptor))
            if "exit" not in message:
                raise OSError("the template process is gone")
            self._exits[message["exit"]] = message["status"]

    def exits(self) -> dict[int, int]:
        """Children that ended since the last call, with their wait status."""
        self.sock.setblocking(False)
        try:
            while message := json.loads(self.sock.recv(4096) or b"{}"):
                self._exits[message["exit"]] = message["status"]
        except BlockingIOError:
            pass
        finally:
            self.sock.setblocking(True)
        seen, self._exits = self._exits, {}
        return seen

    def close(self) -> None:
        """End the template and with it every child that still lives."""
        self.sock.close()
        deadline = countdown() + CLOSE_SECONDS
        while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
            if countdown() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                return
            time.sleep(0.005)


def _run_template(control: socket.socket, parent: int) -> None:
    """The template's life: never returns."""
    status = 1
    try:
        die_with_parent(parent)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        try:
            registry.discover(settings.HANDLERS)
        except registry.HandlersUnusable as error:
            _say_why(control, str(error))
        except BaseException:
            # Not in a module that somebody named, but in an app's handlers.py: show all of it.
            _say_why(control, f"handlers.py of an app cannot be imported\n{traceback.format_exc()}")
        control.send(json.dumps({"types": registry.types()}).encode())
        gc.collect()
        gc.freeze()
        _serve_forks(control)
        status = 0
    finally:
        os._exit(status)


def _say_why(control: socket.socket, text: str) -> NoReturn:
    control.send(json.dumps({"error": text[-100_000:]}).encode())
    os._exit(1)


def _serve_forks(control: socket.socket) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    children: dict[int, str] = {}
    while True:
        readable, _, _ = select.select([control.fileno(), reader], [], [])
        if reader in readable:
            os.read(reader, 4096)
            _reap(control, children)
        if control.fileno() in readable:
            request, descriptors, _, _ = socket.recv_fds(control, 256, 2)
            if not request:
                break
            pool, max_result_bytes = json.loads(request)
            pid = _fork_child(control, (reader, writer), pool, descriptors, max_result_bytes)
            children[pid] = pool
    for pid, pool in children.items():
        # An io child gets SIGTERM when we end, and ends its programs first.
        if pool == PROCESS:
            os.killpg(pid, signal.SIGKILL)


def _reap(control: socket.socket, children: dict[int, str]) -> None:
    while children:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        if pid in children:
            del children[pid]
            control.send(json.dumps({"exit": pid, "status": status}).encode())


def _fork_child(
    control: socket.socket,
    wakeup: tuple[int, int],
    pool: str,
    descriptors: list[int],
    max_result_bytes: int,
) -> int:
    template = os.getpid()
    pid = os.fork()
    if pid:
        for descriptor in descriptors:
            os.close(descriptor)
        # Both sides set the group, so that neither can be too early for the first kill.
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)
        control.send(json.dumps({"pid": pid}).encode())
        return pid
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setpgid(0, 0)
        control.close()
        for descriptor in wakeup:
            os.close(descriptor)
        # An io child first ends the programs it started, so it is asked to end, not killed.
        die_with_parent(template, signal.SIGTERM if pool == IO else signal.SIGKILL)
        forbid_inspection()
        sock = socket.socket(fileno=descriptors[0])
        marks = Marks(descriptors[1])
        kind_of_child = IoChild if pool == IO else ProcessChild
        kind_of_child(sock, marks, max_result_bytes).run()
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(status)
