"""Definitions in JSON, read as strictly as the original does, and refused in its words."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from config.parsers import MAX_NODES, check_shape
from config.problems import InvalidInput
from jobs.dialects.tork.errors import refuse
from jobs.dialects.tork.wire.structs import BOOL, INT, MAP, STRING, STRINGS, ListOf, Struct, Type

_SPACE = " \t\r\n"
_FORBIDDEN = re.compile("[\0\ud800-\udfff]")
MAX_SHOWN = 100


def read_json(raw: bytes, struct: Struct) -> dict[str, Any]:
    """The first value of a text; whatever follows is not looked at."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        refuse("invalid UTF-8 in JSON text")
    start = len(text) - len(text.lstrip(_SPACE))
    if start == len(text):
        refuse("EOF")
    try:
        check_shape(raw, MAX_NODES)
    except InvalidInput as error:
        refuse(f"json: {error.errors[0].message}")
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    try:
        value, _ = decoder.raw_decode(text, start)
    except json.JSONDecodeError as error:
        refuse(_syntax(text, error))
    except (ValueError, RecursionError) as error:
        refuse(f"json: {str(error)[:MAX_SHOWN]}")
    found: dict[str, Any] = _decode(value, struct, None, ())
    return found


def _no_constant(name: str) -> NoReturn:
    refuse(f"invalid character {_shown(name[0])} looking for beginning of value")


def _syntax(text: str, error: json.JSONDecodeError) -> str:
    at = error.pos
    while at < len(text) and text[at] in _SPACE:
        at += 1
    if at >= len(text) or error.msg.startswith("Unterminated string"):
        return "unexpected EOF"
    wanted = {
        "Expecting value": "looking for beginning of value",
        "Expecting property name enclosed in double quotes": (
            "looking for beginning of object key string"
        ),
        "Illegal trailing comma before end of object": "looking for beginning of object key string",
        "Illegal trailing comma before end of array": "looking for beginning of value",
        "Expecting ':' delimiter": "after object key",
        "Expecting ',' delimiter": "after object key:value pair or array element",
    }.get(error.msg, "in string literal")
    return f"invalid character {_shown(text[at])} {wanted}"


def _shown(character: str) -> str:
    return repr(character) if character.isprintable() else f"'\\x{ord(character):02x}'"


def _decode(value: Any, kind: Type, struct: Struct | None, path: tuple[str, ...]) -> Any:
    if isinstance(kind, Struct):
        return _object(value, kind, struct, path)
    if isinstance(kind, ListOf):
        items = _typed(value, list, kind, struct, path)
        found = (_decode(item, kind.of, struct, path) for item in items)
        return [{} if item is None else item for item in found]
    if kind == MAP:
        pairs = _typed(value, dict, kind, struct, path)
        return {_text(key): _string(item, struct, path) for key, item in pairs.items()}
    if kind == STRINGS:
        return [_string(item, struct, path) for item in _typed(value, list, kind, struct, path)]
    if kind == STRING:
        return _string(value, struct, path)
    if kind == INT and isinstance(value, float):
        _mismatch(f"number {value:g}", kind, struct, path)
    return _typed(value, bool if kind == BOOL else int, kind, struct, path)


def _object(
    value: Any, kind: Struct, struct: Struct | None, path: tuple[str, ...]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if value is None:
        return found
    for given, item in _typed(value, dict, kind, struct, path).items():
        # The original takes a name in any case.
        name = given if given in kind.fields else _NAMES.get(given.lower(), given)
        field = kind.fields.get(name)
        if field is None:
            refuse(f"json: unknown field {json.dumps(given[:MAX_SHOWN])}")
        if item is not None:
            found[name] = _decode(item, field.type, kind, (*path, name))
    return found


_NAMES = {"autodelete": "autoDelete"} | {
    name: name
    for name in (
        *(
            "name",
            "description",
            "tags",
            "tasks",
            "inputs",
            "secrets",
            "output",
            "defaults",
            "wait",
        ),
        *("webhooks", "permissions", "schedule", "cmd", "entrypoint", "run", "image", "registry"),
        *(
            "env",
            "files",
            "queue",
            "pre",
            "post",
            "sidecars",
            "mounts",
            "networks",
            "retry",
            "task",
        ),
        *("limits", "timeout", "var", "if", "parallel", "each", "subjob", "gpus", "workdir", "url"),
        *(
            "priority",
            "username",
            "password",
            "limit",
            "cpus",
            "memory",
            "type",
            "source",
            "target",
        ),
        *("opts", "path", "port", "probe", "headers", "event", "user", "role", "after", "list"),
        *("concurrency", "id", "detached", "cron"),
    )
}


def _typed(
    value: Any, wanted: type, kind: Type, struct: Struct | None, path: tuple[str, ...]
) -> Any:
    if value is None:
        return wanted()
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        _mismatch(_WORDS[type(value)], kind, struct, path)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        _mismatch(f"number {str(value)[:MAX_SHOWN]}", kind, struct, path)
    return value


_WORDS = {
    **{str: "string", int: "number", float: "number", bool: "bool", list: "array", dict: "object"}
}


def _string(value: Any, struct: Struct | None, path: tuple[str, ...]) -> str:
    return _text(_typed(value, str, STRING, struct, path))


def _text(text: str) -> str:
    if _FORBIDDEN.search(text):
        refuse("json: a string holds a NUL or half a surrogate pair")
    return text


def _mismatch(given: str, kind: Type, struct: Struct | None, path: tuple[str, ...]) -> NoReturn:
    where = "value" if struct is None else f"struct field {struct.name}.{'.'.join(path)}"
    refuse(f"json: cannot unmarshal {given} into Go {where} of type {kind}")
