"""Reading what a client sent, as a .NET server would: names of members in any case, unknown ones ignored,
null the same as left out. A value has the type its field says, or is refused with the field's path."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar
from uuid import UUID

from config.problems import FieldError, InvalidInput

T = TypeVar("T")

GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_TIME = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?:[Tt ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,9})?)?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})?)?\Z"
)
_DIGITS = re.compile(r"-?[0-9]{1,18}\Z")
MAX_TEXT = 200_000


def refuse(field: str, message: str, code: str = "invalid") -> NoReturn:
    raise InvalidInput([FieldError(field, code, message)])


def parse_time(text: str) -> datetime | None:
    """The moment of an ISO 8601 text; without an offset it is meant as UTC. None for all else."""
    if not _TIME.match(text):
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def parse_guid(text: Any) -> UUID | None:
    return UUID(text) if isinstance(text, str) and GUID.match(text) else None


class Reader:
    """One object of a body. Each question gives the value, or None where it was left out or is wrong;
    what is wrong is kept, and ``done`` refuses it all in one go."""

    def __init__(self, data: Any, path: str = "", errors: list[FieldError] | None = None) -> None:
        self.path = path
        self.errors: list[FieldError] = [] if errors is None else errors
        self._values: dict[str, Any] = {}
        self._is_object = isinstance(data, Mapping)
        if isinstance(data, Mapping):
            self._values = {str(k).lower(): v for k, v in data.items() if v is not None}
        else:
            self._refuse("", "Must be an object.")

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._values

    def field(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path and name else self.path or name or "body"

    def refuse(self, name: str, message: str, code: str = "invalid") -> None:
        self._refuse(name, message, code)

    def _refuse(self, name: str, message: str, code: str = "invalid") -> None:
        self.errors.append(FieldError(self.field(name), code, message))

    def done(self) -> None:
        if self.errors:
            raise InvalidInput(self.errors)

    def raw(self, name: str) -> Any:
        return self._values.get(name.lower())

    def need(self, *names: str) -> None:
        """Complain of fields that were left out; of what is no object that is said already."""
        for name in names if self._is_object else ():
            if name not in self:
                self._refuse(name, "This field is required.", "required")

    def _of(self, name: str, kind: type[T], message: str) -> T | None:
        value = self.raw(name)
        if value is None:
            return None
        # A boolean is a number to Python and to nobody else.
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            self._refuse(name, message)
            return None
        return value

    def text(self, name: str, *, most: int = MAX_TEXT, least: int = 0) -> str | None:
        value = self._of(name, str, "Must be a string.")
        if value is not None and not least <= len(value) <= most:
            self._refuse(name, f"Must have {least} to {most} characters.")
            return None
        return value

    def boolean(self, name: str) -> bool | None:
        return self._of(name, bool, "Must be true or false.")

    def integer(self, name: str, least: int, most: int) -> int | None:
        value = self._of(name, int, "Must be a whole number.")
        if value is not None and not least <= value <= most:
            self._refuse(name, f"Must be between {least} and {most}.")
            return None
        return value

    def moment(self, name: str) -> datetime | None:
        value = self._of(name, str, "Must be a time such as 2026-01-31T12:00:00Z.")
        if value is None:
            return None
        moment = parse_time(value)
        if moment is None:
            self._refuse(name, "Must be a time such as 2026-01-31T12:00:00Z.")
        return moment

    def choice(
        self, name: str, words: Sequence[str], numbers: Mapping[int, str] = {}
    ) -> str | None:
        """One of these words in any case, or the number that stands for one."""
        value = self.raw(name)
        if value is None:
            return None
        word: str | None = None
        if isinstance(value, str):
            word = one_of(value, words)
        elif isinstance(value, int) and not isinstance(value, bool):
            word = numbers.get(value)
        if word is None:
            self._refuse(name, f"Must be one of {', '.join(words)}.")
        return word

    def object(self, name: str) -> dict[str, Any] | None:
        return self._of(name, dict, "Must be an object.")

    def reader(self, name: str) -> Reader | None:
        """A reader of the object in this field."""
        value = self.raw(name)
        return None if value is None else Reader(value, self.field(name), self.errors)

    def items(self, name: str, read: Callable[[Any, str], T], most: int) -> list[T] | None:
        """A list, each of its items read by a function that raises InvalidInput for a bad one."""
        value = self._of(name, list, "Must be a list.")
        if value is None:
            return None
        if len(value) > most:
            self._refuse(name, f"May have {most} items at most.")
            return None
        found: list[T] = []
        for index, item in enumerate(value):
            try:
                found.append(read(item, f"{self.field(name)}[{index}]"))
            except InvalidInput as error:
                self.errors.extend(error.errors)
        return found


def read_text(item: Any, field: str) -> str:
    if not isinstance(item, str):
        refuse(field, "Must be a string.")
    return item


def read_guid(item: Any, field: str) -> UUID:
    key = parse_guid(item)
    if key is None:
        refuse(field, "Must be a GUID of 36 characters.")
    return key


def one_of(text: str, words: Iterable[str]) -> str | None:
    lower = text.strip().lower()
    return next((word for word in words if word.lower() == lower), None)


class Query:
    """The query string; what is not known there is ignored, as unknown members are."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = {name.lower(): given[name] for name in given}
        self.errors: list[FieldError] = []

    def done(self) -> None:
        if self.errors:
            raise InvalidInput(self.errors)

    def text(self, name: str, most: int = 200) -> str | None:
        value = self._given.get(name.lower(), "").strip()
        if len(value) > most or "\0" in value:
            self.errors.append(FieldError(name, "invalid", f"May have {most} characters at most."))
            return None
        return value or None

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        value = self.text(name)
        if value is None:
            return default
        if not _DIGITS.match(value) or not least <= int(value) <= most:
            message = f"Must be a whole number between {least} and {most}."
            self.errors.append(FieldError(name, "invalid", message))
            return default
        return int(value)

    def boolean(self, name: str, default: bool = False) -> bool:
        value = (self.text(name) or "").lower()
        if value and value not in ("true", "false"):
            self.errors.append(FieldError(name, "invalid", "Must be true or false."))
        return value == "true" if value else default

    def choice(self, name: str, words: Mapping[str, T] | Sequence[str]) -> Any:
        """The word, or what the table has for it."""
        value = self.text(name)
        if value is None:
            return None
        word = one_of(value, words)
        if word is None:
            message = f"Must be one of {', '.join(words)}."
            self.errors.append(FieldError(name, "invalid", message))
            return None
        return words[word] if isinstance(words, Mapping) else word

    def moment(self, name: str, *, to_end_of_day: bool = False) -> datetime | None:
        value = self.text(name)
        if value is None:
            return None
        # What a "+" of an offset becomes where it was not escaped.
        moment = parse_time(value) or parse_time(value.replace(" ", "+"))
        if moment is None:
            message = "Must be a time such as 2026-01-31T12:00:00Z."
            self.errors.append(FieldError(name, "invalid", message))
        elif to_end_of_day and len(value) == 10:
            moment = moment.replace(hour=23, minute=59, second=59, microsecond=999_999)
        return moment

    def guid(self, name: str) -> UUID | None:
        value = self.text(name)
        key = parse_guid(value)
        if value is not None and key is None:
            self.errors.append(FieldError(name, "invalid", "Must be a GUID of 36 characters."))
        return key

    def refuse(self, name: str, message: str) -> None:
        self.errors.append(FieldError(name, "invalid", message))
