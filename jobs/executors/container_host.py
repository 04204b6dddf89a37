"""What a host lets ``container`` jobs do: its engine, the images it runs, the directories it gives."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from django.conf import settings

from jobs.executors.container_images import check_pattern, is_allowed
from jobs.executors.container_mounts import BIND, Mount
from jobs.executors.container_request import ContainerRequest

_UNIX = "unix://"


def check_engine(address: str) -> None:
    """Raise ``ValueError`` when this is no socket of an engine; empty is none at all."""
    if address and not address.startswith(f"{_UNIX}/"):
        raise ValueError("expected the socket of an engine, such as unix:///run/podman/podman.sock")


def check_images(patterns: Iterable[str]) -> None:
    """Raise ``ValueError`` when one of these is no pattern for images."""
    for pattern in patterns:
        try:
            check_pattern(pattern)
        except ValueError:
            raise ValueError(
                f"{pattern[:60]!r}: expected name, name:tag, name:* or prefix/*"
            ) from None


def read_directories(words: Iterable[str]) -> Mapping[str, bool]:
    """Return directories that may be mounted, and whether only to read; raise ``ValueError``."""
    found: dict[str, bool] = {}
    for word in words:
        path = word.removesuffix(":ro")
        if not path.startswith("/") or posixpath.normpath(path) != path or path == "/":
            raise ValueError(f"{word[:60]!r}: expected /path or /path:ro")
        found[path] = path != word
    return found


def refusal(request: ContainerRequest) -> str | None:
    """Why this host does not run it; None if it does."""
    for program in request.programs:
        if not is_allowed(program.image, settings.CONTAINER_IMAGES):
            return f"image {program.image} is not allowed here; see YARDMASTER_CONTAINER_IMAGES"
    directories = read_directories(settings.CONTAINER_BIND_MOUNTS)
    return next((why for one in request.mounts if (why := _refusal(one, directories))), None)


def read_only(mounts: Sequence[Mount]) -> frozenset[str]:
    """Those of the mounted directories that this host gives to read only, whatever is asked for."""
    directories = read_directories(settings.CONTAINER_BIND_MOUNTS)
    return frozenset(one.source for one in mounts if one.source and directories.get(one.source))


def _refusal(mount: Mount, directories: Mapping[str, bool]) -> str | None:
    if mount.type != BIND:
        return None
    assert mount.source is not None
    if mount.source not in directories:
        return f"{mount.source} may not be mounted here; see YARDMASTER_CONTAINER_BIND_MOUNTS"
    source = Path(mount.source).resolve()
    engine = Path(settings.CONTAINER_ENGINE.removeprefix(_UNIX)).resolve()
    # Whoever reaches the engine is root on its host.
    if source == engine or source in engine.parents:
        return f"{mount.source} holds the socket of the engine, which no container gets"
    return None
