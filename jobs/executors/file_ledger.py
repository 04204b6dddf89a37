"""What a ``files`` job has done, left alone and failed at, as its result tells it."""

from __future__ import annotations

import errno
import json
from collections import Counter
from typing import Any

from jobs.executors import Outcome, Work
from jobs.executors.file_selection import Found
from jobs.executors.files_request import ARCHIVE, LIST, FilesRequest

MAX_NAMES = 100
MAX_SKIPPED = 20
# Of the largest result a cluster allows, what is not names.
_FRAME_BYTES = 1500

# The next attempt may find it otherwise: room on the disk, a share that is mounted again, a file that
# has come. What is not named here nobody cures by waiting.
_PASSING = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.EDQUOT,
        errno.EINTR,
        errno.EIO,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENODEV,
        errno.ENOENT,
        errno.ENOMEM,
        errno.ENOSPC,
        errno.ENOTCONN,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.ETXTBSY,
    }
)
# With these every other file would fail as well.
HOPELESS = frozenset(
    {errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOSPC, errno.EROFS, errno.ESTALE}
)


def is_passing(error: OSError) -> bool:
    # What has no number comes from the archive modules: a file grew shorter while they read it.
    return error.errno is None or error.errno in _PASSING


def words(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


class Ledger:
    def __init__(self, work: Work, request: FilesRequest) -> None:
        self._work = work
        self._request = request
        self.files = self.bytes = self.directories = 0
        self.has_more = False
        self._entries: list[Any] = []
        self._is_truncated = False
        self._budget = max(work.max_result_bytes - _FRAME_BYTES, 0)
        self._skipped: list[dict[str, str]] = []
        self.reasons: Counter[str] = Counter()
        self._errors: list[str] = []
        self._error_type = ""
        self._is_permanent = True

    def done(self, found: Found) -> None:
        self.files += 1
        self.bytes += found.status.st_size
        self._keep(found)

    def _keep(self, found: Found) -> None:
        entry: Any = found.path
        if self._request.operation == LIST:
            entry = {
                "path": entry,
                "bytes": found.status.st_size,
                "modified_at": found.status.st_mtime_ns // 1_000_000 / 1000,
            }
        # A third is for what was skipped and failed.
        if len(self._entries) < MAX_NAMES and self._pays(entry, self._budget // 3):
            self._entries.append(entry)
        else:
            self._is_truncated = True

    def skip(self, path: str, reason: str) -> None:
        self.reasons[reason] += 1
        entry = {"path": path, "reason": reason}
        if len(self._skipped) < MAX_SKIPPED and self._pays(entry):
            self._skipped.append(entry)
        if self.reasons.total() <= MAX_SKIPPED:
            self._work.log(f"skipped {path}: {reason}", level="warning")

    def fail(self, path: str, error: str, error_type: str, *, is_permanent: bool) -> None:
        """Remember a file that could not be dealt with; the others go on."""
        self._errors.append(f"{path}: {error}"[:500])
        self._error_type = self._error_type or error_type
        self._is_permanent = self._is_permanent and is_permanent
        if len(self._errors) <= MAX_SKIPPED:
            self._work.log(self._errors[-1], level="error")

    def _pays(self, entry: Any, floor: int = 0) -> bool:
        cost = len(json.dumps(entry, ensure_ascii=False).encode()) + 2
        if self._budget - cost < floor:
            return False
        self._budget -= cost
        return True

    def result(self) -> dict[str, Any]:
        request = self._request
        result: dict[str, Any] = {
            "operation": request.operation,
            "dry_run": request.is_dry_run,
            "files": self.files,
            "bytes": self.bytes,
            "names": self._entries,
            "truncated": self._is_truncated,
            "more": self.has_more,
            "skipped": {
                "count": self.reasons.total(),
                "reasons": dict(self.reasons),
                "first": self._skipped,
            },
        }
        if request.delete_empty_directories:
            result["directories"] = self.directories
        if request.to is not None:
            parts = request.to.parts + ((request.to.name,) if request.to.name else ())
            result["to"] = {"root": request.to.root.name, "path": "/".join(parts)[:500]}
        return result

    def outcome(self) -> Outcome:
        if not self._errors:
            return Outcome(True, self.result())
        more = f" (and {len(self._errors) - 1} more)" if len(self._errors) > 1 else ""
        return self.failed(
            self._errors[0] + more, self._error_type, is_permanent=self._is_permanent
        )

    def failed(self, error: str, error_type: str, *, is_permanent: bool) -> Outcome:
        """A failure, with what was done before it; that much is not undone."""
        has_changed = self.files > 0 and not self._request.is_dry_run
        # A list changes nothing, and of an archive there is nothing until it is whole.
        return Outcome(
            False,
            self.result(),
            error=error,
            error_type=error_type,
            is_permanent=is_permanent,
            effect_unknown=has_changed and self._request.operation not in (LIST, ARCHIVE),
        )
