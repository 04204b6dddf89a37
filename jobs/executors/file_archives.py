"""Archives as ``files`` jobs write them: bounded, and harmless wherever they are unpacked.

The same files give the same bytes, so an attempt that comes after one that was cut off can tell that
the archive which is there already is its own.
"""

from __future__ import annotations

import gzip
import os
import re
import stat
import tarfile
import time
import zipfile
from collections.abc import Callable
from typing import IO, Protocol, cast

from jobs.executors.file_drafts import CHUNK_BYTES
from jobs.executors.file_roots import PathRefused
from jobs.executors.files_request import TAR_GZ

MAX_UNPACKED_BYTES = 16 << 30
# What unfolds further than this is taken for a trap by those who unpack it.
MAX_RATIO = 200
_RATIO_MATTERS_BYTES = 64 << 20
# Other systems take these for separators, drives or devices, or cannot show them.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f\\:\ud800-\udfff]")
_OLDEST = (1980, 1, 1, 0, 0, 0)
_NEWEST = (2107, 12, 31, 23, 59, 58)


def unfit(path: str) -> str | None:
    """Say why a path cannot be put into an archive; None where it can."""
    parts = path.split("/")
    if _UNSAFE.search(path) or any(part in ("", ".", "..") for part in parts):
        return "a name that archives cannot hold"
    return None


class Writer(Protocol):
    def add(self, path: str, status: os.stat_result, source: IO[bytes]) -> None:
        """Add a file; everything that is read of it comes from ``source``."""

    def close(self) -> None:
        """Write what completes the archive."""


def writer(form: str, file: IO[bytes]) -> Writer:
    return _Tar(file) if form == TAR_GZ else _Zip(file)


class Source:
    """A file that is read into an archive: with a look at the token, and with limits."""

    def __init__(self, file: int, size: int, advance: Callable[[int], None]) -> None:
        self._file = file
        self._left = size
        self._advance = advance

    def read(self, size: int = -1) -> bytes:
        # No more than was looked at, should somebody go on writing.
        most = self._left if size < 0 else min(size, self._left)
        data = os.read(self._file, min(most, CHUNK_BYTES))
        self._left -= len(data)
        self._advance(len(data))
        return data


class Limits:
    """What an archive holds so far."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._unpacked = 0

    def add(self, count: int) -> None:
        self._unpacked += count
        if self._unpacked > MAX_UNPACKED_BYTES:
            raise PathRefused(f"an archive holds at most {MAX_UNPACKED_BYTES >> 30} GiB")

    def check(self) -> None:
        """Refuse what would unfold too far; to be called when all of it is written."""
        packed = max(os.fstat(self._file).st_size, 1)
        if self._unpacked > _RATIO_MATTERS_BYTES and self._unpacked > MAX_RATIO * packed:
            raise PathRefused(f"the archive would unfold to more than {MAX_RATIO} times its size")


class _Zip:
    def __init__(self, file: IO[bytes]) -> None:
        self._zip = zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED)

    def add(self, path: str, status: os.stat_result, source: IO[bytes]) -> None:
        # Zip knows local times without a zone, from 1980 on.
        moment = time.gmtime(min(max(status.st_mtime, 0), 1 << 34))[:6]
        info = zipfile.ZipInfo(path, min(max(moment, _OLDEST), _NEWEST))
        info.compress_type = zipfile.ZIP_DEFLATED
        info.create_system = 3
        info.external_attr = (stat.S_IFREG | (stat.S_IMODE(status.st_mode) & 0o777)) << 16
        info.file_size = status.st_size
        with self._zip.open(info, "w") as member:
            while data := source.read(CHUNK_BYTES):
                member.write(data)

    def close(self) -> None:
        self._zip.close()


class _Tar:
    def __init__(self, file: IO[bytes]) -> None:
        self._gzip = gzip.GzipFile("", "wb", compresslevel=6, fileobj=file, mtime=0)
        self._tar = tarfile.TarFile(
            fileobj=self._gzip,
            mode="w",
            format=tarfile.PAX_FORMAT,
            copybufsize=CHUNK_BYTES,
        )

    def add(self, path: str, status: os.stat_result, source: IO[bytes]) -> None:
        info = tarfile.TarInfo(path)
        info.size = status.st_size
        info.mtime = int(status.st_mtime)
        info.mode = stat.S_IMODE(status.st_mode) & 0o777
        self._tar.addfile(info, source)

    def close(self) -> None:
        self._tar.close()
        self._gzip.close()


def as_stream(source: Source) -> IO[bytes]:
    """What the archive modules call a file; they only read."""
    return cast(IO[bytes], source)
