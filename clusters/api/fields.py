"""Strict input: a value has the JSON type its field says, or is refused; nothing is converted.

A serializer class states the fields once. ``read_object`` checks a JSON object against it and
``read_query`` a query string; the OpenAPI document is made from the same class.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NoReturn

from django.core.validators import ProhibitNullCharactersValidator
from django.http import QueryDict
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail
from rest_framework.fields import empty
from rest_framework.validators import ProhibitSurrogateCharactersValidator

from config.problems import FieldError, InvalidInput

UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
RFC_3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?:[Zz]|[+-][0-9]{2}:[0-9]{2})\Z"
)
_FORBIDDEN = re.compile("[\0\ud800-\udfff]")


def parse_uuid(text: str) -> uuid.UUID | None:
    """The UUID of its usual form of 36 characters; None for everything else."""
    return uuid.UUID(text) if UUID_TEXT.match(text) else None


def parse_time(text: str) -> datetime | None:
    """The moment an RFC 3339 text means, in UTC; None for everything else."""
    if not RFC_3339.match(text):
        return None
    try:
        return datetime.fromisoformat(text.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def format_time(moment: datetime | None) -> str | None:
    """RFC 3339 in UTC, always with six digits of the second, so that texts sort as times do."""
    if moment is None:
        return None
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


class Text(serializers.CharField):
    default_error_messages = {
        "not_text": "Must be a string.",
        "characters": "Holds characters that no text may hold.",
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(trim_whitespace=False, **kwargs)
        # These look at every character in Python; one regular expression does both.
        slow = (ProhibitNullCharactersValidator, ProhibitSurrogateCharactersValidator)
        self.validators = [v for v in self.validators if not isinstance(v, slow)]

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("not_text")
        if _FORBIDDEN.search(data):
            self.fail("characters")
        return data

    def run_validation(self, data: Any = empty) -> Any:
        if data == "" and not self.allow_blank:
            self.fail("blank")
        return super(serializers.CharField, self).run_validation(data)


class Choice(serializers.ChoiceField):
    default_error_messages = {"unknown": "Must be one of {choices}."}

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str) or data not in self.choices:
            self.fail("unknown", choices=", ".join(map(str, self.choices)))
        return data


class WholeNumber(serializers.IntegerField):
    default_error_messages = {"not_whole": "Must be a whole number."}

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            self.fail("not_whole")
        return data


class Number(serializers.FloatField):
    default_error_messages = {"not_number": "Must be a number."}

    def to_internal_value(self, data: Any) -> float:
        if type(data) not in (int, float):
            self.fail("not_number")
        try:
            value = float(data)
        except OverflowError:
            self.fail("not_number")
        if not math.isfinite(value):
            self.fail("not_number")
        return value


class Boolean(serializers.BooleanField):
    """True or false, and no word for it."""

    default_error_messages = {"not_boolean": "Must be true or false."}

    def to_internal_value(self, data: Any) -> bool:
        if not isinstance(data, bool):
            self.fail("not_boolean")
        return data


class Time(serializers.DateTimeField):
    default_error_messages = {
        "not_time": "Must be a time with its offset, such as 2026-01-31T12:00:00Z."
    }

    def to_internal_value(self, data: Any) -> datetime:
        moment = parse_time(data) if isinstance(data, str) else None
        if moment is None:
            self.fail("not_time")
        return moment


class Id(serializers.UUIDField):
    default_error_messages = {"not_uuid": "Must be a UUID of 36 characters."}

    def to_internal_value(self, data: Any) -> uuid.UUID:
        value = parse_uuid(data) if isinstance(data, str) else None
        if value is None:
            self.fail("not_uuid")
        return value


class Flag(serializers.BooleanField):
    """A boolean; in a query string its word."""

    default_error_messages = {"not_boolean": "Must be true or false."}

    def to_internal_value(self, data: Any) -> bool:
        if data in ("true", "false"):
            return bool(data == "true")
        if not isinstance(data, bool):
            self.fail("not_boolean")
        return data


@extend_schema_field({"type": "string", "format": "byte"})
class Base64(serializers.CharField):
    default_error_messages = {"not_base64": "Must be bytes in base64."}

    def __init__(self, **kwargs: Any) -> None:
        # No bytes are bytes.
        super().__init__(allow_blank=True, **kwargs)

    def run_validation(self, data: Any = empty) -> Any:
        return super(serializers.CharField, self).run_validation(data)

    def run_validators(self, value: Any) -> None:
        """What is left to check is a matter of the cluster's limits."""

    def to_internal_value(self, data: Any) -> bytes:  # type: ignore[override]
        if not isinstance(data, str):
            self.fail("not_base64")
        try:
            return base64.b64decode(data, validate=True)
        except (binascii.Error, ValueError):
            self.fail("not_base64")


