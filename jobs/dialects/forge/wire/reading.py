"""Reading what a client sent: names as they are, unknown ones ignored, null the same as left out."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

from config.problems import FieldError, InvalidInput

T = TypeVar("T")

_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?:[Zz]|[+-][0-9]{2}:[0-9]{2})\Z"
)
_DIGITS = re.compile(r"-?[0-9]{1,18}\Z")
_TIME_HINT = "Must be a time such as 2026-01-31T12:00:00Z."
MAX_LIST = 10_000


def refuse(field: str, message: str, code: str = "invalid") -> NoReturn:
    raise InvalidInput([FieldError(field, code, message)])


def parse_time(text: str) -> datetime | None:
    """The moment of an RFC 3339 text; None for all else."""
    if not _TIME.match(text):
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


class Body:
    """One object of a body. Each question gives the value, None where it was left out, or refuses it."""

    def __init__(self, data: Any, path: str = "") -> None:
        if not isinstance(data, Mapping):
            refuse(path or "json", "Must be an object.")
        self._path = path
        self._names = frozenset(data)
        self._values = {name: value for name, value in data.items() if value is not None}

    def field(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def need(self, *names: str) -> None:
        for name in names:
            if name not in self._values:
                refuse(self.field(name), "This field is required.", "required")

    def has(self, name: str) -> bool:
        """Whether it was given, be it null."""
        return name in self._names

    def raw(self, name: str) -> Any:
        return self._values.get(name)

    def _of(self, name: str, kind: type[T], message: str) -> T | None:
        value = self._values.get(name)
        if value is None:
            return None
        # A boolean is a number to Python and to nobody else.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            refuse(self.field(name), message)
        return value

    def text(self, name: str, most: int = 1000) -> str | None:
        value = self._of(name, str, "Must be a string.")
        if value is not None and len(value) > most:
            refuse(self.field(name), f"May have {most} characters at most.")
        return value

    def boolean(self, name: str) -> bool:
        self.need(name)
        return bool(self._of(name, bool, "Must be true or false."))

    def integer(self, name: str, least: int, most: int) -> int | None:
        value = self._of(name, int, "Must be a whole number.")
        if value is not None and not least <= value <= most:
            refuse(self.field(name), f"Must be between {least} and {most}.")
        return value

    def number(self, name: str, least: int, most: int) -> int:
        """A whole number that may not be left out."""
        self.need(name)
        value = self.integer(name, least, most)
        assert value is not None
        return value

    def moment(self, name: str) -> datetime | None:
        value = self._of(name, str, _TIME_HINT)
        if value is None:
            return None
        moment = parse_time(value)
        if moment is None:
            refuse(self.field(name), _TIME_HINT)
        return moment

    def texts(self, name: str, most: int = MAX_LIST, longest: int = 1000) -> list[str]:
        """A list of strings; one that was left out is empty."""
        items: list[Any] = self._of(name, list, "Must be a list.") or []
        if len(items) > most:
            refuse(self.field(name), f"May have {most} items at most.")
        for index, item in enumerate(items):
            if not isinstance(item, str) or len(item) > longest:
                refuse(f"{self.field(name)}[{index}]", f"Must be a string of {longest} at most.")
        return items

    def object(self, name: str) -> Body:
        return Body(self._values.get(name, {}), self.field(name))


class Query:
    """The query string; what is not known there is ignored."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given

    def text(self, name: str, most: int = 200) -> str | None:
        value = self._given.get(name, "").strip()
        if len(value) > most or "\0" in value:
            refuse(name, f"May have {most} characters at most.")
        return value or None

    def needed(self, name: str) -> str:
        value = self.text(name)
        if value is None:
            refuse(name, "This parameter is required.", "required")
        return value

    def number(self, name: str, least: int, most: int) -> int:
        value = self.needed(name)
        if not _DIGITS.match(value) or not least <= int(value) <= most:
            refuse(name, f"Must be a whole number between {least} and {most}.")
        return int(value)

    def moment(self, name: str) -> datetime:
        value = self.needed(name)
        # What a "+" of an offset becomes where it was not escaped.
        moment = parse_time(value) or parse_time(value.replace(" ", "+"))
        if moment is None:
            refuse(name, _TIME_HINT)
        return moment
