"""The place of one attempt at a ``files`` job: the folders of both sides, open, and what is common to all
operations on them.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from jobs.executors import Work
from jobs.executors.file_archives import Limits, Source, as_stream, writer
from jobs.executors.file_drafts import (
    Changed,
    Draft,
    Mark,
    clear,
    has_same_content,
    is_untouched,
    largest_file,
    remove,
)
from jobs.executors.file_ledger import Ledger
from jobs.executors.file_roots import FILE, PathRefused, Root, is_same, look, open_folder, what_is
from jobs.executors.file_selection import Filter, Found, Parts
from jobs.executors.files_request import FilesRequest, Target
from jobs.registry import JobCancelled

PROGRESS_SECONDS = 0.5
MEANWHILE = "changed meanwhile"

# A file as it goes into an archive: its path there, its descriptor and its status.
Member = tuple[str, int, os.stat_result]


class Side:
    """The folder of one side that was needed last, below a root."""

    def __init__(self, root: Root, parts: Parts, *, create: bool = False) -> None:
        self._root, self._parts, self._create = root, parts, create
        self._below: Parts | None = None
        self._folder = -1
        self.is_changed = False

    def at(self, below: Parts) -> int:
        if self._below != below:
            self.close()
            self._folder = open_folder(self._root, (*self._parts, *below), create=self._create)
            self._below = below
        return self._folder

    def close(self) -> None:
        if self._below is not None:
            self._below = None
            try:
                if self.is_changed:
                    os.fsync(self._folder)
            finally:
                os.close(self._folder)
        self.is_changed = False


class Place:
    """One attempt at one request."""

    def __init__(self, work: Work, request: FilesRequest, ledger: Ledger) -> None:
        self.work = work
        self.request = request
        self.ledger = ledger
        self.filter = Filter(request)
        self.mark = Mark(work.id, work.fence)
        self.source = Side(request.root, request.parts)
        self.target: Side | None = None
        self._cleared: set[Parts] = set()
        self.expected = self.moved = 0
        self._told_at = time.monotonic()

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *error: object) -> None:
        with ExitStack() as closing:
            closing.callback(self.source.close)
            if self.target is not None:
                closing.callback(self.target.close)

    def clear_drafts(self, folder: int, key: Parts) -> None:
        if key not in self._cleared and not self.request.is_dry_run:
            self._cleared.add(key)
            if removed := clear(folder, self.mark):
                self.work.log(f"removed {removed} drafts that earlier attempts had left")

    def take_away(self, found: Found, status: os.stat_result) -> None:
        remove(self.source.at(found.below), found.name, status, self.mark)
        self.source.is_changed = True

    def pack(self, draft: Draft, form: str, members: Iterable[Member]) -> None:
        limits = Limits(draft.file)

        def advance(count: int) -> None:
            self.check()
            limits.add(count)
            self.advance(count)

        with os.fdopen(os.dup(draft.file), "w+b") as stream:
            archive = writer(form, stream)
            try:
                for path, file, status in members:
                    archive.add(path, status, as_stream(Source(file, status.st_size, advance)))
                    if not is_untouched(os.fstat(file), status):
                        raise Changed(f"{path} changed while it was read")
            except BaseException:
                # It would try to complete itself later, when the stream is closed.
                with suppress(OSError, ValueError):
                    archive.close()
                raise
            archive.close()
            stream.flush()
        limits.check()

    def publish(self, draft: Draft, target: int, name: str) -> None:
        self.check()
        try:
            draft.publish(name, overwrite=self.request.overwrite)
        except FileExistsError:
            # An earlier attempt may have written it, and not lived to tell.
            if not has_same_content(draft.file, target, name, self.check):
                raise

    @property
    def to(self) -> Target:
        assert self.request.to is not None
        return self.request.to

    def target_at(self, below: Parts) -> int:
        assert self.target is not None
        folder = self.target.at(below)
        self.clear_drafts(folder, ("target", *below))
        self.target.is_changed = True
        return folder

    def existing(self, below: Parts, name: str) -> os.stat_result | None:
        assert self.target is not None
        try:
            return look(self.target.at(below), name)
        except FileNotFoundError:
            return None

    @contextmanager
    def opened(self, found: Found) -> Iterator[tuple[int, os.stat_result]]:
        """Open a file that was found, and see that it is still that file."""
        try:
            file = os.open(found.name, FILE, dir_fd=self.source.at(found.below))
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                raise PathRefused(MEANWHILE) from None
            raise
        try:
            status = os.fstat(file)
            if reason := what_is(status):
                raise PathRefused(reason)
            if not is_same(status, found.status) or not self.filter.takes(status):
                raise PathRefused(MEANWHILE)
            yield file, status
        finally:
            os.close(file)

    def check(self) -> None:
        if self.work.cancelled:
            raise JobCancelled

    @staticmethod
    def check_size(size: int) -> None:
        most = largest_file()
        if most is not None and size > most:
            raise OSError(errno.EFBIG, f"larger than the {most >> 20} MiB a job may write")

    def advance(self, count: int) -> None:
        self.moved += count
        now = time.monotonic()
        if now - self._told_at >= PROGRESS_SECONDS:
            self._told_at = now
            self.work.progress(
                100 * min(self.moved / max(self.expected, 1), 1.0), f"{self.ledger.files} files"
            )
