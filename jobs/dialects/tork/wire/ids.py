"""Ids: 32 hexadecimal digits for most things, and 22 characters of an alphabet of 57 for nodes."""

from __future__ import annotations

import re
from uuid import NAMESPACE_OID, UUID, uuid5

_HEX = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
NODE_LENGTH = 22
# As often as a task can have been tried, and once more after each restart.
MOST_TRIES = 20


def parse_id(text: str) -> UUID | None:
    return UUID(text) if _HEX.fullmatch(text) else None


def node_id(node: UUID) -> str:
    """The short form of a UUID."""
    number, shown = node.int, ""
    while number:
        number, digit = divmod(number, len(_ALPHABET))
        shown = _ALPHABET[digit] + shown
    return shown.rjust(NODE_LENGTH, _ALPHABET[0])


def try_id(task: UUID, number: int) -> UUID:
    """The id of an earlier try of a task, whose last one has the task's own."""
    return UUID(int=task.int ^ number)


def candidates(asked: UUID) -> dict[UUID, int]:
    """The tasks that an id may be a try of, and which one."""
    return {try_id(asked, number): number for number in range(MOST_TRIES + 1)}


def derived_id(text: str) -> str:
    """An id for what has none of this form, always the same."""
    return uuid5(NAMESPACE_OID, text).hex
