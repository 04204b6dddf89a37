"""Definitions in YAML, read as strictly as the original does, and refused in its words.

Nothing is built of a text that could be large or deep out of all proportion: no anchors, no aliases, no
tags, and limits that are kept while it is read. Texts are as they are written, also where they look like
numbers; what is wrong is told line by line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from jobs.dialects.tork.errors import refuse
from jobs.dialects.tork.wire.structs import BOOL, INT, MAP, STRING, STRINGS, ListOf, Struct, Type

MAX_BYTES = 256 << 10
MAX_DEPTH = 40
# Read in a few hundredths of a second.
MAX_NODES = 5_000
MAX_ERRORS, MAX_SHOWN = 20, 100
_FORBIDDEN = re.compile("[\0\ud800-\udfff]")
_NULL = re.compile(r"~|null|Null|NULL|\Z")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_YES, _NO = frozenset({"y", "Y", "yes", "on"}), frozenset({"n", "N", "no", "off"})


@dataclass(slots=True)
class Node:
    """A value where it stands: the pairs of a mapping, the items of a sequence, the text of a scalar."""

    tag: str
    line: int
    text: str = ""
    items: list[Any] = field(default_factory=list)


def read_yaml(raw: bytes, struct: Struct) -> dict[str, Any]:
    """The first document of a text; whatever follows is not looked at."""
    if len(raw) > MAX_BYTES:
        refuse(f"yaml: a document has at most {MAX_BYTES} bytes")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        refuse("yaml: invalid UTF-8")
    if not text.strip():
        refuse("EOF")
    try:
        root = _Composer(text).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        refuse(f"yaml: {where}{error.problem or error.context}")
    except yaml.YAMLError as error:
        refuse(f"yaml: {' '.join(str(error).split())[:MAX_SHOWN]}")
    if root is None:
        refuse("EOF")
    decoder = _Decoder()
    found = decoder.struct(root, struct)
    if decoder.errors:
        told = "\n".join(f"  {error}" for error in decoder.errors[:MAX_ERRORS])
        refuse(f"yaml: unmarshal errors:\n{told}")
    return found


class _Composer:
    """Nodes from what the parser reports, as far as the limits go."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=yaml.CSafeLoader)
        self._count = 0

    def document(self) -> Node | None:
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                return self._node(next(self._events), 0)
        return None

    def _node(self, event: Any, depth: int) -> Node:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            refuse(f"yaml: line {line}: anchors and aliases are not supported")
        if event.tag not in (None, "!"):
            refuse(f"yaml: line {line}: tags are not supported")
        self._count += 1
        if self._count > MAX_NODES:
            refuse(f"yaml: line {line}: more than {MAX_NODES} values")
        if depth > MAX_DEPTH:
            refuse(f"yaml: line {line}: more than {MAX_DEPTH} levels")
        if isinstance(event, yaml.ScalarEvent):
            is_plain = event.implicit[0] and not event.style
            tag = _tag_of(event.value) if is_plain else "!!str"
            return Node(tag, line, event.value)
        if isinstance(event, yaml.SequenceStartEvent):
            found = Node("!!seq", line)
            while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
                found.items.append(self._node(event, depth + 1))
            return found
        found = Node("!!map", line)
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            found.items.append((key, self._node(next(self._events), depth + 1)))
        return found


def _tag_of(text: str) -> str:
    if _NULL.fullmatch(text):
        return "!!null"
    if _BOOL.fullmatch(text):
        return "!!bool"
    if _INT.fullmatch(text):
        return "!!int"
    return "!!float" if len(text) < 50 and _FLOAT.fullmatch(text) else "!!str"


class _Decoder:
    def __init__(self) -> None:
        self.errors: list[str] = []

    def struct(self, node: Node, kind: Struct) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if node.tag == "!!null":
            return found
        if node.tag != "!!map":
            self._mismatch(node, kind)
            return found
        for key, value in self._pairs(node):
            field_ = kind.fields.get(key.text) if key.tag != "!!map" else None
            if field_ is None:
                name = key.text[:MAX_SHOWN]
                self.errors.append(f"line {key.line}: field {name} not found in type {kind}")
            elif value.tag != "!!null":
                decoded = self._decode(value, field_.type)
                if decoded is not None:
                    found[key.text] = decoded
        return found

    def _pairs(self, node: Node) -> Iterator[tuple[Node, Node]]:
        seen: dict[str, int] = {}
        for key, value in node.items:
            if key.tag in ("!!map", "!!seq"):
                self._mismatch(key, STRING)
                continue
            if key.text in seen:
                self.errors.append(
                    f'line {key.line}: mapping key "{key.text[:MAX_SHOWN]}" already defined'
                    f" at line {seen[key.text]}"
                )
                continue
            seen[key.text] = key.line
            yield key, value

    def _decode(self, node: Node, kind: Type) -> Any:
        if isinstance(kind, Struct):
            return self.struct(node, kind)
        if isinstance(kind, ListOf) or kind == STRINGS:
            if node.tag != "!!seq":
                return self._mismatch(node, kind)
            if isinstance(kind, ListOf):
                return [self.struct(item, kind.of) for item in node.items]
            return [self._string(item) or "" for item in node.items]
        if kind == MAP:
            if node.tag != "!!map":
                return self._mismatch(node, kind)
            return {key.text: self._string(value) or "" for key, value in self._pairs(node)}
        if kind == STRING:
            return self._string(node)
        return self._bool(node) if kind == BOOL else self._int(node)

    def _string(self, node: Node) -> Any:
        if node.tag == "!!null":
            return ""
        if node.tag in ("!!map", "!!seq"):
            return self._mismatch(node, STRING)
        if _FORBIDDEN.search(node.text):
            self.errors.append(f"line {node.line}: a string holds a NUL or half a surrogate pair")
        return node.text

    def _int(self, node: Node) -> Any:
        if node.tag == "!!int":
            return int(node.text)
        if node.tag == "!!float" and (number := float(node.text)).is_integer():
            return int(number) if abs(number) < 2**53 else self._mismatch(node, INT)
        return self._mismatch(node, INT)

    def _bool(self, node: Node) -> Any:
        if node.tag == "!!bool":
            return node.text.lower() == "true"
        if node.tag == "!!str" and node.text in _YES | _NO:
            return node.text in _YES
        return self._mismatch(node, BOOL)

    def _mismatch(self, node: Node, kind: Type) -> Any:
        text = ""
        if node.tag not in ("!!map", "!!seq"):
            shown = node.text if len(node.text) <= 10 else f"{node.text[:7]}..."
            text = f" `{shown}`"
        self.errors.append(f"line {node.line}: cannot unmarshal {node.tag}{text} into {kind}")
        return None
