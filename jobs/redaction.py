"""Secret values never leave a job: wherever one occurs in what it says, ``[REDACTED]`` stands instead.

A value is also found in base64, whatever stands before it there, quoted for addresses, and escaped as
JSON and tracebacks escape it; of a value of several lines each line counts as well.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

REDACTED = "[REDACTED]"
# Shorter values would be found in every second word.
MIN_LENGTH = 4
# Of the lines of a value, and of a piece of base64.
_MIN_LINE_LENGTH, _MIN_BASE64_LENGTH = 8, 6
# Of a secret that was cut in two: a shorter piece is any word. And texts that nobody cuts.
_MIN_PIECE_LENGTH, _MIN_CUT_LENGTH = 6, 1024


@lru_cache(maxsize=64)
def redaction_of(masks: tuple[str, ...]) -> Redaction | None:
    """What replaces these values; None where there is none to replace."""
    redaction = Redaction(masks)
    return redaction if redaction.forms else None


class Redaction:
    """Replaces secret values, and all the ways in which they may be written."""

    def __init__(self, masks: Iterable[str]) -> None:
        self.forms: tuple[str, ...] = tuple(
            dict.fromkeys(
                form for mask in masks if len(mask) >= MIN_LENGTH for form in _forms_of(mask)
            )
        )

    def text(self, text: str) -> str:
        found = self._found(text)
        if not found:
            return text
        parts, at = [], 0
        for start, end in found:
            parts += [text[at:start], REDACTED]
            at = end
        return "".join([*parts, text[at:]])

    def clipped(self, text: str) -> str:
        """A text that somebody has cut out of a longer one, perhaps in the middle of a secret."""
        text = self.text(text)
        begun = self.begun_at(text)
        if len(text) - begun >= _MIN_PIECE_LENGTH:
            text = text[:begun] + REDACTED
        ended = self._ended_at(text)
        return REDACTED + text[ended:] if ended >= _MIN_PIECE_LENGTH else text

    def value(self, value: Any) -> Any:
        """A JSON value with every text in it replaced, names of members too."""
        if isinstance(value, str):
            return self.clipped(value) if len(value) >= _MIN_CUT_LENGTH else self.text(value)
        if isinstance(value, dict):
            return {
                self.text(key) if isinstance(key, str) else key: self.value(item)
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return self._number(value)
        return value

    def _number(self, value: float) -> Any:
        """A secret of digits may come back as a number."""
        return REDACTED if repr(value) in self.forms else value

    def begun_at(self, text: str) -> int:
        """Where at the end of a text a secret may have begun that goes on in the next one."""
        earliest = len(text)
        for form in self.forms:
            at = text.find(form[0], max(len(text) - len(form) + 1, 0), earliest)
            while at >= 0:
                if form.startswith(text[at:]):
                    earliest = at
                    break
                at = text.find(form[0], at + 1, earliest)
        return earliest

    def _ended_at(self, text: str) -> int:
        """Where at the beginning of a text a secret may have ended that began before it."""
        latest = 0
        for form in self.forms:
            at = text.rfind(form[-1], latest, len(form) - 1)
            while at >= latest:
                if form.endswith(text[: at + 1]):
                    latest = at + 1
                    break
                at = text.rfind(form[-1], latest, at)
        return latest

    def _found(self, text: str) -> list[tuple[int, int]]:
        """From where to where secrets stand; those that overlap are one."""
        found = []
        for form in self.forms:
            at = text.find(form)
            while at >= 0:
                found.append((at, at + len(form)))
                at = text.find(form, at + 1)
        if len(found) < 2:
            return found
        found.sort()
        merged = [found[0]]
        for start, end in found[1:]:
            before, last = merged[-1]
            if start < last:
                merged[-1] = (before, max(end, last))
            else:
                merged.append((start, end))
        return merged


class RedactedStream:
    """Replaces secrets in a text that arrives in any pieces."""

    def __init__(self, redaction: Redaction) -> None:
        self._redaction = redaction
        self._held = ""

    def feed(self, text: str) -> str:
        """What may go on; the rest is kept until it is clear that no secret begins there."""
        text = self._held + text
        found = self._redaction._found(text)
        # What is found already cannot be the beginning of something else, unless it overlaps.
        at = self._redaction.begun_at(text)
        for start, end in found:
            if start < at < end:
                at = start
        self._held = text[at:]
        return self._redaction.text(text[:at])

    def close(self) -> str:
        text, self._held = self._held, ""
        return self._redaction.text(text)


def _forms_of(mask: str) -> Iterator[str]:
    yield from _written(mask)
    for line in mask.splitlines():
        if len(line) >= _MIN_LINE_LENGTH and line != mask:
            yield from _written(line)


def _written(mask: str) -> Iterator[str]:
    yield mask
    data = mask.encode(errors="surrogatepass")
    for form in (
        json.dumps(mask)[1:-1],
        json.dumps(mask, ensure_ascii=False)[1:-1],
        # As Go writes JSON, and with it our own `toJSON`.
        _without_markup(json.dumps(mask, ensure_ascii=False)[1:-1]),
        _without_markup(json.dumps(mask)[1:-1]),
        repr(mask)[1:-1],
        repr(data)[2:-1],
        quote(data),
        quote(data, safe=""),
        quote_plus(data),
    ):
        if form != mask:
            yield form
            if "%" in form:
                # Hexadecimal digits are the same in small letters.
                yield _small_escapes(form)
    for encoded in _in_base64(data):
        yield encoded
        if "+" in encoded or "/" in encoded:
            yield encoded.translate(str.maketrans("+/", "-_"))


def _without_markup(text: str) -> str:
    for character in "&<>":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _small_escapes(form: str) -> str:
    first, *rest = form.split("%")
    return "%".join([first, *(part[:2].lower() + part[2:] for part in rest)])


def _in_base64(data: bytes) -> Iterator[str]:
    """With the value alone, and what is the same of it whatever stands before and after it."""
    yield base64.b64encode(data).decode()
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + data).decode()
        inner = encoded[-(-before * 4 // 3) : (before + len(data)) * 4 // 3]
        if len(inner) >= _MIN_BASE64_LENGTH:
            yield inner
