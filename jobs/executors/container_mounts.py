"""Mounts of ``container`` jobs. Pure."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Any

from jobs.errors import InvalidJob
from jobs.executors.command_fields import read_list, read_object, read_size, read_text

MAX_MOUNTS = 20
MAX_PATH = 1024
VOLUME, BIND, TMPFS = "volume", "bind", "tmpfs"

_PATH = re.compile(r"[-/.0-9a-zA-Z_= ]+")
_OPTIONS = {VOLUME: (), BIND: ("readonly",), TMPFS: ("size", "mode")}


@dataclass(frozen=True, slots=True)
class Mount:
    type: str
    source: str | None
    target: str
    is_read_only: bool = False
    # Of a tmpfs, in bytes; and its permissions.
    size: int | None = None
    mode: int | None = None

    def holds(self, path: str) -> bool:
        return f"{path}/".startswith(f"{self.target}/")


def read_mounts(value: Any, field: str, taken: str) -> tuple[Mount, ...]:
    """Return the mounts; nothing may be mounted at ``taken``, below it or above it."""
    mounts: list[Mount] = []
    for index, one in enumerate(read_list(value, MAX_MOUNTS, field)):
        where = f"{field}.{index}"
        mount = _read_mount(one, where)
        if mount.holds(taken) or f"{mount.target}/".startswith(f"{taken}/"):
            raise InvalidJob(f"{taken} is taken", field=f"{where}.target")
        if any(other.target == mount.target for other in mounts):
            raise InvalidJob("something is mounted there already", field=f"{where}.target")
        mounts.append(mount)
    return tuple(mounts)


def _read_mount(value: Any, field: str) -> Mount:
    read_object(value, ("type", "source", "target", "options"), field, "a mount")
    kind = value.get("type")
    if not isinstance(kind, str) or kind not in _OPTIONS:
        raise InvalidJob(f"one of {', '.join(_OPTIONS)}", field=f"{field}.type")
    source = value.get("source")
    if kind == BIND:
        source = _read_path(source, f"{field}.source")
    elif source not in (None, ""):
        raise InvalidJob(f"a {kind} has no source", field=f"{field}.source")
    target = _read_path(value.get("target"), f"{field}.target")
    options = value.get("options", {})
    read_object(options, _OPTIONS[kind], f"{field}.options", f"the options of a {kind}")
    return Mount(
        kind,
        source or None,
        target,
        is_read_only=_read_switch(options.get("readonly", False), f"{field}.options.readonly"),
        size=_read_tmpfs_size(options.get("size"), f"{field}.options.size"),
        mode=_read_mode(options.get("mode"), f"{field}.options.mode"),
    )


def _read_path(value: Any, field: str) -> str:
    path = read_text(value, MAX_PATH, field)
    if not _PATH.fullmatch(path):
        raise InvalidJob("a path of letters, digits, spaces and - . / _ =", field=field)
    if not path.startswith("/") or ".." in path.split("/"):
        raise InvalidJob("an absolute path, without ..", field=field)
    path = "/" + posixpath.normpath(path).lstrip("/")
    if path == "/":
        raise InvalidJob("not the root directory", field=field)
    return path


def _read_switch(value: Any, field: str) -> bool:
    if not isinstance(value, bool) and value not in ("true", "false"):
        raise InvalidJob("true or false", field=field)
    return value is True or value == "true"


def _read_tmpfs_size(value: Any, field: str) -> int | None:
    return None if value is None else read_size(value, field, 4096)


def _read_mode(value: Any, field: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, str) or not re.fullmatch(r"[01]?[0-7]{3}", value):
        raise InvalidJob('permissions such as "1777"', field=field)
    return int(value, 8)
