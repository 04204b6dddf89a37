"""How much memory children take and how many processes they have, looked at by their node.

Only what is private counts, less what a child had when it was forked: that it shares with the template.
"""

from __future__ import annotations

import os

from jobs.engine.leftovers import family
from jobs.executors.shell_processes import Seen

_PAGE = os.sysconf("SC_PAGE_SIZE")


def private_bytes(pid: int) -> int:
    """Memory of one process that is in no file and shared with no other program; 0 if it is gone."""
    try:
        descriptor = os.open(f"/proc/{pid}/statm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return 0
    try:
        fields = os.read(descriptor, 200).split()
    except OSError:
        return 0
    finally:
        os.close(descriptor)
    return (int(fields[1]) - int(fields[2])) * _PAGE


def of_family(leader: int, baseline: int, processes: list[Seen]) -> tuple[int, int]:
    """Memory of a child with all that it started, and how many processes that is."""
    members = family(leader, processes)
    copies = (private_bytes(one.pid) for one in members)
    # What was forked shares the template's memory as well; a program has less than that by itself.
    return sum(max(each - baseline, 0) for each in copies), len(members)
