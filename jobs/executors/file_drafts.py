"""Files that nobody sees before they are whole, and changes that hit only what was looked at.

A name says nothing of what is behind it a moment later. So what is to go away or to be moved is first
renamed, then looked at under its new name, and put back if it is another file than was meant.

Names of drafts tell the job and fence they belong to. What a killed node left is removed by the next
attempt at that job, or by any job that comes by when no attempt can be that old.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import resource
import secrets
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from jobs.executors.file_roots import FILE, PathRefused, is_same, look, shown

CHUNK_BYTES = 1 << 20
# No attempt may last this long.
ABANDONED_SECONDS = 8 * 86_400
_TEMPORARY = re.compile(
    r"\.ym-(?P<job>[0-9A-Za-z-]{1,64})-(?P<fence>[0-9]{1,20})-(?P<number>[0-9]{1,20})\.(?P<use>part|del)"
)
_NO_REPLACE = 1
_renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
if _renameat2 is not None:
    _renameat2.argtypes = (
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_int,
        ctypes.c_char_p,
        ctypes.c_uint,
    )


class Changed(Exception):
    """It is not, or no longer, the file that was looked at."""


class Mark:
    """Names for the drafts of one attempt."""

    def __init__(self, job: str, fence: int) -> None:
        self.job = re.sub(r"[^0-9A-Za-z-]", "-", job)[:64]
        self.fence = fence
        # Not from one: whoever may write to the folder could have taken the name before.
        self._count = secrets.randbelow(1 << 40)

    def draft(self) -> str:
        self._count += 1
        return f".ym-{self.job}-{self.fence}-{self._count}.part"

    def condemned(self, inode: int) -> str:
        """The name of a file that goes away; whoever finds it later can tell that it was meant."""
        return f".ym-{self.job}-{self.fence}-{inode}.del"


def is_temporary(name: str) -> bool:
    return _TEMPORARY.fullmatch(name) is not None


def clear(folder: int, mark: Mark) -> int:
    """Remove what earlier attempts at this job, and jobs of long ago, left in a folder."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if is_temporary(entry.name)]
    removed = 0
    for name in names:
        found = _TEMPORARY.fullmatch(name)
        assert found is not None
        with suppress(FileNotFoundError):
            status = look(folder, name)
            is_earlier = found["job"] == mark.job and int(found["fence"]) < mark.fence
            if not stat.S_ISREG(status.st_mode):
                continue
            # The time of the last change of any kind: a draft takes over that of its contents.
            if not is_earlier and status.st_ctime > time.time() - ABANDONED_SECONDS:
                continue
            if found["use"] == "del" and int(found["number"]) != status.st_ino:
                continue
            os.unlink(name, dir_fd=folder)
            removed += 1
    return removed


class Draft:
    """A file that is being written in the folder of its target. It goes away unless it is published."""

    def __init__(self, folder: int, mark: Mark) -> None:
        self._folder = folder
        self._name = mark.draft()
        self._is_published = False
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self.file = os.open(self._name, flags, 0o600, dir_fd=folder)

    def __enter__(self) -> Draft:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._is_published:
            with suppress(OSError):
                os.unlink(self._name, dir_fd=self._folder)
        os.close(self.file)

    def take_after(self, status: os.stat_result) -> None:
        """Give it the times, rights and, where we may, the owner of the file it is a copy of."""
        if os.geteuid() == 0:
            with suppress(OSError):
                os.fchown(self.file, status.st_uid, status.st_gid)
        # Never the bits that lend somebody's rights.
        os.fchmod(self.file, stat.S_IMODE(status.st_mode) & 0o777)
        os.utime(self.file, ns=(status.st_atime_ns, status.st_mtime_ns))

    def publish(self, name: str, *, overwrite: bool) -> None:
        """Give it its name, whole and on disk; ``FileExistsError`` where the name is taken."""
        os.fsync(self.file)
        if not is_same(look(self._folder, self._name), os.fstat(self.file)):
            raise PathRefused(f"somebody has exchanged the draft of {shown(name)}")
        if overwrite:
            os.replace(self._name, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
        else:
            rename_to_new(self._folder, self._name, self._folder, name)
        self._is_published = True


def rename_to_new(folder: int, name: str, target: int, new_name: str) -> None:
    """Rename to a name that is free, or raise ``FileExistsError``; nobody comes in between."""
    if _renameat2 is not None:
        old, new = os.fsencode(name), os.fsencode(new_name)
        if _renameat2(folder, old, target, new, _NO_REPLACE) == 0:
            return
        number = ctypes.get_errno()
        if number not in (errno.ENOSYS, errno.EINVAL):
            raise OSError(number, os.strerror(number), new_name)
    # Some file systems cannot do it in one step. A link to a name that is taken fails as well.
    os.link(name, new_name, src_dir_fd=folder, dst_dir_fd=target, follow_symlinks=False)
    os.unlink(name, dir_fd=folder)


def move(
    folder: int, name: str, seen: os.stat_result, target: int, new_name: str, *, overwrite: bool
) -> None:
    """Rename the file that was looked at into another folder of the same file system."""
    if overwrite:
        os.replace(name, new_name, src_dir_fd=folder, dst_dir_fd=target)
    else:
        rename_to_new(folder, name, target, new_name)
    if not is_same(look(target, new_name), seen):
        _put_back(target, new_name, folder, name)
        raise Changed("was exchanged meanwhile")


def remove(folder: int, name: str, seen: os.stat_result, mark: Mark) -> None:
    """Delete the file that was looked at, or raise ``Changed`` and leave what is there."""
    hidden = mark.condemned(seen.st_ino)
    rename_to_new(folder, name, folder, hidden)
    if not is_untouched(look(folder, hidden), seen):
        _put_back(folder, hidden, folder, name)
        raise Changed("changed meanwhile")
    os.unlink(hidden, dir_fd=folder)


def _put_back(folder: int, name: str, target: int, old_name: str) -> None:
    try:
        rename_to_new(folder, name, target, old_name)
    except FileExistsError:
        raise Changed(f"was exchanged twice meanwhile; one is kept as {shown(name)}") from None


def is_untouched(one: os.stat_result, other: os.stat_result) -> bool:
    return is_same(one, other) and (one.st_size, one.st_mtime_ns) == (
        other.st_size,
        other.st_mtime_ns,
    )


def write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def has_same_content(file: int, folder: int, name: str, check: Callable[[], None]) -> bool:
    """Compare an open file with a named one, byte by byte; ``check`` is called between chunks."""
    other = os.open(name, FILE, dir_fd=folder)
    try:
        size, status = os.fstat(file).st_size, os.fstat(other)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            return False
        for offset in range(0, size, CHUNK_BYTES):
            check()
            if os.pread(file, CHUNK_BYTES, offset) != os.pread(other, CHUNK_BYTES, offset):
                return False
        return True
    finally:
        os.close(other)


def largest_file() -> int | None:
    """The size in bytes of the largest file this process may write; None where nothing bounds it."""
    most = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    return None if most == resource.RLIM_INFINITY else most
