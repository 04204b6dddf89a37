"""Reading what a client sent, as the original would: names of members in any case, null the same as left
out, unknown members and other types refused. What is wrong is one refusal that names the member."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from django.http import QueryDict

from config.parsers import parse_json
from jobs.dialects.asyncjobs.errors import refuse
from jobs.dialects.asyncjobs.wire.payloads import from_base64
from jobs.dialects.asyncjobs.wire.times import Moment, parse_duration, parse_moment

INVALID_JSON = "invalid_json"
NAME = re.compile(r"[a-zA-Z0-9_:-]+\Z")
_BAD_ESCAPE = re.compile(r"%(?![0-9a-fA-F]{2})")
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}\Z")


class Body:
    """One object, whose members all have one of these names."""

    def __init__(self, data: Any, names: Collection[str]) -> None:
        if data is None:
            data = {}
        if not isinstance(data, dict):
            refuse(INVALID_JSON, "the body must be a JSON object")
        self._values: dict[str, Any] = {}
        for given, value in data.items():
            name = given.lower()
            if name not in names:
                refuse(INVALID_JSON, f"unknown field {given[:100]!r}", given)
            if name in self._values:
                refuse(INVALID_JSON, f"{name} is given twice", name)
            self._values[name] = value

    @classmethod
    def read(cls, raw: bytes, names: Collection[str]) -> Body:
        if not raw.strip():
            refuse(INVALID_JSON, "the body is empty")
        return cls(parse_json(raw), names)

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    @property
    def values(self) -> Mapping[str, Any]:
        return self._values

    def raw(self, name: str) -> Any:
        return self._values.get(name)

    def _typed(self, name: str, kind: type, wanted: str) -> Any:
        value = self._values.get(name)
        if value is None:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            refuse(INVALID_JSON, f"{name} must be {wanted}", name)
        return value

    def text(self, name: str) -> str:
        found: str | None = self._typed(name, str, "a string")
        return found or ""

    def boolean(self, name: str) -> bool:
        return bool(self._typed(name, bool, "true or false"))

    def integer(self, name: str, reason: str, least: int) -> int | None:
        value: int | None = self._typed(name, int, "a whole number")
        if value is not None and value < least:
            refuse(reason, f"{name} must be at least {least}", name)
        return value

    def texts(self, name: str) -> list[str]:
        values = self._typed(name, list, "a list of strings") or []
        for index, value in enumerate(values):
            if not isinstance(value, str):
                refuse(INVALID_JSON, f"{name}[{index}] must be a string", f"{name}[{index}]")
        return list(values)

    def moment(self, name: str) -> Moment | None:
        if name not in self:
            return None
        moment = parse_moment(self.text(name))
        if moment is None:
            refuse(INVALID_JSON, f"{name} must be a time such as 2026-01-02T03:04:05Z", name)
        return moment

    def duration(self, name: str) -> int | None:
        """Nanoseconds; an empty text is as good as none."""
        text = self.text(name)
        if not text:
            return None
        ns = parse_duration(text)
        if ns is None:
            refuse("invalid_duration", f"{name} must be a duration such as 1h30m", name)
        return ns

    def payload(self) -> tuple[Any, bytes | None]:
        """The payload in one of its two forms; neither is no bytes at all."""
        if "payload" in self and "payload_base64" in self:
            refuse("payload_both_set", "give payload or payload_base64, not both", "payload")
        if "payload" in self:
            return self.raw("payload"), None
        data = from_base64(self.text("payload_base64"))
        if data is None:
            refuse(INVALID_JSON, "payload_base64 must be standard base64", "payload_base64")
        return None, data


class Query:
    """The query string: scalars come once, whatever else is in it has no effect."""

    def __init__(self, raw: str, values: QueryDict) -> None:
        if _BAD_ESCAPE.search(raw) or "%00" in raw or "\0" in raw:
            refuse(None, "the query string is not valid")
        self._values = values

    def text(self, name: str) -> str | None:
        values = self._values.getlist(name)
        if len(values) > 1:
            refuse(None, f"query parameter {name} is given more than once")
        return values[0] if values else None

    def texts(self, name: str) -> list[str]:
        return self._values.getlist(name)

    def integer(self, name: str) -> int | None:
        text = self.text(name)
        if text is None:
            return None
        if not _INTEGER.match(text):
            refuse(None, f"query parameter {name} must be a whole number")
        return int(text)
