"""The label of what a node starts on its host, so that it can be told whose it was when the node is gone.

Fifteen characters: which installation, then which node process. They stand in the environment of
programs, in the names of children, which what they fork inherits, and in the names of directories. The
second part is made of the node's process number and start, so whether that node lives can be told from
the list of processes alone. Process numbers mean something in one namespace only, so that is part of the
first: what another container has started is never taken for ours.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from jobs.executors.shell_processes import Seen, look, scan

VARIABLE = "YARDMASTER_NODE"
PATTERN = re.compile(r"ym[a-z2-7]{6}[a-z2-7]{7}")

_label = ""


def wear(installation: str) -> str:
    """From now on this process and what it forks start things under this label; returns it."""
    global _label
    _label = installation_part(installation) + node_part(look(os.getpid()))
    return _label


def worn() -> str:
    """The label of this node; that of no installation where none was given."""
    return _label or wear("")


def installation_of() -> str:
    """The first part of this node's label."""
    return worn()[:8]


def installation_part(installation: str) -> str:
    return "ym" + _short(f"{_namespace()} {installation}", 6)


def node_part(node: Seen | None) -> str:
    return _short(f"{_boot()} {node.pid} {node.started}", 7) if node is not None else "a" * 7


def living(processes: Iterable[Seen] | None = None) -> set[str]:
    """The second parts of all labels whose node could be alive: those of all processes there are."""
    return {node_part(one) for one in (scan() if processes is None else processes) if one.is_alive}


def _short(text: str, length: int) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()[:length]


@functools.cache
def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


@functools.cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return ""