class AnyValue(serializers.JSONField):
    """Any JSON value; the parser has looked at all of it."""

    def to_internal_value(self, data: Any) -> Any:
        return data


class Texts(serializers.ListField):
    """A list of strings."""


class Ids(serializers.ListField):
    """A list of UUIDs."""


class Object(serializers.DictField):
    """A JSON object; what may be in it is for the domain to say."""

    default_error_messages = {"not_object": "Must be an object."}

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.fail("not_object")
        return data


class QueryNumber(serializers.IntegerField):
    """A whole number in a query string."""

    default_error_messages = {"not_whole": "Must be a whole number."}

    def to_internal_value(self, data: Any) -> int:
        if not re.match(r"-?[0-9]{1,18}\Z", data):
            self.fail("not_whole")
        return int(data)


def read_object(
    form: type[serializers.Serializer[Any]], data: Any, path: str = ""
) -> dict[str, Any]:
    """The checked values of a JSON object, only those that were given; all mistakes in one go."""
    values, errors = check_object(form, data, path)
    if errors:
        raise InvalidInput(errors)
    return values


def check_object(
    form: type[serializers.Serializer[Any]], data: Any, path: str = ""
) -> tuple[dict[str, Any], list[FieldError]]:
    if not isinstance(data, dict):
        return {}, [FieldError(path or "body", "invalid", "Must be an object.")]
    fields, required = _fields(form)
    prefix = f"{path}." if path else ""
    values: dict[str, Any] = {}
    errors: list[FieldError] = []
    for name, value in data.items():
        field = fields.get(name)
        if field is None:
            errors.append(
                FieldError(prefix + name[:100], "unknown_field", "There is no such field.")
            )
            continue
        try:
            values[name] = field.run_validation(value)
        except serializers.ValidationError as error:
            errors.extend(_errors(error.detail, prefix + name))
    for name in required:
        if name not in data:
            errors.append(FieldError(prefix + name, "required", "This field is required."))
    return values, errors


def read_query(form: type[serializers.Serializer[Any]], query: QueryDict) -> dict[str, Any]:
    """The checked parameters of a query string; lists where the form has a list, else one value."""
    fields, _ = _fields(form)
    values: dict[str, Any] = {}
    errors: list[FieldError] = []
    for name, given in query.lists():
        field = fields.get(name)
        if field is None:
            errors.append(
                FieldError(name[:100], "unknown_parameter", "There is no such parameter.")
            )
            continue
        is_list = isinstance(field, serializers.ListField)
        if len(given) > 1 and not is_list:
            errors.append(FieldError(name, "repeated", "May be given once only."))
        elif "" in given:
            errors.append(FieldError(name, "blank", "Must not be empty."))
        elif any("\ufffd" in value for value in given):
            # What Django puts for bytes that are no UTF-8.
            errors.append(FieldError(name, "invalid", "Must be UTF-8."))
        else:
            try:
                values[name] = field.run_validation(given if is_list else given[0])
            except serializers.ValidationError as error:
                errors.extend(error._replace(field=name) for error in _errors(error.detail, name))
    if errors:
        raise InvalidInput(errors)
    return values


class Nothing(serializers.Serializer[Any]):
    """A body or a query that has no fields."""


Fields = tuple[Mapping[str, serializers.Field[Any, Any, Any, Any]], tuple[str, ...]]


@lru_cache(maxsize=64)
def _fields(form: type[serializers.Serializer[Any]]) -> Fields:
    # Bound once: the fields keep no state between two calls.
    fields = dict(form().fields)
    return fields, tuple(name for name, field in fields.items() if field.required)


def _errors(detail: Any, path: str) -> Iterator[FieldError]:
    if isinstance(detail, Mapping):
        for key, value in detail.items():
            yield from _errors(value, f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}")
    elif isinstance(detail, ErrorDetail):
        yield FieldError(path, detail.code or "invalid", str(detail))
    elif isinstance(detail, Iterable) and not isinstance(detail, str):
        for value in detail:
            yield from _errors(value, path)


def refuse(field: str, message: str, code: str = "invalid") -> NoReturn:
    raise InvalidInput([FieldError(field, code, message)])
