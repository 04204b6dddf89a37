"""What is kept of an answer: bounded, unpacked, and as text that a database can hold."""

from __future__ import annotations

import dataclasses
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import aiohttp

REDIRECTS = (301, 302, 303, 307, 308)
MAX_RETRY_AFTER_SECONDS = 3600.0
# Of the answer this much is read after decompression, and this much kept.
MAX_ANSWER_BYTES = 1 << 20
KEPT_BYTES = 32 << 10
# The body as it is stored, quotes and line ends escaped: with the headers it stays below 64 KiB.
KEPT_JSON = 48 << 10
KEPT_HEADERS = 50
KEPT_HEADER_CHARS = 8 << 10
# What Python knows besides is slow, or turns bytes into something that is no text.
_CHARSETS = ("us-ascii", "iso-8859-1", "iso-8859-15", "windows-1252", "utf-16")
_CONTROLS = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """An answer with as much of its body as is kept."""

    status: int
    headers: dict[str, str]
    location: str | None
    retry_after_seconds: float | None
    body: str
    is_truncated: bool


async def read_answer(response: aiohttp.ClientResponse) -> Answer:
    location = response.headers.get("Location") if response.status in REDIRECTS else None
    body, is_truncated = await _read_body(response)
    text = _as_text(body, response.charset)
    while len(json.dumps(text, ensure_ascii=False)) > KEPT_JSON:
        text, is_truncated = text[: len(text) * 3 // 4], True
    return Answer(
        response.status,
        _kept_headers(response.raw_headers),
        location,
        _retry_after(response),
        text,
        is_truncated,
    )


async def _read_body(response: aiohttp.ClientResponse) -> tuple[bytes, bool]:
    """Return what is kept of the body, and whether there was more."""
    inflated = Inflated(response.headers.get("Content-Encoding", ""))
    kept = bytearray()
    received = produced = 0
    async for chunk in response.content.iter_any():
        received += len(chunk)
        try:
            for piece in inflated.feed(chunk):
                produced += len(piece)
                kept += piece[: KEPT_BYTES - len(kept)]
                if produced > MAX_ANSWER_BYTES:
                    return bytes(kept), True
        except zlib.error:
            return bytes(kept), True
        # Compressed data need not produce anything to keep us busy.
        if received > MAX_ANSWER_BYTES:
            return bytes(kept), True
    return bytes(kept), produced > len(kept)


class Inflated:
    """Undoes ``gzip`` and ``deflate`` in pieces of bounded size, however far they unfold."""

    PIECE = 64 << 10

    def __init__(self, coding: str) -> None:
        self._coding = coding.strip().lower()
        self._inflater: zlib._Decompress | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        if self._coding not in ("gzip", "x-gzip", "deflate"):
            yield data
            return
        if self._inflater is None:
            # Some send "deflate" without the header it should have; 8 is the method in that header.
            is_bare = self._coding == "deflate" and data[0] & 0x0F != 8
            self._inflater = zlib.decompressobj(-zlib.MAX_WBITS if is_bare else zlib.MAX_WBITS | 32)
        while data and not self._inflater.eof:
            piece = self._inflater.decompress(data, self.PIECE)
            data = self._inflater.unconsumed_tail
            yield piece


def _as_text(body: bytes, charset: str | None) -> str:
    name = (charset or "").lower()
    text = body.decode(name if name in _CHARSETS else "utf-8", "replace")
    return _CONTROLS.sub("\ufffd", text)


def _kept_headers(raw: Sequence[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers in lower case, repeated ones joined; cookies are nobody's business."""
    kept: dict[str, str] = {}
    left = KEPT_HEADER_CHARS
    for raw_name, raw_value in raw:
        name = _as_text(raw_name, None).lower()
        value = _as_text(raw_value, None)
        left -= len(name) + len(value)
        if left < 0 or len(kept) >= KEPT_HEADERS:
            break
        if name not in ("set-cookie", "set-cookie2"):
            kept[name] = f"{kept[name]}, {value}" if name in kept else value
    return kept


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Return the seconds the other side asks us to wait, at most an hour."""
    text = response.headers.get("Retry-After", "").strip()
    if response.status not in (429, 503) or not text:
        return None
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), MAX_RETRY_AFTER_SECONDS)
    try:
        until = parsedate_to_datetime(text)
        # By its own clock where it tells it, because ours may differ.
        date = response.headers.get("Date")
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        seconds = (until - now).total_seconds()
    except (TypeError, ValueError, OverflowError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)
