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
import resource
import select
import signal
import socket
import sys
import time
import traceback
from dataclasses import dataclass
from typing import NoReturn

from django.conf import settings

from clusters.policy import ClusterPolicy
from clusters.processes import (
    adopt_orphans,
    bound_resources,
    die_with_parent,
    forbid_inspection,
    name_process,
)
from jobs import registry
from jobs.declarations import Declaration
from jobs.engine.capture import STREAMS, Pipes
from jobs.engine.clock import countdown
from jobs.engine.execute import ProcessChild
from jobs.engine.io_child import IoChild
from jobs.engine.marks import Marks, shared_file, shared_memory
from jobs.executors import IO, PROCESS
from jobs.executors.host_label import VARIABLE, worn
from jobs.executors.shell_processes import IS_SUPPORTED, scan, send

# A template that does not fork within this is as good as dead, and its node with it.
FORK_SECONDS = 10.0
CLOSE_SECONDS = 2.0
# What dead children leave behind is killed; after this long their node is told of them all the same.
ORPHANS_SECONDS = 5.0
# Of memory a child can ask for at all; the node ends it long before where it really uses it.
SPARE_BYTES = 1 << 30
# As for programs of ``shell`` jobs.
LIMITS = {
    resource.RLIMIT_CORE: 0,
    resource.RLIMIT_FSIZE: 4 << 30,
    resource.RLIMIT_NOFILE: 1024,
}


@dataclass(slots=True)
class Forked:
    """A new child as its node gets it."""

    pid: int
    sock: socket.socket
    marks: Marks
    # The reading ends of its standard output and error; an io child has the node's.
    outputs: tuple[int, ...] = ()


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
        message, descriptors, _, _ = socket.recv_fds(self.sock, 1 << 20, 1)
        hello = json.loads(message or b'{"error": "the template process ended"}')
        if "error" in hello:
            os.waitpid(self.pid, 0)
            raise registry.HandlersUnusable(hello["error"])
        self.types: list[str] = hello["types"]
        self.declarations = _read_declarations(*descriptors)

    def fork(self, pool: str, policy: ClusterPolicy) -> Forked:
        """Start a child; its pipes and the memory it marks are this node's as well."""
        ours, theirs = socket.socketpair()
        descriptor = shared_file()
        outputs = [os.pipe() for _ in STREAMS if pool == PROCESS]
        for reader, _ in outputs:
            os.set_blocking(reader, False)
        request = json.dumps([pool, policy.max_result_bytes, policy.child_memory_bytes]).encode()
        passed = [theirs.fileno(), descriptor, *(end for ends in outputs for end in ends)]
        socket.send_fds(self.sock, [request], passed)
        theirs.close()
        for _, writer in outputs:
            os.close(writer)
        readers = tuple(reader for reader, _ in outputs)
        self.sock.settimeout(FORK_SECONDS)
        while True:
            message = json.loads(self.sock.recv(4096) or b"{}")
            if "pid" in message:
                return Forked(message["pid"], ours, Marks(descriptor), readers)
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
        adopt_orphans()
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
        _say_hello(control)
        gc.collect()
        gc.freeze()
        _serve_forks(control)
        status = 0
    finally:
        os._exit(status)


def _say_hello(control: socket.socket) -> None:
    """The types that there are, and in memory of its own, for there is no limit to it, all that was
    declared beside them."""
    descriptor = shared_memory("yardmaster-declarations")
    with os.fdopen(descriptor, "wb") as file:
        file.write(json.dumps([one.to_json() for one in registry.declarations()]).encode())
        file.flush()
        hello = json.dumps({"types": registry.types()}).encode()
        socket.send_fds(control, [hello], [descriptor])


def _read_declarations(descriptor: int) -> list[Declaration]:
    with os.fdopen(descriptor, "rb") as file:
        file.seek(0)
        return [Declaration(**one) for one in json.loads(file.read())]


def _say_why(control: socket.socket, text: str) -> NoReturn:
    control.send(json.dumps({"error": text[-100_000:]}).encode())
    os._exit(1)


def _serve_forks(control: socket.socket) -> None:
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    nursery = _Nursery(control)
    while True:
        wait = 0.02 if nursery.is_waiting else None
        readable, _, _ = select.select([control.fileno(), reader], [], [], wait)
        if reader in readable:
            os.read(reader, 4096)
        nursery.look()
        if control.fileno() in readable:
            request, descriptors, _, _ = socket.recv_fds(control, 256, 6)
            if not request:
                break
            pool, *sizes = json.loads(request)
            pid = _fork_child(control, (reader, writer), pool, descriptors, *sizes)
            nursery.children[pid] = pool
    nursery.close()


class _Nursery:
    """The children that live, and the end of those that do not.

    Whatever a dead child had started is left to this process, sessions of their own or not. It is killed,
    and the node hears of the child's end when nothing of it is alive any more.
    """

    def __init__(self, control: socket.socket) -> None:
        self.children: dict[int, str] = {}
        self._control = control
        self._ended: list[dict[str, int]] = []
        self._ended_at = 0.0

    @property
    def is_waiting(self) -> bool:
        return bool(self._ended)

    def look(self) -> None:
        """Reap, kill what is left behind, and tell the node."""
        self._reap()
        if self._ended:
            is_over = countdown() - self._ended_at > ORPHANS_SECONDS
            if not self._end_orphans() or is_over:
                for message in self._ended:
                    self._control.send(json.dumps(message).encode())
                self._ended.clear()

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if self.children.pop(pid, None) is not None:
                    _kill_group(pid)
                    self._ended.append({"exit": pid, "status": status})
                    self._ended_at = countdown()

    def _end_orphans(self) -> bool:
        """Kill what dead children left behind; tells whether there was anything."""
        if not IS_SUPPORTED:
            return False
        left = [one for one in scan() if one.parent == os.getpid() and one.pid not in self.children]
        for one in left:
            if one.group == one.pid:
                _kill_group(one.pid)
            send(one, signal.SIGKILL)
        return bool(left)

    def close(self) -> None:
        """The node is gone or done: end the children and all of theirs.

        An io child gets SIGTERM when this process ends, and ends its programs first.
        """
        for pid, pool in self.children.items():
            if pool == PROCESS:
                _kill_group(pid)
        deadline = countdown() + CLOSE_SECONDS / 2
        while PROCESS in self.children.values() or self._end_orphans():
            if countdown() > deadline:
                break
            time.sleep(0.002)
            self._reap()


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _fork_child(
    control: socket.socket,
    wakeup: tuple[int, int],
    pool: str,
    descriptors: list[int],
    max_result_bytes: int,
    memory_bytes: int,
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
        name_process(worn())
        os.environ[VARIABLE] = worn()
        sock = socket.socket(fileno=descriptors[0])
        marks = Marks(descriptors[1])
        bound_resources({resource.RLIMIT_DATA: 2 * memory_bytes + SPARE_BYTES})
        if pool == IO:
            IoChild(sock, marks, max_result_bytes).run()
        else:
            bound_resources(LIMITS)
            adopt_orphans()
            elsewhere = os.dup(2)
            readers = descriptors[2::2]
            # The writers stay open beside their copies: a handler may close those.
            for target, writer in zip((1, 2), descriptors[3::2], strict=True):
                os.dup2(writer, target)
            ProcessChild(sock, marks, max_result_bytes, Pipes(readers), elsewhere).run()
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(status)
