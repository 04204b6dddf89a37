"""The sweep of a host: what nodes that are gone have left running or lying about.

A node that was killed together with its children had no time to clean up. Whoever starts next on the
same host does it: programs, forked processes, directories and containers that carry the label of a node
process that is no more, and of this installation. What belongs to a living node, to another installation,
to another container or to nobody known is never touched; see ``jobs.executors.host_label``.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time

from jobs.engine.clock import countdown
from jobs.executors.container_remains import sweep_containers
from jobs.executors.host_label import PATTERN, VARIABLE, living
from jobs.executors.shell_folder import left_behind, remove_tree
from jobs.executors.shell_processes import IS_SUPPORTED, Seen, below, environment_of, scan, send

logger = logging.getLogger(__name__)

SWEEP_SECONDS = 5.0


def sweep_host(label: str) -> int:
    """End the processes and remove the directories of nodes that are gone; returns how many it found."""
    if not IS_SUPPORTED:
        return 0
    ours = label[:8]
    # First those that could still make more of the others.
    ended = _end_programs(ours)
    removed = _remove_folders(ours)
    containers = sweep_containers(ours)
    if ended or removed or containers:
        logger.warning(
            "nodes that are gone had left %d processes, %d directories and %d containers on this host",
            ended,
            removed,
            containers,
        )
    return ended + removed + containers


def _end_programs(ours: str) -> int:
    ended: set[tuple[int, int]] = set()
    deadline = countdown() + SWEEP_SECONDS
    while left := _left_running(ours):
        if countdown() > deadline:
            logger.error("still alive after SIGKILL: %s", [one.pid for one in left][:10])
            break
        for one in left:
            ended.add((one.pid, one.started))
            send(one, signal.SIGKILL)
        time.sleep(0.01)
    return len(ended)


def _left_running(ours: str) -> list[Seen]:
    """The living processes that carry the label of a node that is gone, and all that they started."""
    processes = scan()
    alive = living(processes)
    labels = {one.pid: _label_of(one) for one in processes}
    marked = {
        one.pid: one
        for one in processes
        if labels[one.pid][:8] == ours and labels[one.pid][8:] not in alive
    }
    for one in below(list(marked), processes):
        # A program may have started a node, which lives for itself.
        if labels[one.pid][8:] not in alive:
            marked[one.pid] = one
    return [one for one in marked.values() if one.is_alive]


def _label_of(one: Seen) -> str:
    if PATTERN.fullmatch(one.name):
        return one.name
    prefix = f"{VARIABLE}=".encode()
    for variable in environment_of(one):
        if variable.startswith(prefix):
            label = variable.removeprefix(prefix).decode(errors="replace")
            return label if PATTERN.fullmatch(label) else ""
    return ""


def _remove_folders(ours: str) -> int:
    removed = 0
    is_root = os.geteuid() == 0
    for path in left_behind(ours, living()):
        try:
            asyncio.run(remove_tree(path, is_ours=not is_root))
            removed += 1
        except OSError as error:
            logger.warning("directory %s cannot be removed: %s", path, error)
    return removed
