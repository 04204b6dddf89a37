"""The output of one attempt, cleaned and bounded before it leaves the child."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from jobs.redaction import RedactedStream, Redaction

HEAD_BYTES = 64 << 10
TAIL_BYTES = 192 << 10
LINE_BYTES = 16 << 10  # in characters, which is what a line is cut by
# What a line costs beside its text: a flood of empty lines is a flood too.
ROW_BYTES = 64
# What PostgreSQL cannot store, and what makes terminals do things.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")

Emit = Callable[[str, "str | None", str], None]


def clean(text: str) -> str:
    """Escape control characters and lone surrogates; tabs and line ends stay."""
    return _UNPRINTABLE.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


class BoundedOutput:
    """Lines of an attempt: the first 64 KiB go out at once, of the rest the last 192 KiB at the end.

    ``keep`` gets each line that waits for the end, which may never come.
    """

    def __init__(
        self, emit: Emit, redaction: Redaction | None = None, keep: Emit | None = None
    ) -> None:
        self._emit = emit
        self._keep = keep
        # What must not be seen is taken out before lines are cut.
        self._redaction = redaction
        self._streams: dict[str, RedactedStream] = {}
        self._partial: dict[str, str] = {}
        self._head_left = HEAD_BYTES
        self._tail: deque[tuple[str, str | None, str]] = deque()
        self._tail_bytes = 0
        self._dropped_lines = 0
        self._dropped_bytes = 0

    def write(self, stream: str, text: str, level: str | None = None) -> None:
        """Add text. ``log`` text is whole lines; the other streams may arrive in any pieces."""
        if self._redaction is not None:
            text = self._redacted(self._redaction, stream, text)
            if not text and stream != "log":
                return
        self._write(stream, text, level)

    def _redacted(self, redaction: Redaction, stream: str, text: str) -> str:
        if stream == "log":
            return redaction.text(text)
        if stream not in self._streams:
            self._streams[stream] = RedactedStream(redaction)
        return self._streams[stream].feed(text)

    def _write(self, stream: str, text: str, level: str | None) -> None:
        if stream != "log":
            text = self._partial.pop(stream, "") + text
            text, newline, rest = text.rpartition("\n")
            if rest:
                start = 0
                while len(rest) - start > LINE_BYTES:
                    self._line(stream, level, rest[start : start + LINE_BYTES])
                    start += LINE_BYTES
                self._partial[stream] = rest[start:]
            if not newline:
                return
        for line in text.split("\n"):
            for start in range(0, max(len(line), 1), LINE_BYTES):
                self._line(stream, level, line[start : start + LINE_BYTES])

    def close(self) -> None:
        """Send what is kept back, with a line that counts what was left out."""
        for stream, kept in self._streams.items():
            if text := kept.close():
                self._write(stream, text, None)
        self._streams.clear()
        for stream, rest in self._partial.items():
            self._line(stream, None, rest)
        self._partial.clear()
        if self._dropped_lines:
            self._emit(
                "log",
                "warning",
                f"[{self._dropped_lines} lines, {self._dropped_bytes} bytes left out here]",
            )
        for line in self._tail:
            self._emit(*line)
        self._tail.clear()

    def _line(self, stream: str, level: str | None, text: str) -> None:
        text = clean(text.removesuffix("\r"))
        size = len(text.encode()) + ROW_BYTES
        if self._head_left > 0:
            self._head_left -= size
            self._emit(stream, level, text)
            return
        self._tail.append((stream, level, text))
        if self._keep is not None:
            self._keep(stream, level, text)
        self._tail_bytes += size
        while self._tail_bytes > TAIL_BYTES:
            dropped = len(self._tail.popleft()[2].encode())
            self._tail_bytes -= dropped + ROW_BYTES
            self._dropped_lines += 1
            self._dropped_bytes += dropped
