"""Kind ``files``: copy, move, delete, archive, compress and list files inside named roots.

First the files are looked for, then each is dealt with: its folder is opened part by part once more,
and it must still be the file that was found. What is written is a draft beside its target until it is
whole and on disk. A second attempt does no harm: what has arrived with the same content counts as done.

It runs in a child of its own, since there is no reading of a disk that does not block. The token is
looked at between files and between chunks of 1 MiB; a signal interrupts nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

from jobs.errors import InvalidJob
from jobs.executors import Outcome, Work
from jobs.executors.file_archives import unfit
from jobs.executors.file_drafts import (
    CHUNK_BYTES,
    Changed,
    Draft,
    has_same_content,
    is_untouched,
    move,
    remove,
    write_all,
)
from jobs.executors.file_ledger import HOPELESS, Ledger, is_passing, words
from jobs.executors.file_place import MEANWHILE, Member, Place, Side
from jobs.executors.file_roots import (
    PathRefused,
    is_same,
    look,
    opened_folder,
    shown,
    what_is,
)
from jobs.executors.file_selection import Found, Selection, select
from jobs.executors.files_request import (
    ARCHIVE,
    COMPRESS,
    COPY,
    DELETE,
    LIST,
    MOVE,
    ZIP,
    read,
)

TAKEN = "the target exists, with other content"


def run(work: Work, payload: object) -> Outcome:
    """Do what the payload says; raises ``JobCancelled`` when the token says so."""
    try:
        request = read(payload)
    except InvalidJob as error:
        return Outcome(
            False, error=f"{error.field}: {error}", error_type="InvalidJob", is_permanent=True
        )
    ledger = Ledger(work, request)
    task = _Task(work, request, ledger)
    try:
        with task:
            task.do()
    except PathRefused as error:
        return ledger.failed(str(error), "PathRefused", is_permanent=True)
    except InvalidJob as error:
        return ledger.failed(str(error), "InvalidJob", is_permanent=True)
    except Changed as error:
        return ledger.failed(str(error), "FileChanged", is_permanent=False)
    except OSError as error:
        name = f"{shown(str(error.filename))}: " if error.filename else ""
        text = f"{name}{words(error)}"
        return ledger.failed(text, type(error).__name__, is_permanent=not is_passing(error))
    return ledger.outcome()


class _Task(Place):
    """One attempt at one request."""

    def do(self) -> None:
        request = self.request
        avoid = self._open_target()
        selection = self._select(avoid)
        if request.operation == LIST or (request.is_dry_run and request.operation == DELETE):
            for found in selection.files:
                self.ledger.done(found)
        elif request.operation == ARCHIVE:
            self._archive(selection)
        else:
            self._each(selection)
        if request.delete_empty_directories:
            self._remove_empty(selection)

    # -- Before anything is changed ----------------------------------------------------------------

    def _open_target(self) -> os.stat_result | None:
        to = self.request.to
        if to is None:
            return None
        self.target = Side(to.root, to.parts, create=not self.request.is_dry_run)
        try:
            return os.fstat(self.target.at(()))
        except FileNotFoundError:
            if not self.request.is_dry_run:
                raise
            return None

    def _select(self, avoid: os.stat_result | None) -> Selection:
        request = self.request
        skip = self.ledger.skip
        # An archive or a zip may lie beside what it is made of.
        keeps_apart = request.operation in (COPY, MOVE)
        with opened_folder(request.root, request.parts) as folder:
            is_here = avoid is not None and is_same(os.fstat(folder), avoid)
        if is_here and keeps_apart and not (request.to and request.to.name):
            raise PathRefused("the files are there already: both folders are one")
        avoid = avoid if keeps_apart else None
        selection = select(request, self.filter, avoid, skip, self.check)
        if request.is_single and not selection.files:
            self._explain_missing()
        self.ledger.has_more = selection.has_more
        if selection.has_more and request.operation == ARCHIVE:
            raise PathRefused(f"there are more than {request.max_files} files; see max_files")
        self.expected = sum(found.status.st_size + 1 for found in selection.files)
        self.work.log(
            f"{request.operation}: {len(selection.files)} files,"
            f" {sum(found.status.st_size for found in selection.files)} bytes"
        )
        if not request.is_dry_run and not request.root.is_read_only and request.operation != LIST:
            for below in selection.littered:
                self.clear_drafts(self.source.at(below), ("source", *below))
        return selection

    def _explain_missing(self) -> None:
        """One file was asked for, and there is nothing to do: tell why, where it is not just young."""
        request, name = self.request, self.request.pattern
        try:
            status = look(self.source.at(()), name)
        except FileNotFoundError:
            if request.operation == MOVE and self._has_arrived():
                return
            raise
        if (reason := what_is(status)) and request.operation not in (DELETE, LIST):
            raise PathRefused(f"{shown(name)} is not touched: {reason}")
        if not stat.S_ISREG(status.st_mode):
            raise PathRefused(f"{shown(name)} is not touched: {what_is(status)}")

    def _has_arrived(self) -> bool:
        """An earlier attempt may have moved the file and not lived to tell."""
        to = self.request.to
        if self.work.fence <= 1 or to is None or self.target is None:
            return False
        try:
            status = look(self.target.at(()), to.name or self.request.pattern)
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(status.st_mode):
            return False
        self.ledger.done(Found((), self.request.pattern, status))
        self.work.log("an earlier attempt has moved it")
        return True

    # -- File by file ------------------------------------------------------------------------------

    def _each(self, selection: Selection) -> None:
        deal = {
            COPY: self._transfer,
            MOVE: self._transfer,
            DELETE: self._delete,
            COMPRESS: self._compress,
        }[self.request.operation]
        for found in selection.files:
            self.check()
            before = self.moved
            try:
                if reason := deal(found):
                    self._leave(found, reason)
                else:
                    self.ledger.done(found)
            except FileNotFoundError:
                self._skip_or_raise(found)
            except FileExistsError:
                self._refuse_existing(found)
            except PathRefused as error:
                self._leave(found, str(error))
            except Changed as error:
                self.ledger.fail(found.path, str(error), "FileChanged", is_permanent=False)
            except OSError as error:
                if error.errno in HOPELESS:
                    raise
                kind, passes = type(error).__name__, is_passing(error)
                self.ledger.fail(found.path, words(error), kind, is_permanent=not passes)
            self.moved = before
            self.advance(found.status.st_size + 1)

    def _leave(self, found: Found, reason: str) -> None:
        """A pattern takes what it can; a file that was named must be dealt with."""
        if self.request.is_single:
            is_permanent = reason != MEANWHILE
            self.ledger.fail(found.path, reason, "NotTouched", is_permanent=is_permanent)
        else:
            self.ledger.skip(found.path, reason)

    def _skip_or_raise(self, found: Found) -> None:
        """What is gone is no loss to a pattern; but was it the file, or where it goes to?"""
        try:
            look(self.source.at(found.below), found.name)
        except FileNotFoundError:
            if self.request.is_single:
                raise
            self.ledger.skip(found.path, "vanished")
        else:
            raise FileNotFoundError(errno.ENOENT, "the target folder vanished", found.path)

    def _refuse_existing(self, found: Found) -> None:
        if self.request.is_single:
            self.ledger.fail(found.path, TAKEN, "TargetExists", is_permanent=True)
        else:
            self.ledger.skip(found.path, "the target exists")

    def _transfer(self, found: Found) -> str | None:
        request, to = self.request, self.to
        name = to.name or found.name
        with self.opened(found) as (file, status):
            if request.is_dry_run:
                existing = self.existing(found.below, name)
                if existing is not None and not request.overwrite:
                    raise FileExistsError
                return None
            target = self.target_at(found.below)
            existing = self.existing(found.below, name)
            if existing is not None:
                if is_same(existing, status):
                    return "its own target"
                if not stat.S_ISREG(existing.st_mode):
                    return "the target is not a regular file"
                if not request.overwrite:
                    if not has_same_content(file, target, name, self.check):
                        raise FileExistsError
                    if request.operation == MOVE:
                        self.take_away(found, status)
                    return None
            if request.operation == MOVE and self._has_renamed(found, status, target, name):
                return None
            self._copy(file, status, target, name)
            if request.operation == MOVE:
                # The copy has its name on disk before the original loses its own.
                os.fsync(target)
                self.take_away(found, status)
        return None

    def _has_renamed(self, found: Found, status: os.stat_result, target: int, name: str) -> bool:
        source = self.source.at(found.below)
        try:
            move(source, found.name, status, target, name, overwrite=self.request.overwrite)
        except OSError as error:
            if error.errno == errno.EXDEV:
                return False
            raise
        self.source.is_changed = True
        return True

    def _copy(self, file: int, status: os.stat_result, target: int, name: str) -> None:
        self.check_size(status.st_size)
        with Draft(target, self.mark) as draft:
            while data := os.read(file, CHUNK_BYTES):
                self.check()
                write_all(draft.file, data)
                self.advance(len(data))
            if not is_untouched(os.fstat(file), status):
                raise Changed("changed while it was read")
            draft.take_after(status)
            self.check()
            draft.publish(name, overwrite=self.request.overwrite)

    def _delete(self, found: Found) -> str | None:
        source = self.source.at(found.below)
        status = look(source, found.name)
        if not is_untouched(status, found.status):
            return MEANWHILE
        remove(source, found.name, status, self.mark)
        self.source.is_changed = True
        return None

    def _compress(self, found: Found) -> str | None:
        if found.name.endswith(".zip"):
            return "a zip already"
        if reason := unfit(found.name):
            return reason
        request, name = self.request, f"{found.name}.zip"
        with self.opened(found) as (file, status):
            if request.is_dry_run:
                if self.existing(found.below, name) is not None and not request.overwrite:
                    raise FileExistsError
                return None
            target = self.target_at(found.below)
            with Draft(target, self.mark) as draft:
                self.pack(draft, ZIP, [(found.name, file, status)])
                draft.take_after(status)
                self.publish(draft, target, name)
            if request.delete_originals:
                os.fsync(target)
                self.take_away(found, status)
        return None

    # -- One archive of all ------------------------------------------------------------------------

    def _archive(self, selection: Selection) -> None:
        request, to = self.request, self.to
        name = to.name or ""
        existing = self.existing((), name)
        chosen = []
        for found in selection.files:
            if existing is not None and is_same(existing, found.status):
                self.ledger.skip(found.path, "its own target")
            elif reason := unfit(found.path):
                self.ledger.skip(found.path, reason)
            else:
                chosen.append(found)
        if not chosen:
            raise FileNotFoundError(
                errno.ENOENT, "no file to put into the archive", request.pattern
            )
        if request.is_dry_run:
            packed = chosen
            if existing is not None and not request.overwrite:
                self.ledger.fail(shown(name), TAKEN, "TargetExists", is_permanent=True)
        else:
            packed = []
            target = self.target_at(())
            with Draft(target, self.mark) as draft:
                self.pack(draft, request.format, self._opened_each(chosen, packed))
                os.fchmod(draft.file, 0o640)
                try:
                    self.publish(draft, target, name)
                except FileExistsError:
                    self.ledger.fail(shown(name), TAKEN, "TargetExists", is_permanent=True)
                    return
        for found in packed:
            self.ledger.done(found)

    def _opened_each(self, chosen: list[Found], packed: list[Found]) -> Iterator[Member]:
        for found in chosen:
            self.check()
            try:
                with self.opened(found) as (file, status):
                    yield found.path, file, status
                    packed.append(found)
            except FileNotFoundError:
                self.ledger.skip(found.path, "vanished")
            except PathRefused as error:
                self.ledger.skip(found.path, str(error))

    # -- Folders -----------------------------------------------------------------------------------

    def _remove_empty(self, selection: Selection) -> None:
        for below in selection.empty_folders():
            self.check()
            if not self.request.is_dry_run:
                try:
                    os.rmdir(below[-1], dir_fd=self.source.at(below[:-1]))
                except (OSError, PathRefused) as error:
                    self.work.log(f"kept {shown('/'.join(below))}: {error}")
                    continue
                self.source.is_changed = True
            self.ledger.directories += 1
