"""Secrets are never shown: ``[REDACTED]`` stands for what is called one and wherever one's value is,
in every form that `jobs.redaction` knows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from jobs.redaction import REDACTED as MARK
from jobs.redaction import redaction_of

_NAMED = re.compile(r"SECRET|PASSWORD|ACCESS_KEY", re.IGNORECASE)
# Says where a value comes from, and holds none itself.
# A dot begins each part that is repeated, so that there is one way to read a text.
_REFERENCE = re.compile(r"\{\{\s*[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+\s*\}\}")  # noqa: DUO138


class Redactor:
    """Takes the values of these secrets out of what is shown."""

    def __init__(self, values: Iterable[str] = ()) -> None:
        self._redaction = redaction_of(tuple(sorted({*values})))

    def text(self, text: str) -> str:
        return text if self._redaction is None else self._redaction.text(text)

    def value(self, value: Any) -> Any:
        """A JSON value as it may be shown, at every depth."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self._member(key, item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.value(item) for item in value]
        return value

    def _member(self, key: str, item: Any) -> Any:
        if key == "secrets" and isinstance(item, Mapping):
            return {name: _marked(value) for name, value in item.items()}
        if isinstance(item, str) and _NAMED.search(key):
            return _marked(item)
        return self.value(item)


def _marked(value: Any) -> str:
    if isinstance(value, str) and _REFERENCE.fullmatch(value):
        return value
    return MARK


def values_in(document: Any) -> set[str]:
    """The values of the secrets of a definition and of the sub-jobs in it, as far as they are known."""
    found: set[str] = set()
    stack = [document]
    while stack:
        item = stack.pop()
        if isinstance(item, Mapping):
            secrets = item.get("secrets")
            if isinstance(secrets, Mapping):
                found |= {
                    value
                    for value in secrets.values()
                    if isinstance(value, str) and "{{" not in value
                }
            registry = item.get("registry")
            if isinstance(registry, Mapping) and isinstance(registry.get("password"), str):
                found.add(registry["password"])
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return {value for value in found if value}
