"""The payload of a ``files`` job. It is checked against the roots of this process; no file is looked at.

    {"operation": "copy", "root": "reports", "path": "2026/*.csv",
     "to": {"root": "archive", "path": "2026"}}
    {"operation": "move", "root": "inbox", "path": "a", "to": {"root": "done", "path": "", "name": "b"}}
    {"operation": "delete", "root": "logs", "path": "", "pattern": "*.log", "recursive": true,
     "older_than_seconds": 604800, "delete_empty_directories": true}
    {"operation": "archive", "root": "reports", "path": "2026/*",
     "to": {"root": "archive", "path": "2026.tar.gz"}}
    {"operation": "compress", "root": "logs", "path": "*.log", "delete_originals": true}
    {"operation": "list", "root": "reports", "path": "*", "larger_than_bytes": 1000000}

The last part of ``path`` is a file or a pattern; with ``pattern`` all of ``path`` is a folder. Only that
folder is looked at, with ``recursive`` those below it too. ``to.path`` is a folder, of ``archive`` the
archive itself.
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.errors import InvalidJob
from jobs.executors.file_roots import NONE_CONFIGURED, PathRefused, Root, roots, split

LIST, COPY, MOVE, DELETE = "list", "copy", "move", "delete"
ARCHIVE, COMPRESS = "archive", "compress"
ZIP, TAR_GZ = "zip", "tar.gz"
MAX_FILES = 100_000
DEFAULT_FILES = 10_000
MAX_SECONDS = 100 * 366 * 86_400
MAX_BYTES = 1 << 62

_SELECTION = (
    "operation",
    "root",
    "path",
    "pattern",
    "recursive",
    "older_than_seconds",
    "newer_than_seconds",
    "larger_than_bytes",
    "smaller_than_bytes",
    "max_files",
    "dry_run",
)
# What each operation may be told beside the selection.
KEYS: Mapping[str, tuple[str, ...]] = {
    LIST: (),
    COPY: ("to", "overwrite"),
    MOVE: ("to", "overwrite", "delete_empty_directories"),
    DELETE: ("all", "delete_empty_directories"),
    ARCHIVE: ("to", "overwrite", "format"),
    COMPRESS: ("to", "overwrite", "delete_originals"),
}
# They change nothing where the files are.
_READS_ONLY = (LIST, COPY, ARCHIVE)
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Target:
    root: Root
    # A folder; the name is said where one file gets another, and of an archive.
    parts: tuple[str, ...]
    name: str | None = None


@dataclass(frozen=True, slots=True)
class FilesRequest:
    operation: str
    root: Root
    parts: tuple[str, ...]
    # A name or a pattern, in the folder that the parts lead to.
    pattern: str
    is_pattern: bool
    is_recursive: bool
    older_than_seconds: float | None
    newer_than_seconds: float | None
    larger_than_bytes: int | None
    smaller_than_bytes: int | None
    max_files: int
    is_dry_run: bool
    to: Target | None
    overwrite: bool
    format: str
    delete_originals: bool
    delete_empty_directories: bool

    @property
    def is_single(self) -> bool:
        """Whether one file was named, which must then be dealt with."""
        return not (self.is_pattern or self.is_recursive)

    def matches(self, name: str) -> bool:
        """Whether the name is meant; a dot in front must be asked for, as in a shell."""
        if not self.is_pattern:
            return name == self.pattern
        if name.startswith(".") and not self.pattern.startswith("."):
            return False
        return fnmatch.fnmatchcase(name, self.pattern)


def validate(payload: Any) -> None:
    """Raise ``InvalidJob``, naming the field, when no node with our roots could run this payload."""
    read(payload)


def may_change(payload: Any) -> bool:
    """Whether an attempt that was cut off may have changed something."""
    if not isinstance(payload, dict):
        return False
    return payload.get("operation") != LIST and payload.get("dry_run") is not True


def read(payload: Any) -> FilesRequest:
    """Return what a payload describes, or raise ``InvalidJob``."""
    if not isinstance(payload, dict):
        raise InvalidJob("the payload of a files job is an object", field="payload")
    operation = payload.get("operation")
    if not isinstance(operation, str) or operation not in KEYS:
        raise InvalidJob(f"one of {', '.join(KEYS)}", field="payload.operation")
    known = (*_SELECTION, *KEYS[operation])
    for key in payload:
        if key not in known:
            raise InvalidJob(
                f"unknown; {operation} has {', '.join(known)}", field=f"payload.{str(key)[:40]}"
            )
    root = _read_root(payload.get("root"), "payload.root")
    parts, pattern, is_pattern = _read_selection(payload)
    is_recursive = _flag(payload, "recursive")
    to = _read_target(payload, operation, root, parts)
    deletes = _flag(payload, "delete_originals")
    if root.is_read_only and (operation not in _READS_ONLY) and (operation != COMPRESS or deletes):
        raise InvalidJob("this root is read-only", field="payload.root")
    older = _number(payload, "older_than_seconds", MAX_SECONDS)
    if operation == DELETE:
        _check_delete(payload, older)
    if (removes := _flag(payload, "delete_empty_directories")) and not is_recursive:
        raise InvalidJob("needs recursive", field="payload.delete_empty_directories")
    if to is not None and to.name is not None and is_pattern and operation != ARCHIVE:
        raise InvalidJob("only a single file gets another name", field="payload.to.name")
    return FilesRequest(
        operation,
        root,
        parts,
        pattern,
        is_pattern,
        is_recursive,
        older,
        _number(payload, "newer_than_seconds", MAX_SECONDS),
        _whole(payload, "larger_than_bytes", 0, MAX_BYTES),
        _whole(payload, "smaller_than_bytes", 1, MAX_BYTES),
        _whole(payload, "max_files", 1, MAX_FILES) or DEFAULT_FILES,
        _flag(payload, "dry_run"),
        to,
        _flag(payload, "overwrite"),
        _read_format(payload, to) if operation == ARCHIVE else ZIP,
        deletes,
        removes,
    )


def _read_root(name: Any, field: str) -> Root:
    known = roots()
    if not known:
        raise InvalidJob(NONE_CONFIGURED, field=field)
    if not isinstance(name, str) or name not in known:
        raise InvalidJob(f"one of the roots {', '.join(sorted(known))}", field=field)
    return known[name]


def _read_selection(payload: Mapping[str, Any]) -> tuple[tuple[str, ...], str, bool]:
    """Return the folder, the name or pattern in it, and which of the two it is."""
    field = "payload.path"
    parts = _parts(payload.get("path"), field)
    if "pattern" in payload:
        pattern = payload["pattern"]
        if not isinstance(pattern, str) or not pattern or "/" in pattern:
            raise InvalidJob("a pattern for names, such as *.csv", field="payload.pattern")
        _parts(pattern, "payload.pattern")
        is_pattern, folder = True, parts
    elif not parts:
        raise InvalidJob("name a file, or give a pattern", field=field)
    else:
        *above, pattern = parts
        is_pattern, folder = _WILD.search(pattern) is not None, tuple(above)
    if any("*" in part or "?" in part for part in folder):
        raise InvalidJob("only the last part may be a pattern", field=field)
    return folder, pattern, is_pattern


def _read_target(
    payload: Mapping[str, Any], operation: str, root: Root, parts: tuple[str, ...]
) -> Target | None:
    field = "payload.to"
    if "to" not in payload:
        if operation in (COPY, MOVE, ARCHIVE):
            raise InvalidJob("say where to", field=field)
        if operation == COMPRESS and root.is_read_only:
            raise InvalidJob("say where to: the root is read-only", field=field)
        return Target(root, parts) if operation == COMPRESS else None
    to = payload["to"]
    if not isinstance(to, dict):
        raise InvalidJob("an object with root and path", field=field)
    for key in to:
        if key not in ("root", "path", "name"):
            raise InvalidJob("unknown; to has root, path, name", field=f"{field}.{str(key)[:40]}")
    target = _read_root(to.get("root"), f"{field}.root")
    if target.is_read_only:
        raise InvalidJob("this root is read-only", field=f"{field}.root")
    below, name = _parts(to.get("path"), f"{field}.path"), to.get("name")
    if operation == ARCHIVE:
        if not below or name is not None:
            raise InvalidJob("the path of the archive, its name included", field=f"{field}.path")
        below, name = below[:-1], below[-1]
    elif name is not None:
        if operation not in (COPY, MOVE):
            raise InvalidJob("only copy and move give another name", field=f"{field}.name")
        if len(_parts(name, f"{field}.name")) != 1:
            raise InvalidJob("one name, without a folder", field=f"{field}.name")
    if operation in (COPY, MOVE) and name is None and (target, below) == (root, parts):
        raise InvalidJob("where they are already", field=f"{field}.path")
    return Target(target, below, name)


def _parts(path: Any, field: str) -> tuple[str, ...]:
    if not isinstance(path, str):
        raise InvalidJob("a path relative to the root", field=field)
    try:
        return split(path)
    except PathRefused as error:
        raise InvalidJob(str(error), field=field) from None


def _check_delete(payload: Mapping[str, Any], older: float | None) -> None:
    """A limit that was forgotten or misspelt must not delete everything."""
    everything = _flag(payload, "all")
    if older is None and not everything:
        raise InvalidJob('delete needs an age, or "all": true', field="payload.older_than_seconds")
    if older is not None and everything:
        raise InvalidJob("give all or an age, not both", field="payload.all")


def _read_format(payload: Mapping[str, Any], to: Target | None) -> str:
    name = (to.name or "") if to else ""
    default = TAR_GZ if name.endswith((".tar.gz", ".tgz")) else ZIP
    value = payload.get("format", default)
    if value not in (ZIP, TAR_GZ):
        raise InvalidJob(f"one of {ZIP}, {TAR_GZ}", field="payload.format")
    return str(value)


def _flag(payload: Mapping[str, Any], key: str) -> bool:
    value = payload.get(key, False)
    if not isinstance(value, bool):
        raise InvalidJob("true or false", field=f"payload.{key}")
    return value


def _number(payload: Mapping[str, Any], key: str, most: float) -> float | None:
    if key not in payload:
        return None
    value = payload[key]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidJob("a number of seconds", field=f"payload.{key}")
    # Compared before it is converted: there are whole numbers that no float can hold.
    if not 0 < value <= most or not math.isfinite(value):
        raise InvalidJob(f"more than 0, at most {most}", field=f"payload.{key}")
    return float(value)


def _whole(payload: Mapping[str, Any], key: str, least: int, most: int) -> int | None:
    if key not in payload:
        return None
    value = payload[key]
    if type(value) is not int or not least <= value <= most:
        raise InvalidJob(f"a whole number from {least} to {most}", field=f"payload.{key}")
    return value
