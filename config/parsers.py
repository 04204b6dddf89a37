"""Read a JSON body that may be hostile: bounded bytes, depth, values and time, and one meaning only.

The stock parser recurses as deep as a body tells it to, keeps the last of two equal keys, and lets
through what a database or an encoder later chokes on: NUL, lone surrogates, NaN and infinities.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from itertools import accumulate
from typing import IO, Any, NoReturn

from django.conf import settings
from gunicorn.http.errors import ParseException
from rest_framework.exceptions import UnsupportedMediaType
from rest_framework.parsers import BaseParser

from config.problems import BodyTooLarge, invalid

MAX_DEPTH = 32
MAX_NODES = 20_000
# Ten thousand jobs of ten fields each, with small payloads, are 200,000 to 400,000 values. A body of
# 16 MiB cannot be told to hold more than this without being made of next to nothing but brackets.
MAX_BULK_NODES = 1_000_000

_NO_BRACKETS = bytes(c for c in range(256) if c not in b"[]{}")
_DEPTH_CHANGE = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
# What makes a second look worth its time: escapes of NUL and of surrogates, numbers that may overflow.
_SUSPECT = re.compile(
    rb"\\u(?:0000|[dD][89a-fA-F])|[0-9.][eE]\+?[0-9]{3}|(?<![0-9])[0-9]{200}", re.DOTALL
)
_FORBIDDEN = re.compile("[\0\ud800-\udfff]")
_CONTENT_TYPE = re.compile(r'application/json\s*(?:;\s*charset\s*=\s*"?utf-?8"?\s*)?;?\s*\Z', re.I)
_PATH_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}\Z")
MAX_PATH = 300
# In the environment of a request, where no header can be; see ``clusters.surfaces``.
CALLERS_LIMIT = "yardmaster.max_body_bytes"


def refuse(field: str, message: str, code: str = "invalid") -> NoReturn:
    raise invalid(field, message, code)


class StrictJSONParser(BaseParser):
    media_type = "application/json"

    def parse(
        self,
        stream: IO[Any],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        context = parser_context or {}
        request, view = context.get("request"), context.get("view")
        if media_type is None or not _CONTENT_TYPE.match(media_type):
            raise UnsupportedMediaType(media_type or "")
        limit = getattr(view, "max_body_bytes", None) or settings.MAX_BODY_BYTES
        raw = read_body(stream, getattr(request, "META", {}), limit)
        if request is not None:
            # For Idempotency-Key: the same request is the same bytes.
            request.body_hash = hashlib.sha256(raw).hexdigest()
        if not raw:
            return {}
        return parse_json(raw, getattr(view, "max_nodes", None) or MAX_NODES)


def read_body(stream: IO[Any], meta: Mapping[str, Any], limit: int) -> bytes:
    """The body, of which never more than one byte above the limit is read.

    The limit is this one, or that of the caller where that is lower.
    """
    limit = min(limit, meta.get(CALLERS_LIMIT, limit))
    length = str(meta.get("CONTENT_LENGTH") or "")
    is_told = length.isascii() and length.isdigit()
    if is_told and (len(length) > 18 or int(length) > limit):
        raise BodyTooLarge(limit)
    parts, left = [], limit + 1
    try:
        while left > 0 and (part := stream.read(left)):
            parts.append(part)
            left -= len(part)
    except ConnectionError:
        raise  # nobody is left to be answered
    except (OSError, ParseException):
        # A chunk that is none, or is cut off.
        refuse("body", "The body does not arrive as its transfer coding says.")
    if left <= 0:
        raise BodyTooLarge(limit)
    raw = b"".join(parts)
    if is_told and len(raw) < int(length):
        refuse("body", "The body is shorter than its Content-Length.")
    return raw


def parse_json(raw: bytes, max_nodes: int = MAX_NODES) -> Any:
    """The value of a JSON text, or InvalidInput that says where it is wrong."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        refuse("body", "The body is not UTF-8.")
    check_shape(raw, max_nodes)
    twice: list[_Twice] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            found = _Twice(pairs)
            twice.append(found)
        return found

    try:
        value = json.loads(text, object_pairs_hook=once, parse_constant=_not_json)
    except RecursionError:
        refuse("body", "The body is nested too deeply.", "too_deep")
    except ValueError as error:
        # Also a whole number of more than 4,300 digits, which Python refuses to read.
        where = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        refuse("body", f"The body is not JSON{where}.")
    if twice or _SUSPECT.search(raw):
        _look_closely(value)
    return value


class _Twice(dict[str, Any]):
    """An object in which a key came twice; it never leaves this module."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        seen: set[str] = set()
        self.key = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]


def _not_json(name: str) -> NoReturn:
    raise ValueError(name)


def check_shape(raw: bytes, max_nodes: int) -> None:
    """Refuse what is too deep or has too many values, before anything is built from it."""
    opened = raw.count(b"[") + raw.count(b"{")
    if opened <= MAX_DEPTH and opened + raw.count(b",") < max_nodes:
        return  # so few that it does not matter how many of them stand in strings
    # Without its escapes a body is in turn text outside and inside of strings. A backslash outside
    # would upset this, but there the parser stops too, before it comes to what follows.
    bare = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    # A value needs four quotation marks at most, two for its key and two for itself.
    if bare.count(b'"') <= 4 * max_nodes:
        bare = b"".join(bare.split(b'"')[::2])
        nodes = bare.count(b"[") + bare.count(b"{") + bare.count(b",") + 1
    else:
        nodes = max_nodes + 1
    if nodes > max_nodes:
        refuse("body", f"The body holds more than {max_nodes} values.", "too_many_values")
    brackets = bare.translate(None, _NO_BRACKETS)
    if max(accumulate(map(_DEPTH_CHANGE.__getitem__, brackets)), default=0) > MAX_DEPTH:
        refuse("body", f"The body is nested deeper than {MAX_DEPTH} levels.", "too_deep")


def _look_closely(value: Any) -> None:
    """Find the value that may not be, and name its path. No recursion; the depth is known to be small."""
    stack: list[tuple[str, Any]] = [("", value)]
    while stack:
        path, item = stack.pop()
        if isinstance(item, str):
            if _FORBIDDEN.search(item):
                refuse(_shown(path), "Holds a NUL or half a surrogate pair.", "characters")
        elif isinstance(item, float):
            if not math.isfinite(item):
                refuse(_shown(path), "This number is too large.")
        elif isinstance(item, dict):
            if isinstance(item, _Twice):
                refuse(_shown(_below(path, item.key)), "This key is given twice.", "repeated")
            for key in item:
                if _FORBIDDEN.search(key):
                    refuse(
                        _shown(path), "A key holds a NUL or half a surrogate pair.", "characters"
                    )
            stack.extend((_below(path, key), child) for key, child in item.items())
        elif isinstance(item, list):
            stack.extend((f"{path}[{index}]", child) for index, child in enumerate(item))


def _below(path: str, key: str) -> str:
    name = key if _PATH_NAME.match(key) else json.dumps(key)[:100]
    return f"{path}.{name}" if path else name


def _shown(path: str) -> str:
    return path[:MAX_PATH] or "body"
