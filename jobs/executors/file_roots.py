"""Named roots: the only places that ``files`` jobs may touch, and the way into them.

    YARDMASTER_FILE_ROOTS="reports=/srv/reports,archive=/srv/archive:ro"

A way below a root is walked part by part: each folder is opened in the one before, links are not
followed, and there is no ``..``. Whoever exchanges a part of it meanwhile makes the walk fail, never
leave its root. What was opened stays what it is, whatever its name leads to by then.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A FIFO or a device in the place of a file must not hold us up, nor become our terminal.
FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
MAX_PATH_BYTES = 4000
MAX_NAME_BYTES = 255
MAX_DEPTH = 64

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}\Z")
_READ_ONLY = ":ro"


class PathRefused(Exception):
    """A path that does not lead to anything a job may touch."""


@dataclass(frozen=True, slots=True)
class Root:
    name: str
    path: str
    is_read_only: bool


# -- Which there are -------------------------------------------------------------------------------


def roots() -> Mapping[str, Root]:
    """The roots of this process, by name."""
    return read_roots(settings.FILE_ROOTS)


def read_roots(entries: Iterable[str]) -> dict[str, Root]:
    """Read ``name=/path`` and ``name=/path:ro``, or raise ``ValueError`` naming the entry."""
    found: dict[str, Root] = {}
    for entry in entries:
        name, _, path = entry.partition("=")
        is_read_only = path.endswith(_READ_ONLY)
        path = path.removesuffix(_READ_ONLY)
        if not _NAME.match(name):
            raise ValueError(
                f"{entry[:80]!r} is not name=/path; a name has letters, digits, _ and -"
            )
        if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise ValueError(f"{entry[:80]!r}: the path of a root is absolute, without ..")
        path = "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
        if path == "/":
            raise ValueError(f"{entry[:80]!r}: everything is too much for a root")
        for other in found.values():
            if name == other.name:
                raise ValueError(f"root {name!r} is named twice")
            if _is_below(path, other.path) or _is_below(other.path, path):
                # One path would have two names, and two sets of rights.
                raise ValueError(f"roots {other.name!r} and {name!r} lie in one another")
        found[name] = Root(name, path, is_read_only)
    return found


def locate(absolute_path: str) -> tuple[str, str]:
    """Return the root and the relative path of a place, or raise ``PathRefused``.

    The folders are resolved and compared part by part, so neither ``/srv/reports2`` nor a link that
    leads out of ``/srv/reports`` is below ``/srv/reports``. The last part may be a pattern.
    """
    known = roots()
    if not known:
        raise PathRefused(NONE_CONFIGURED)
    if not absolute_path.startswith("/"):
        raise PathRefused("the path is not absolute")
    check_text(absolute_path)
    parts = [part for part in absolute_path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise PathRefused("a path has no ..")
    place = Path("/", *parts)
    # A root itself may be asked for; below it only folders are resolved, the last part may be a link.
    for root in known.values():
        real_root = Path(os.path.realpath(root.path))
        for real in (Path(os.path.realpath(place.parent), place.name), _real_folder(place)):
            if real is not None and real.is_relative_to(real_root):
                relative = real.relative_to(real_root)
                return root.name, "" if relative == Path() else str(relative)
    raise PathRefused("the path lies below no root")


NONE_CONFIGURED = "no roots are configured, so all file jobs are refused; see YARDMASTER_FILE_ROOTS"


def _real_folder(place: Path) -> Path | None:
    return Path(os.path.realpath(place)) if place.is_dir() else None


def _is_below(path: str, other: str) -> bool:
    return Path(path).is_relative_to(other)


# -- Paths -----------------------------------------------------------------------------------------


def split(path: str) -> tuple[str, ...]:
    """Return the parts of a relative path, or raise ``PathRefused``; nothing in it is decoded."""
    check_text(path)
    if path.startswith("/"):
        raise PathRefused("the path is absolute; it is relative to its root")
    if path in ("", "."):
        return ()
    parts = tuple(path.split("/"))
    if ".." in parts:
        raise PathRefused("a path has no ..")
    if "" in parts or "." in parts:
        raise PathRefused("a part of the path is empty")
    if len(parts) > MAX_DEPTH:
        raise PathRefused(f"a path has at most {MAX_DEPTH} parts")
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        raise PathRefused(f"a part of a path has at most {MAX_NAME_BYTES} bytes")
    return parts


def check_text(path: str) -> None:
    if "\0" in path:
        raise PathRefused("a path has no NUL character")
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise PathRefused("not Unicode text: it holds half a character") from None
    if size > MAX_PATH_BYTES:
        raise PathRefused(f"a path has at most {MAX_PATH_BYTES} bytes")


# -- The way in ------------------------------------------------------------------------------------


@contextmanager
def opened_folder(root: Root, parts: Sequence[str], *, create: bool = False) -> Iterator[int]:
    """Open a folder below a root for as long as the block lasts."""
    folder = open_folder(root, parts, create=create)
    try:
        yield folder
    finally:
        os.close(folder)


def open_folder(root: Root, parts: Sequence[str], *, create: bool = False) -> int:
    """Return a descriptor of a folder below a root. ``create`` makes the parts that are missing."""
    # The root itself may be a link: that is the word of whoever configured it.
    try:
        folder = os.open(root.path, FOLDER & ~os.O_NOFOLLOW)
    except OSError as error:
        # Where it lies is nobody's business who may only name it.
        raise OSError(error.errno, f"root {root.name}: {error.strerror}") from None
    try:
        for part in parts:
            below = _open_part(folder, part, create)
            os.close(folder)
            folder = below
    except BaseException:
        os.close(folder)
        raise
    return folder


def _open_part(folder: int, part: str, create: bool) -> int:
    try:
        return enter(folder, part)
    except FileNotFoundError:
        if not create:
            raise
    with suppress(FileExistsError):
        os.mkdir(part, dir_fd=folder)
        os.fsync(folder)
    return enter(folder, part)


def enter(folder: int, name: str) -> int:
    """Open a folder in an open one, or raise ``PathRefused`` for what is none."""
    try:
        return os.open(name, FOLDER, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise PathRefused(f"{shown(name)} is a link or no folder") from None
        raise


def what_is(status: os.stat_result) -> str | None:
    """Say why something is not a file that may be read or moved; None where it is one."""
    if stat.S_ISLNK(status.st_mode):
        return "a link"
    if not stat.S_ISREG(status.st_mode):
        return "not a regular file"
    if status.st_nlink > 1:
        # Its other names may lie anywhere, and whoever made this one may not be allowed to read it.
        return "has hard links"
    return None


def is_same(one: os.stat_result, other: os.stat_result) -> bool:
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def look(folder: int, name: str) -> os.stat_result:
    return os.stat(name, dir_fd=folder, follow_symlinks=False)


def shown(name: str) -> str:
    """A name of a file as text that can be kept, whatever bytes it is made of."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
