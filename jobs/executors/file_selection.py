"""Which files a ``files`` job is about: looked for once, before anything is changed."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from jobs.errors import InvalidJob
from jobs.executors.file_drafts import is_temporary
from jobs.executors.file_roots import (
    MAX_DEPTH,
    PathRefused,
    is_same,
    look,
    opened_folder,
    shown,
    what_is,
)
from jobs.executors.files_request import DELETE, LIST, FilesRequest

# Entries of folders that one job looks at.
MAX_LOOKED = 1_000_000
_BETWEEN_CHECKS = 256

Parts = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A file. ``below`` leads from the folder of the request to its own."""

    below: Parts
    name: str
    status: os.stat_result

    @property
    def path(self) -> str:
        return shown("/".join((*self.below, self.name)))


@dataclass(slots=True)
class Folder:
    """A folder below that of the request; ``left`` counts what would be in it afterwards."""

    left: int
    is_old: bool
    is_emptied: bool = False


@dataclass(slots=True)
class Selection:
    files: list[Found] = field(default_factory=list)
    # There were more than the request allows.
    has_more: bool = False
    folders: dict[Parts, Folder] = field(default_factory=dict)
    # Folders in which drafts lie about, whoever left them.
    littered: list[Parts] = field(default_factory=list)

    def empty_folders(self) -> Iterator[Parts]:
        """The folders with nothing in them once the files are gone, the deepest first."""
        for found in self.files:
            if found.below:
                self.folders[found.below].left -= 1
                self.folders[found.below].is_emptied = True
        for below in sorted(self.folders, key=len, reverse=True):
            folder = self.folders[below]
            if folder.left <= 0 and (folder.is_old or folder.is_emptied):
                if below[:-1]:
                    self.folders[below[:-1]].left -= 1
                    self.folders[below[:-1]].is_emptied = True
                yield below


class Filter:
    """The limits of age and size of a request, at one moment."""

    def __init__(self, request: FilesRequest) -> None:
        self._request = request
        self._now = time.time()

    def takes(self, status: os.stat_result) -> bool:
        request = self._request
        if not self.is_old(status):
            return False
        newer = request.newer_than_seconds
        if newer is not None and self._now - status.st_mtime >= newer:
            return False
        larger, smaller = request.larger_than_bytes, request.smaller_than_bytes
        if larger is not None and status.st_size <= larger:
            return False
        return smaller is None or status.st_size < smaller

    def is_old(self, status: os.stat_result) -> bool:
        older = self._request.older_than_seconds
        return older is None or self._now - status.st_mtime > older


def select(
    request: FilesRequest,
    allowed: Filter,
    avoid: os.stat_result | None,
    skip: Callable[[str, str], None],
    check: Callable[[], None],
) -> Selection:
    """Look for the files of a request. ``avoid`` is the folder they go to, which is not searched."""
    selection = Selection()
    waiting: list[Parts] = [()]
    looked = 0
    while waiting and not selection.has_more:
        below = waiting.pop()
        try:
            with opened_folder(request.root, (*request.parts, *below)) as folder:
                status = os.fstat(folder)
                if below and avoid is not None and is_same(status, avoid):
                    continue
                with os.scandir(folder) as entries:
                    names = sorted(entry.name for entry in islice(entries, MAX_LOOKED + 1))
                looked += len(names)
                if looked > MAX_LOOKED:
                    raise InvalidJob(f"more than {MAX_LOOKED} entries to look at")
                if below:
                    selection.folders[below] = Folder(len(names), allowed.is_old(status))
                inner = _select_in(folder, names, below, request, allowed, selection, skip, check)
        except (PathRefused, FileNotFoundError, PermissionError) as error:
            if not below:
                raise
            # It was a folder a moment ago.
            reasons = {PathRefused: "a link", FileNotFoundError: "vanished"}
            skip(shown("/".join(below)), reasons.get(type(error), "permission denied"))
            continue
        waiting += reversed(inner)
    return selection


def _select_in(
    folder: int,
    names: list[str],
    below: Parts,
    request: FilesRequest,
    allowed: Filter,
    selection: Selection,
    skip: Callable[[str, str], None],
    check: Callable[[], None],
) -> list[Parts]:
    """Add the files of one folder; returns the folders in it that are to be searched as well."""
    inner: list[Parts] = []
    may_be_linked = request.operation in (DELETE, LIST)
    for index, name in enumerate(names):
        if index % _BETWEEN_CHECKS == 0:
            check()
        if is_temporary(name):
            if below not in selection.littered:
                selection.littered.append(below)
            continue
        is_meant = request.matches(name)
        if not (is_meant or request.is_recursive):
            continue
        try:
            status = look(folder, name)
        except FileNotFoundError:
            continue
        path = shown("/".join((*below, name)))
        if stat.S_ISDIR(status.st_mode):
            if request.is_recursive and len(request.parts) + len(below) >= MAX_DEPTH:
                skip(path, "too deep")
            elif request.is_recursive:
                inner.append((*below, name))
            elif not request.is_pattern:
                skip(path, "a folder")
            continue
        if not is_meant:
            continue
        reason = what_is(status)
        if reason and not (may_be_linked and stat.S_ISREG(status.st_mode)):
            skip(path, reason)
        elif allowed.takes(status):
            if len(selection.files) >= request.max_files:
                selection.has_more = True
                break
            selection.files.append(Found(below, name, status))
    return inner
