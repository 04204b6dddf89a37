"""The directory of a ``shell`` job, and the user it belongs to."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pwd
import re
import secrets
import stat
import tempfile
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from jobs.executors import Assignment, Output
from jobs.executors.host_label import PATTERN, worn

# Removing files holds up everything else on the loop for no longer than this.
SLICE_SECONDS = 0.005
PREFIX = "yardmaster-shell-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class NoAccount(Exception):
    """There is no user that shell jobs could run as."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this host."""

    name: str
    uid: int
    gid: int

    @classmethod
    def find(cls, name: str) -> Account:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            raise NoAccount(
                f"user {name!r} does not exist on this host; see YARDMASTER_SHELL_USER"
            ) from None
        if entry.pw_uid == 0:
            raise NoAccount(f"user {name!r} is root; see YARDMASTER_SHELL_USER")
        return cls(name, entry.pw_uid, entry.pw_gid)


async def pause(seconds: float) -> None:
    """Sleep, and take no notice of cancellation: cleaning up has to come to its end."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(seconds)


class Folder:
    """A directory that lives as long as the attempt; the program's own is ``work`` in it.

    ``account`` is None where programs run as our own user.
    """

    def __init__(self, assignment: Assignment, account: Account | None) -> None:
        # The name says whose it was, should nobody have the time to remove it.
        job = re.sub(r"[^A-Za-z0-9-]", "_", f"{assignment.id[:64]}-{assignment.fence}")
        self.path = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{worn()}-{job}-"))
        self.work = self.path / "work"
        self.script = self.path / "script"
        self.output = self.path / "output"
        self.progress = self.path / "progress"
        self._account = account
        self.work.mkdir(0o700)
        if account is not None:
            self.path.chmod(0o711)
            os.chown(self.work, account.uid, account.gid)

    def write_script(self, text: str) -> None:
        """Put the script where only its user reads it; everybody sees the arguments of a process."""
        self._write(self.script, text, 0o400)

    def write_files(self, files: Mapping[str, str]) -> None:
        """Put files, to read, where the program runs; nothing of it may have run before."""
        for name, text in files.items():
            self._write(self.work / name, text, 0o400)

    def expect_output(self) -> None:
        """Make the files into which the next program may tell its output and progress, empty."""
        for path in (self.output, self.progress):
            self._write(path, "", 0o600)

    def _write(self, path: Path, text: str, mode: int) -> None:
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            self.hand_over(descriptor)
            file.write(text.encode())

    def read_told(self, path: Path, most: int) -> tuple[bytes, int]:
        """Return what a program wrote to one of those files, from its start, and how much it is in all.

        The program may have put anything in its place: no link is followed, no pipe is waited for.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return b"", 0
        with os.fdopen(descriptor, "rb") as file:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                return b"", 0
            return file.read(most), found.st_size

    def open_stdin(self, text: str | None) -> IO[bytes]:
        """Return a file to read from, which unlike a pipe needs nobody to feed it."""
        if text is None:
            return Path(os.devnull).open("rb")
        file = tempfile.TemporaryFile(dir=self.path)  # noqa: SIM115 - the caller closes it
        self.hand_over(file.fileno())
        file.write(text.encode())
        file.seek(0)
        return file

    def hand_over(self, descriptor: int) -> None:
        """Give a file or pipe to the program's user, who may then open it again as /dev/stdout."""
        if self._account is not None:
            os.fchown(descriptor, self._account.uid, self._account.gid)

    async def remove(self, output: Output) -> None:
        """Remove the directory with all that the program left there."""
        try:
            await remove_tree(self.path, is_ours=self._account is None)
        except OSError as error:
            output.write("log", f"directory {self.path} is left behind: {error}", "warning")


def left_behind(installation: str, living: Set[str]) -> list[Path]:
    """Directories of nodes of one installation that are none of the living."""
    found = []
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}{installation}*"):
        label = path.name.removeprefix(PREFIX)[: len(installation) + 7]
        is_labelled = PATTERN.fullmatch(label) and label[len(installation) :] not in living
        if is_labelled and path.lstat().st_uid == os.geteuid():
            found.append(path)
    return found


async def remove_tree(path: Path, *, is_ours: bool) -> None:
    """Empty a directory and remove it, however deep and full, letting the loop turn in between.

    ``is_ours`` says that what is in there belongs to our own user. Directories are moved up into the
    top before they are emptied: no recursion, and never more than two descriptors. Another job of the
    same user may interfere, so root follows no link.
    """
    top = os.open(path, _FOLDER)
    try:
        await _empty(top, is_ours)
    finally:
        os.close(top)
    path.rmdir()


async def _empty(top: int, is_ours: bool) -> None:
    token = secrets.token_hex(8)
    pending = []
    with os.scandir(top) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.name)
            else:
                os.unlink(entry.name, dir_fd=top)
    steps = tries = 0
    turned_at = time.monotonic()
    while pending:
        name = pending.pop()
        _make_accessible(name, top, is_ours)
        opened = os.open(name, _FOLDER, dir_fd=top)
        try:
            with os.scandir(opened) as entries:
                for entry in entries:
                    steps += 1
                    if time.monotonic() - turned_at > SLICE_SECONDS:
                        await pause(0)
                        turned_at = time.monotonic()
                    if entry.is_dir(follow_symlinks=False):
                        moved = f"{token}-{steps}"
                        _make_accessible(entry.name, opened, is_ours)
                        os.rename(entry.name, moved, src_dir_fd=opened, dst_dir_fd=top)
                        pending.append(moved)
                    else:
                        os.unlink(entry.name, dir_fd=opened)
        finally:
            os.close(opened)
        try:
            os.rmdir(name, dir_fd=top)
        except OSError as error:
            # Some file systems skip entries while others are being removed.
            tries += 1
            if error.errno != errno.ENOTEMPTY or tries > 100:
                raise
            pending.append(name)


def _make_accessible(name: str, parent: int, is_ours: bool) -> None:
    # Root needs no leave, and must not be made to give any: the name may be a link by now.
    if is_ours:
        os.chmod(name, 0o700, dir_fd=parent)
