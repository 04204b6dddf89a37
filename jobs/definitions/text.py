"""YAML as definitions use it: no aliases, no tags, no surprises.

Only true and false are booleans, 08:30 is a text and a date is one too: what older YAML makes of words
like `no`, `on` and `22:00` has surprised many a country and many a clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

MAX_BYTES = 16 << 20
MAX_DEPTH = 40


class Unreadable(Exception):
    """This is no YAML that can be used; the text says where and why."""


class _Loader(yaml.CSafeLoader):
    yaml_implicit_resolvers: dict[Any, Any] = {}

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise Unreadable(f"line {key.start_mark.line + 1}: a key is a text")
            if key.value in seen:
                raise Unreadable(
                    f"line {key.start_mark.line + 1}: {key.value[:100]!r} stands there twice"
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.CSafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern, _first in (
    ("bool", r"true|false", "tf"),
    ("null", r"~|null|", "~n\0"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?", "-+0123456789"),
):
    _first_letters = ["" if letter == "\0" else letter for letter in _first]
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first_letters
    )


def read(text: str) -> Any:
    """The one document of a text."""
    if len(text.encode(errors="surrogateescape")) > MAX_BYTES:
        raise Unreadable(f"larger than {MAX_BYTES >> 20} MiB")
    try:
        _check(text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506  a safe one, made safer  # nosec B506
    except yaml.YAMLError as error:
        raise Unreadable(" ".join(str(error).split())) from None
    except ValueError as error:
        # A number with more digits than Python reads, and the like.
        raise Unreadable(str(error)) from None


def _check(text: str) -> None:
    """Refuse, before anything is built of it, what could be large or deep out of all proportion."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise Unreadable(f"line {line}: no anchors and aliases")
        if getattr(event, "tag", None) not in (None, "!"):
            raise Unreadable(f"line {line}: no tags")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise Unreadable(f"line {line}: more than {MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def write(document: Mapping[str, Any]) -> str:
    """The text of a document; the same for the same, and read as it was written."""
    if not document:
        return ""
    return str(
        yaml.dump(
            document,
            Dumper=_Dumper,
            sort_keys=False,
            allow_unicode=True,
            default_flow_style=False,
            width=100,
        )
    )
