"""What a child has yet to say of its jobs' output, in memory that its node shares and that outlives it.

The line before a crash is the one that explains it. Lines are collected before they are sent, and of
a long output the end is kept back; a child of processes that dies meanwhile takes neither along, as far
as they are whole lines. The oldest make room.
"""

from __future__ import annotations

import mmap
import struct
from typing import NamedTuple

CAPACITY = 256 << 10
# Where the oldest line begins and the newest ends, and the number of the last one that was sent.
# Positions count all bytes ever written; where in memory one is, its remainder tells.
_START, _END, _SENT = 0, 8, 16
_FIELD = struct.Struct("=q")
_HEAD_SIZE = 24
# Its number, its job, when, the stream, and the lengths of level and text, which follow.
_ROW = struct.Struct("=qqdBBI")
_STREAMS = ("stdout", "stderr", "log")
SIZE = _HEAD_SIZE + CAPACITY


class Line(NamedTuple):
    seq: int
    at: float
    stream: str
    level: str | None
    text: str


class LastWords:
    """The child adds and tells what was sent; its node reads what is left when the child is dead.

    Whoever adds holds the lock of all output, so lines come one at a time.
    """

    def __init__(self, memory: mmap.mmap, offset: int) -> None:
        self._memory = memory
        self._offset = offset
        self._rows_at = offset + _HEAD_SIZE
        self._start = self._end = self._count = 0

    def add(self, seq: int, at: float, stream: str, level: str | None, text: str) -> int:
        """Keep a line; returns its number, which goes with it and to ``sent``."""
        self._count += 1
        said, word = (part.encode("utf-8", "replace") for part in (text, level or ""))
        head = _ROW.pack(self._count, seq, at, _STREAMS.index(stream), len(word), len(said))
        row = head + word + said
        end = self._end + len(row)
        while end - self._start > CAPACITY:
            self._start += self._size_of(self._start)
            self._set(_START, self._start)
        self._write(self._end, row)
        # Last: a line is there as a whole or not at all.
        self._end = end
        self._set(_END, end)
        return self._count

    def sent(self, number: int) -> None:
        """The node has all lines up to this one."""
        if number > self._get(_SENT):
            self._set(_SENT, number)

    def left(self, heard: int) -> tuple[list[Line], int]:
        """The lines that the node has not got, which has heard all up to a number; and how many
        had made room for them."""
        at, end = self._get(_START), self._get(_END)
        if not 0 <= end - at <= CAPACITY:
            raise ValueError("positions that cannot be")
        heard = max(heard, self._get(_SENT))
        lines: list[Line] = []
        lost = 0
        while at < end:
            number, line, size = self._row(at)
            if number > heard:
                lost = lost if lines else number - heard - 1
                lines.append(line)
            at += size
        return lines, lost

    def _row(self, at: int) -> tuple[int, Line, int]:
        number, seq, when, stream, of_level, of_text = _ROW.unpack(self._read(at, _ROW.size))
        word = self._read(at + _ROW.size, of_level).decode("utf-8", "replace")
        text = self._read(at + _ROW.size + of_level, of_text).decode("utf-8", "replace")
        size = _ROW.size + of_level + of_text
        return number, Line(seq, when, _STREAMS[stream], word or None, text), size

    def _size_of(self, at: int) -> int:
        *_, of_level, of_text = _ROW.unpack(self._read(at, _ROW.size))
        return _ROW.size + int(of_level) + int(of_text)

    def _write(self, position: int, row: bytes) -> None:
        at = position % CAPACITY
        fitting = min(len(row), CAPACITY - at)
        begin = self._rows_at + at
        self._memory[begin : begin + fitting] = row[:fitting]
        if fitting < len(row):
            self._memory[self._rows_at : self._rows_at + len(row) - fitting] = row[fitting:]

    def _read(self, position: int, size: int) -> bytes:
        if size > CAPACITY:
            raise ValueError("a line that cannot be")
        at = position % CAPACITY
        fitting = min(size, CAPACITY - at)
        begin = self._rows_at + at
        return (
            self._memory[begin : begin + fitting]
            + self._memory[self._rows_at : self._rows_at + size - fitting]
        )

    def _get(self, field: int) -> int:
        value: int = _FIELD.unpack_from(self._memory, self._offset + field)[0]
        return value

    def _set(self, field: int, value: int) -> None:
        _FIELD.pack_into(self._memory, self._offset + field, value)
