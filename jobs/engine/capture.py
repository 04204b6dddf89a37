"""What a handler says without its context: print, logging, programs it starts, libraries in C.

Descriptors 1 and 2 of a process child are pipes. The child's second thread reads them, and its first
takes the rest when a job ends, so that every byte goes to the job that was running. The node holds their
other ends too: it reads what a child cannot, because it died or because something holds its interpreter.
"""

from __future__ import annotations

import codecs
import ctypes
import logging
import os
import select
from collections.abc import Iterator, Sequence
from typing import Protocol, TextIO

from jobs.engine.output import clean

STREAMS = ("stdout", "stderr")
READ_BYTES = 64 << 10
# Of one look; what is written all the time must not keep its reader for ever.
READS = 64
# Unlike ``os.read`` it keeps the interpreter: what is read is no more in the pipe, and a handler that
# went on before it is written down could take it along into its process's death.
_read_at_once = ctypes.PyDLL(None).read
_read_at_once.argtypes = ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t
_read_at_once.restype = ctypes.c_ssize_t


class Writer(Protocol):
    def write(self, stream: str, text: str, level: str | None = None) -> bool:
        """Add to the output of the running job; false when there is none."""


class Pipes:
    """The reading ends of a child's standard output and error, which must not block."""

    def __init__(self, readers: Sequence[int]) -> None:
        self.readers = list(readers)
        poll = select.poll()
        for reader in self.readers:
            poll.register(reader, select.POLLIN)
        # Asked after each job, so without a detour; all pipes have a writer as long as they are open.
        self.poll = poll.poll
        self._decoders = [_decoder() for _ in self.readers]
        self._buffer = ctypes.create_string_buffer(READ_BYTES)

    def has_more(self) -> bool:
        return any(events & select.POLLIN for _, events in self.poll(0))

    def read(self, reads: int = READS) -> Iterator[tuple[str, str]]:
        """Yield what is there now, with the stream it belongs to."""
        for index, reader in enumerate(self.readers):
            for _ in range(reads):
                size = _read_at_once(reader, self._buffer, READ_BYTES)
                if size <= 0:
                    break
                if text := self._decoders[index].decode(memoryview(self._buffer)[:size]):
                    yield STREAMS[index], text

    def finish(self) -> Iterator[tuple[str, str]]:
        """Yield what began as a character and was never completed."""
        for index, decoder in enumerate(self._decoders):
            if text := decoder.decode(b"", True):
                yield STREAMS[index], text

    def close(self) -> None:
        for reader in self.readers:
            os.close(reader)
        self.readers.clear()


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8")("replace")


class CapturedStream:
    """Stands in for ``sys.stdout`` and ``sys.stderr``: what a handler prints is its job's output."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, writer: Writer, name: str, fallback: TextIO) -> None:
        self._writer = writer
        self._name = name
        self._fallback = fallback

    def write(self, text: str) -> int:
        if self._writer.write(self._name, text):
            return len(text)
        return self._fallback.write(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._fallback.flush()

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._fallback.fileno()


class JobLog(logging.Handler):
    """Lines of ``logging`` with their level in the job's log; without a job, where they went before."""

    def __init__(self, writer: Writer, others: Sequence[logging.Handler]) -> None:
        super().__init__()
        self._writer = writer
        self._others = others
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        try:
            level = clean(record.levelname.lower())[:8]
            if self._writer.write("log", self.format(record), level):
                return
        except Exception:
            self.handleError(record)
            return
        for other in self._others:
            other.handle(record)

    @classmethod
    def install(cls, writer: Writer) -> None:
        """Put one in the place of what the root logger writes to."""
        root = logging.getLogger()
        root.handlers = [cls(writer, root.handlers)]
