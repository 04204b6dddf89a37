"""What an expression may cost, and the error of one that cannot be read or worked out.

Every bound is looked at before the memory is taken or the time is spent. Work is counted in operations:
one for each part of the tree that is worked out and for each value that is walked over, fewer for what
the interpreter does in one stride (a text, a copy of a list).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, NoReturn

# Of a text with its {{ }}: its characters and its blocks.
MAX_TEMPLATE = 16 << 10
MAX_BLOCKS = 100
# Of one expression: its characters, its words and signs, and how deep its tree goes.
MAX_SOURCE = 4 << 10
MAX_TOKENS = 1_000
MAX_DEPTH = 100
# Of one rendering, all its blocks together.
MAX_OPERATIONS = 50_000
# Of any value that is made: characters of a text, items of a list or map, lists and maps in each other.
MAX_TEXT = 1 << 20
MAX_ITEMS = 100_000
MAX_NESTING = 50
MAX_PATTERN = 500
MIN_INTEGER, MAX_INTEGER = -(1 << 63), (1 << 63) - 1

# How much of a text or a list goes for one operation when it is handled as a whole.
CHARACTERS_PER_OPERATION = 64
ITEMS_PER_OPERATION = 16
# A short text, or a short part, is looked for place by place: characters compared for one operation.
# Longer ones are found in a time that grows with the text alone.
COMPARED_PER_OPERATION = 1024
_SHORT_TEXT, _MEDIUM_TEXT, _SHORT_PART = 2_500, 30_000, 100
# What dearer things cost, in operations: a call, a turn of a loop, a value that is written or compared,
# a date that is written and one that is read.
CALL, TURN, VISIT, SHOW_DATE, READ_DATE = 3, 2, 3, 40, 80

# Maps whose missing keys are empty texts; of all others they are nil.
ROOTS = frozenset({"inputs", "secrets", "tasks", "job"})


class ExpressionError(ValueError):
    """An expression that cannot be read, or not be worked out. Its text never holds a value."""

    def __init__(self, message: str, position: int | None = None) -> None:
        self.message = message
        # Characters before the place, in the expression.
        self.position = position
        place = "" if position is None else f" (character {position + 1})"
        super().__init__(f"{message}{place}")

    def at(self, position: int) -> ExpressionError:
        """The same, with its place unless it has one."""
        return self if self.position is not None else ExpressionError(self.message, position)

    def moved(self, by: int) -> ExpressionError:
        """The same, for an expression that begins so many characters into a text."""
        position = None if self.position is None else self.position + by
        return ExpressionError(self.message, position)


class Root(dict[str, Any]):
    """A map whose missing keys are empty texts."""


_spent: ContextVar[int] = ContextVar("operations_spent", default=0)


def spent() -> int:
    """How many operations this thread has spent so far; take it before and after to see a price."""
    return _spent.get()


class Run:
    """One rendering: the names it sees, what is left of its budget, and where its loops are."""

    __slots__ = ("acc", "index", "item", "left", "names", "roots", "variables")

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.names = names
        self.left = MAX_OPERATIONS
        self.roots: dict[str, Root] = {}
        self.variables: dict[str, Any] = {}
        self.item: Any = None
        self.index = 0
        self.acc: Any = None

    def spend(self, operations: int) -> None:
        self.left -= operations
        if self.left < 0:
            raise ExpressionError(f"needs more than {MAX_OPERATIONS} operations")

    def settle(self) -> None:
        """Add to what the thread has spent; the rendering is over."""
        _spent.set(_spent.get() + MAX_OPERATIONS - self.left)

    def take_search(self, value: str, part: str) -> None:
        """Time to look for a part in a text."""
        if len(value) < _SHORT_TEXT:
            compared = max(0, len(value) - len(part)) * len(part)
        else:
            compared = min(len(value), _MEDIUM_TEXT) * min(len(part), _SHORT_PART)
        self.spend(compared // COMPARED_PER_OPERATION)

    def take_text(self, length: int) -> None:
        """Room for a text of this length."""
        if length > MAX_TEXT:
            raise ExpressionError(f"makes a text of more than {MAX_TEXT} characters")
        self.spend(length // CHARACTERS_PER_OPERATION)

    def take_items(self, count: int) -> None:
        """Room for a list or a map of so many items."""
        if count > MAX_ITEMS:
            raise ExpressionError(f"makes a list of more than {MAX_ITEMS} items")
        self.spend(count // ITEMS_PER_OPERATION)

    def look_up(self, name: str) -> Any:
        """What a name at the top stands for."""
        if name in self.variables:
            return self.variables[name]
        if name not in self.names:
            raise ExpressionError(f"unknown name {name[:40]}")
        value = self.names[name]
        if name not in ROOTS or not isinstance(value, Mapping):
            return value
        if name not in self.roots:
            self.roots[name] = Root(value)
        return self.roots[name]


def too_nested() -> NoReturn:
    raise ExpressionError(f"lists and maps lie more than {MAX_NESTING} deep in each other")
