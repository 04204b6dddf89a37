"""Frames on the pipe between a node and its children: a length in four bytes, then JSON.

The node never unpickles what a child sends: the child ran foreign code.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("!I")
# A batch of jobs with the largest payloads is far below this; more is a broken or hostile peer.
MAX_FRAME = 64 << 20
# A longer wait than this is not said.
MOST_RETRY_AFTER_SECONDS = 1e9


class BrokenPeer(Exception):
    """The other side closed the pipe or sent something that is no frame."""


def pack(body: bytes) -> bytes:
    return _LENGTH.pack(len(body)) + body


def encode(message: dict[str, Any]) -> bytes:
    return pack(json.dumps(message, separators=(",", ":")).encode())


def read_frame(sock: socket.socket) -> dict[str, Any]:
    """Block until the next frame is there."""
    (length,) = _LENGTH.unpack(_read_exactly(sock, _LENGTH.size))
    if length > MAX_FRAME:
        raise BrokenPeer(f"a frame of {length} bytes")
    message: dict[str, Any] = json.loads(_read_exactly(sock, length))
    return message


def _read_exactly(sock: socket.socket, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = sock.recv(min(size - len(parts), 1 << 20))
        if not part:
            raise BrokenPeer("closed")
        parts += part
    return bytes(parts)


class Channel:
    """The node's side: never blocks, whatever the child does or fails to read."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._incoming = bytearray()
        self._outgoing = bytearray()

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def has_backlog(self) -> bool:
        return bool(self._outgoing)

    def send(self, frame: bytes) -> None:
        self._outgoing += frame
        self.flush()

    def flush(self) -> None:
        """Write what the pipe takes now; the rest waits for the next call."""
        while self._outgoing:
            try:
                sent = self.sock.send(self._outgoing)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # The child is gone; reading will say so.
                self._outgoing.clear()
                return
            del self._outgoing[:sent]

    def receive(self) -> tuple[list[dict[str, Any]], bool]:
        """The frames that have arrived, and whether the child has closed its end."""
        closed = False
        while True:
            try:
                part = self.sock.recv(1 << 18)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                closed = True
                break
            if not part:
                closed = True
                break
            self._incoming += part
            if len(part) < 1 << 18:
                break
        messages: list[dict[str, Any]] = []
        offset = 0
        while len(self._incoming) - offset >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._incoming, offset)
            if length > MAX_FRAME:
                raise BrokenPeer(f"a frame of {length} bytes")
            end = offset + _LENGTH.size + length
            if len(self._incoming) < end:
                break
            messages.append(json.loads(bytes(self._incoming[offset + _LENGTH.size : end])))
            offset = end
        del self._incoming[:offset]
        return messages, closed

    def close(self) -> None:
        self.sock.close()
