"""What containers leave behind, and whose it is.

Everything an attempt makes in the engine carries labels: installation, process, job and fence. The
process is the io child that looks after it; when that is no more, nobody does, and whoever comes next on
this host removes it. Nothing here imports the library before there is an engine to be asked.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from django.conf import settings

from jobs.executors import Assignment
from jobs.executors.host_label import installation_of, living, node_part
from jobs.executors.shell_processes import IS_SUPPORTED, look

logger = logging.getLogger(__name__)

INSTALLATION = "yardmaster.installation"
PROCESS = "yardmaster.process"
JOB = "yardmaster.job"
FENCE = "yardmaster.fence"
ROLE = "yardmaster.role"

# An engine that does not answer may hold up the start of a node for so long.
SWEEP_CALL_SECONDS = 10.0
# And its loop, when an io child was killed.
END_SECONDS = 3.0
TRIES = 5
FIRST_WAIT_SECONDS = 0.1


def labels(assignment: Assignment) -> dict[str, str]:
    """What stands on all that an attempt makes."""
    return {
        INSTALLATION: installation_of(),
        PROCESS: node_part(look(os.getpid())),
        JOB: assignment.id,
        FENCE: str(assignment.fence),
    }


def sweep_containers(installation: str) -> int:
    """Remove what io children that are gone left in the engine; returns how many containers it were."""
    # Where nobody can tell who lives, nothing is a leftover.
    if not settings.CONTAINER_ENGINE or not IS_SUPPORTED:
        return 0
    try:
        with _connected() as api:
            seen = _list(api, {INSTALLATION: installation})
            # Asked afterwards: whoever has made one of them was alive before.
            alive = living()
            return _remove(api, [one for one in seen if one[2].get(PROCESS) not in alive])
    except _errors() as error:
        logger.warning("containers of nodes that are gone cannot be looked for: %s", error)
        return 0


def remove_attempts(attempts: Iterable[tuple[str, int]]) -> None:
    """Kill and remove what these attempts run, when their io child can no longer do it.

    For a node's loop, which cannot wait long: what takes longer goes on beside it.
    """
    marks = {(job, str(fence)) for job, fence in attempts}
    if not marks or not settings.CONTAINER_ENGINE:
        return
    thread = threading.Thread(target=_remove_marked, args=(marks,), name="removal", daemon=True)
    thread.start()
    thread.join(END_SECONDS)


def _remove_marked(marks: set[tuple[str, str]]) -> None:
    try:
        with _connected() as api:
            seen = _list(api, {INSTALLATION: installation_of()})
            _remove(api, [one for one in seen if (one[2].get(JOB), one[2].get(FENCE)) in marks])
    except _errors() as error:
        logger.warning("containers of a dead child cannot be removed: %s", error)


def remove_attempt(api: Any, found: Mapping[str, str], *, with_shared: bool) -> list[str]:
    """Remove all that carries these labels; returns what could not be removed, in words.

    ``with_shared`` says that there may be volumes and networks too.
    """
    wanted = {key: found[key] for key in (JOB, FENCE, INSTALLATION)}
    seen = _list(api, wanted, with_shared=with_shared)
    failed: list[str] = []
    _remove(api, seen, failed)
    return failed


# -- In the engine ---------------------------------------------------------------------------------

# What it is, its id, its labels.
_Seen = tuple[str, str, Mapping[str, str]]


def _connected() -> contextlib.closing[Any]:
    from jobs.executors.container_engine import connect

    return contextlib.closing(connect(settings.CONTAINER_ENGINE, SWEEP_CALL_SECONDS))


def _errors() -> tuple[type[Exception], ...]:
    from jobs.executors.container_engine import ENGINE_ERRORS

    return ENGINE_ERRORS


def _list(api: Any, wanted: Mapping[str, str], *, with_shared: bool = True) -> list[_Seen]:
    """All that carries each of these labels, in the order in which it can be removed."""
    filters = {"label": [f"{key}={value}" for key, value in wanted.items()]}
    found: list[_Seen] = [
        ("container", one["Id"], one.get("Labels") or {})
        for one in api.containers(all=True, filters=filters)
    ]
    if with_shared:
        found += [
            ("volume", one["Name"], one.get("Labels") or {})
            for one in (api.volumes(filters=filters).get("Volumes") or ())
        ]
        found += [
            ("network", one["Id"], one.get("Labels") or {}) for one in api.networks(filters=filters)
        ]
    # To Podman, a volume with one of several labels is one with all of them.
    return [one for one in found if wanted.items() <= one[2].items()]


def _remove(api: Any, seen: list[_Seen], failed: list[str] | None = None) -> int:
    """Remove all of these, and return how many containers that were.

    An engine may refuse what it is just busy with, and then volumes and networks that are in use.
    """
    left, wait = seen, FIRST_WAIT_SECONDS
    for is_last in (False,) * (TRIES - 1) + (True,):
        refused: list[tuple[_Seen, Exception]] = []
        for one in left:
            try:
                _remove_one(api, *one[:2])
            except _errors() as error:
                refused.append((one, error))
        left = [one for one, _ in refused]
        if not left or is_last:
            break
        time.sleep(wait)
        wait *= 2
    for (what, name, _), why in refused:
        logger.warning("%s %s cannot be removed: %s", what, name, why)
        if failed is not None:
            failed.append(f"{what} {name[:12]}: {why}")
    return sum(one[0] == "container" for one in seen if one not in left)


def _remove_one(api: Any, what: str, name: str) -> None:
    verbs: dict[str, Callable[[str], None]] = {
        "container": lambda name: _end_container(api, name),
        "volume": lambda name: api.remove_volume(name, force=True),
        "network": lambda name: api.remove_network(name),
    }
    try:
        verbs[what](name)
    except _errors() as error:
        if not _is_gone(error):
            raise


def _end_container(api: Any, name: str) -> None:
    # Podman's forced removal would first ask the program to end, and wait for it.
    try:
        api.kill(name)
    except _errors() as error:
        logger.debug("container %s does not run: %s", name, error)
    api.remove_container(name, v=True, force=True)


def _is_gone(error: Exception) -> bool:
    from docker.errors import NotFound

    return isinstance(error, NotFound)
