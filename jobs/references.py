"""References to the named secrets of a cluster, in the payloads of jobs. Pure.

    {"headers": {"Authorization": "secret:api_token"}}
    {"url": "https://hooks.example/{{Secret.hook}}", "headers": {"X-Key": "Key {{Secret.api_token}}"}}

A text that is ``secret:NAME`` from end to end becomes the value; ``{{Secret.NAME}}`` becomes it inside
any text. Both are only words until the process that runs the job puts the values in, and only at places
that nobody but the work itself sees: never in the arguments of a program, which every process of a host
may read. What comes out of the work of others is never taken for one; see ``jobs.executors.steps``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from jobs.errors import InvalidJob

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,98}[A-Za-z0-9_-])?"
NAME = re.compile(rf"{_NAME}\Z")
_WHOLE = re.compile(rf"secret:({_NAME})\Z")
_PART = re.compile(rf"\{{\{{\s*Secret\.({_NAME})\s*\}}\}}")
# Nothing but references and what announces them, as in `Bearer {{Secret.x}}`. Any other word beside them
# may be half of a secret.
_ANNOUNCED = re.compile(
    r"(?:(?i:bearer|basic|token|key|api-?key|bot|oauth|jwt|dpop|ssws)\s+)?"
    rf"{_PART.pattern}(?:[\s:;,.]*{_PART.pattern})*\Z"
)
_IN_JSON = re.compile(rf'"secret:({_NAME})"|\{{\{{\s*Secret\.({_NAME})\s*\}}\}}')

# Of kinds with places of their own, where a value may stand; of programs below each of them, too.
_PLACES: Mapping[str, frozenset[str]] = {
    "http": frozenset({"url", "headers", "body", "json"}),
    # Its body tells what others have made.
    "webhook": frozenset({"url", "headers"}),
    "shell": frozenset({"env", "stdin", "files"}),
    "container": frozenset({"env", "files", "registry"}),
    "procedure": frozenset({"parameters"}),
    # Names of files are seen by all who look into a folder.
    "files": frozenset(),
}
_PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "shell": ("pre", "post"),
    "container": ("pre", "post", "sidecars"),
}
# What others have put there may look like anything.
_DATA: Mapping[str, frozenset[str]] = {"webhook": frozenset({"body"})}


class MissingSecret(Exception):
    """A job names a secret that is not there."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the cluster has no secret {name!r}")


def is_reference(text: Any) -> bool:
    """Whether a text says which secret is meant, and nothing else."""
    return isinstance(text, str) and bool(_WHOLE.match(text) or _PART.fullmatch(text))


def only_refers(text: Any) -> bool:
    """Whether nothing in a text is secret itself: it is a reference, or references after a known word."""
    return isinstance(text, str) and bool(_WHOLE.match(text) or _ANNOUNCED.match(text))


def name_of(text: str) -> str:
    """The secret that a reference names."""
    found = _WHOLE.match(text) or _PART.fullmatch(text)
    assert found is not None
    return found[1]


def written(name: str) -> str:
    """A reference that may stand inside other text."""
    return f"{{{{Secret.{name}}}}}"


def names_in_json(text: str | None) -> set[str]:
    """The secrets that a payload may name, in its JSON; it is not read for that."""
    if text is None or ("secret:" not in text and "Secret." not in text):
        return set()
    return {found[1] or found[2] for found in _IN_JSON.finditer(text)}


def names_in(value: Any) -> set[str]:
    """The secrets that the texts of a value name."""
    return {name for text in strings(value) for name in _named(text)}


def _named(text: str) -> Iterator[str]:
    if found := _WHOLE.match(text):
        yield found[1]
    if "{{" in text:
        yield from (found[1] for found in _PART.finditer(text))


def strings(value: Any) -> Iterator[str]:
    """All texts in a JSON value; keys are none."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            yield item
        elif isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend(item)


def check_places(kind: str, payload: Any) -> None:
    """Raise ``InvalidJob``, naming the field, where a secret stands at a place that others can see."""
    if kind not in _PLACES or not isinstance(payload, dict):
        return
    for field, place in _others(kind, payload, "payload"):
        if names := sorted(names_in(place)):
            places = ", ".join(sorted(_PLACES[kind])) or "no place of this kind"
            raise InvalidJob(
                f"the secret {names[0]!r} cannot stand here, where others could see it; it may in "
                f"{places}",
                field=field,
            )


def _others(kind: str, value: Any, field: str) -> Iterator[tuple[str, Any]]:
    """What of a payload, or of a program in one, is no place for a secret."""
    if not isinstance(value, dict):
        yield field, value
        return
    for key, item in value.items():
        if key in _PLACES[kind] or key in _DATA.get(kind, ()):
            continue
        where = f"{field}.{str(key)[:40]}"
        if key in _PROGRAMS.get(kind, ()) and isinstance(item, list):
            for index, program in enumerate(item):
                yield from _others(kind, program, f"{where}.{index}")
        else:
            yield where, item


def resolved(kind: str, payload: Any, values: Mapping[str, str]) -> Any:
    """The payload with the values in the places of their names; raises ``MissingSecret``."""
    if kind not in _PLACES:
        return _filled(payload, values)
    return _filled_program(kind, payload, values)


def _filled_program(kind: str, value: Any, values: Mapping[str, str]) -> Any:
    if not isinstance(value, dict):
        return value
    filled = {}
    for key, item in value.items():
        if key == "url":
            filled[key] = _filled(item, values, lambda secret: quote(secret, safe=""))
        elif key in _PLACES[kind]:
            filled[key] = _filled(item, values)
        elif key in _PROGRAMS.get(kind, ()) and isinstance(item, list):
            filled[key] = [_filled_program(kind, program, values) for program in item]
        else:
            filled[key] = item
    return filled


def _filled(value: Any, values: Mapping[str, str], as_is: Callable[[str], str] = str) -> Any:
    if isinstance(value, str):
        return _filled_text(value, values, as_is)
    if isinstance(value, dict):
        return {key: _filled(item, values, as_is) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, values, as_is) for item in value]
    return value


def _filled_text(text: str, values: Mapping[str, str], as_is: Callable[[str], str]) -> str:
    def value_of(found: re.Match[str]) -> str:
        if found[1] not in values:
            raise MissingSecret(found[1])
        return as_is(values[found[1]])

    whole = _WHOLE.match(text)
    if whole:
        return value_of(whole)
    return _PART.sub(value_of, text) if "{{" in text else text
