"""Search words as one line of text, ``state:failed queue:mail``, and as parameters of an address."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from jobs.filters import as_json

# The words as they are written, the most telling first. PostgreSQL keeps those of a filter in no order.
ORDER = (
    "state", "queue", "type", "kind", "tag", "reason", "is_held", "failure", "schedule", "workflow_run",
    "trigger", "node", "attempt", "error", "args", "metadata", "unique_key", "copy_of", "since",
    "created_after", "created_before", "finished_after", "finished_before", "all",
)  # fmt: skip
MAX_LINE = 2000
# What is in an argument of a job is written with the name of it in the word: ``args.user.id:123``.
_DOTTED = "args."
_SPACE = re.compile(r"\s+")
_WORD = re.compile(r"[^\s:\"]+")


class LineError(ValueError):
    """What cannot be read, and of which word."""

    def __init__(self, word: str, message: str) -> None:
        super().__init__(message)
        self.word, self.message = word[:100], message


def written(words: Mapping[str, Any] | Iterable[tuple[str, str]]) -> str:
    """Checked words, or pairs of a word and its value, as people write them."""
    pairs = as_query(words) if isinstance(words, Mapping) else words
    return " ".join(_pair(word, value) for word, value in pairs)


def as_query(words: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The words as parameters; a word with several values is there several times."""
    named = as_json(words)
    known = [word for word in ORDER if word in named]
    return [
        (word, one)
        for word in [*known, *sorted(named.keys() - set(known))]
        for one in _each(named[word])
    ]


def pairs_of(line: str) -> list[tuple[str, str]]:
    """Each word of the line with its value, in its order; several values may stand with a comma.

    A value with spaces stands in quotes, in which a backslash takes a quote for itself.
    """
    pairs: list[tuple[str, str]] = []
    place = 0
    while place < len(line):
        if space := _SPACE.match(line, place):
            place = space.end()
            continue
        found = _WORD.match(line, place)
        word = found[0] if found else ""
        place += len(word)
        if not word or line[place : place + 1] != ":":
            shown = word or line[place : place + 40]
            raise LineError(shown, "Must be word:value, such as state:failed.")
        value, place = _value(line, place + 1, word)
        pairs += _meant(word, value)
    return pairs


def _value(line: str, place: int, word: str) -> tuple[str, int]:
    if line[place : place + 1] != '"':
        end = _SPACE.search(line, place)
        until = end.start() if end else len(line)
        return line[place:until], until
    read = []
    place += 1
    while place < len(line) and line[place] != '"':
        place += line[place] == "\\" and place + 1 < len(line)
        read.append(line[place])
        place += 1
    if place >= len(line):
        raise LineError(word, "The quote is not closed.")
    if line[place + 1 : place + 2].strip():
        raise LineError(word, "After the closing quote must be a space.")
    return "".join(read), place + 1


def _meant(word: str, value: str) -> list[tuple[str, str]]:
    if value == "":
        raise LineError(word, "Needs a value, such as state:failed.")
    if word.startswith(_DOTTED):
        return [("args", f"{word.removeprefix(_DOTTED)}:{value}")]
    if word == "state":
        return [(word, one) for one in value.split(",")]
    return [(word, value)]


def _each(value: Any) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        yield str(one).lower() if isinstance(one, bool) else str(one)


def _pair(word: str, value: str) -> str:
    if word == "args":
        path, _, value = value.partition(":")
        word = f"{_DOTTED}{path}"
    return f"{word}:{_quoted(value)}"


def _quoted(text: str) -> str:
    if text and not any(character.isspace() or character == '"' for character in text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
