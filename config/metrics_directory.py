"""Where the worker processes of a server count together: a file each, in a directory of the server's.

The directory is made at the start and removed at the end. Whoever holds its lock alone may take files
away; who adds up what they say shares it, so that nothing is seen twice or missed. Imported before the
library that counts, which looks for the directory's name once.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_PREFIX, _LOCK, _ALIVE = "yardmaster-metrics-", "lock", "alive"
# What processes had counted that are gone.
_ENDED = "histogram_ended.db"


def current() -> Path | None:
    """The directory of this server's processes; None: there is one process, and it needs none."""
    name = os.environ.get(VARIABLE)
    return Path(name) if name else None


@contextmanager
def made(home: Path) -> Iterator[Path]:
    """A new directory for the length of the block; those of servers that were killed are removed."""
    parent = _parent(home)
    for left in parent.glob(f"{_PREFIX}*"):
        _remove_if_left(left)
    unnamed = Path(tempfile.mkdtemp(prefix="yardmaster-", dir=parent))
    directory = parent / f"{_PREFIX}{unnamed.name}"
    # The workers inherit it: held as long as one of them lives.
    with (unnamed / _ALIVE).open("w") as alive:
        fcntl.flock(alive, fcntl.LOCK_SH)
        # Only now, with the lock, may another server that starts come across it.
        unnamed.rename(directory)
        os.environ[VARIABLE] = str(directory)
        owner = os.getpid()
        try:
            yield directory
        finally:
            os.environ.pop(VARIABLE, None)
            if os.getpid() == owner:
                shutil.rmtree(directory, ignore_errors=True)


def _parent(home: Path) -> Path:
    """Below the data home, or among temporary files where nothing can be written there."""
    parent = home / "run"
    with suppress(OSError):
        parent.mkdir(parents=True, exist_ok=True)
    return parent if os.access(parent, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _remove_if_left(directory: Path) -> None:
    with suppress(OSError):
        # Among temporary files anybody may have put there what has our name.
        if directory.lstat().st_uid != os.getuid() or directory.is_symlink():
            return
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW
        with os.fdopen(os.open(directory / _ALIVE, flags)) as alive:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def locked(directory: Path, *, is_reader: bool) -> Iterator[None]:
    with (directory / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH if is_reader else fcntl.LOCK_EX)
        yield


def keep_what_the_dead_counted(directory: Path) -> None:
    """Add the files of processes that are gone to one that stays: totals never go back, and the number
    of files does not grow."""
    from prometheus_client.mmap_dict import MmapedDict

    with locked(directory, is_reader=False):
        gone = [path for path in directory.glob("histogram_*.db") if _is_gone(path)]
        if not gone:
            return
        ended = MmapedDict(str(directory / _ENDED))
        for path in gone:
            for key, value, at, _ in MmapedDict.read_all_values_from_file(str(path)):
                ended.write_value(key, ended.read_value(key)[0] + value, at)
            path.unlink()
        ended.close()


def _is_gone(path: Path) -> bool:
    process = path.stem.removeprefix("histogram_")
    return process.isdigit() and not psutil.pid_exists(int(process))
