"""Expressions and the texts that hold them between {{ and }}."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from jobs.expressions.bounds import (
    MAX_BLOCKS,
    MAX_SOURCE,
    MAX_TEMPLATE,
    MAX_TEXT,
    ExpressionError,
    Run,
)
from jobs.expressions.values import plain, storable, text

if TYPE_CHECKING:
    from jobs.expressions.nodes import Node

OPENING, CLOSING = "{{", "}}"
# Read expressions are kept: so many up to this length, and so many that are longer.
_KEPT, _KEPT_LENGTH, _KEPT_LONG = 500, 500, 32


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression that was read; get it from `compile`."""

    source: str
    # The names it reads at the top: inputs, tasks, item and so on.
    names: frozenset[str]
    tree: Node

    def evaluate(self, names: Mapping[str, Any]) -> Any:
        """What it comes to, as JSON can hold it."""
        run = Run(names)
        try:
            return plain(self.work_out(run))
        finally:
            run.settle()

    def work_out(self, run: Run) -> Any:
        run.spend(self.tree.size)
        try:
            return self.tree.evaluate(run)
        except RecursionError:
            raise ExpressionError("goes too deep") from None


def compile(source: str) -> Expression:  # noqa: A001
    """Read one expression, without braces."""
    if len(source) > MAX_SOURCE:
        raise ExpressionError(f"an expression has at most {MAX_SOURCE} characters")
    return _kept(source) if len(source) <= _KEPT_LENGTH else _kept_long(source)


def _read(source: str) -> Expression:
    if not source.strip():
        raise ExpressionError("there is no expression")
    # The parser takes a while to build, and most processes never read an expression.
    from jobs.expressions.grammar import parse

    names: set[str] = set()
    try:
        tree = parse(source)
        tree.survey(names, frozenset(), frozenset())
    except RecursionError:
        raise ExpressionError("goes too deep") from None
    return Expression(source, frozenset(names), tree)


_kept = lru_cache(maxsize=_KEPT)(_read)
_kept_long = lru_cache(maxsize=_KEPT_LONG)(_read)


class Block(NamedTuple):
    """An expression between {{ and }}, and where in the text it begins."""

    start: int
    expression: Expression

    @classmethod
    def read(cls, source: str, start: int) -> Block:
        try:
            return cls(start, compile(source))
        except ExpressionError as error:
            raise error.moved(start) from None

    def work_out(self, run: Run) -> Any:
        try:
            return self.expression.work_out(run)
        except ExpressionError as error:
            raise error.moved(self.start) from None


@dataclass(frozen=True, slots=True)
class Template:
    """A text with expressions in it; get it from `Template.parse`. Errors tell their place in it."""

    source: str
    # Texts and blocks in their order.
    pieces: tuple[str | Block, ...]

    @classmethod
    def parse(cls, source: str) -> Template:
        """Read a text; every expression in it is read, too."""
        if OPENING not in source:
            return cls(source, (source,) if source else ())
        if len(source) > MAX_TEMPLATE:
            raise ExpressionError(f"a text with expressions has at most {MAX_TEMPLATE} characters")
        pieces: list[str | Block] = []
        end = length = 0
        for low, high in _blocks(source):
            if low > end:
                pieces.append(source[end:low])
            inner = source[low + len(OPENING) : high - len(CLOSING)]
            length += len(inner)
            if length > MAX_SOURCE:
                raise ExpressionError(
                    f"the expressions of a text have at most {MAX_SOURCE} characters"
                )
            pieces.append(Block.read(inner, low + len(OPENING)))
            end = high
        if end < len(source):
            pieces.append(source[end:])
        return cls(source, tuple(pieces))

    @property
    def expressions(self) -> tuple[Expression, ...]:
        return tuple(piece.expression for piece in self.pieces if isinstance(piece, Block))

    @property
    def names(self) -> frozenset[str]:
        return frozenset().union(*(expression.names for expression in self.expressions))

    @property
    def is_plain(self) -> bool:
        """Whether there is no expression in it."""
        return not self.expressions

    def render(self, names: Mapping[str, Any]) -> str:
        """The text with every expression replaced by the text of its value."""
        if self.is_plain:
            return self.source
        run = Run(names)
        try:
            return storable(self._shown(run))
        finally:
            run.settle()

    def _shown(self, run: Run) -> str:
        shown = []
        length = 0
        for piece in self.pieces:
            shown.append(piece if isinstance(piece, str) else text(piece.work_out(run), run))
            length += len(shown[-1])
            if length > MAX_TEXT:
                raise ExpressionError(f"makes a text of more than {MAX_TEXT} characters")
        return "".join(shown)

    def value(self, names: Mapping[str, Any]) -> Any:
        """The value of the expression if the text is that and nothing else, else the text."""
        match self.pieces:
            case (Block() as block,):
                run = Run(names)
                try:
                    return plain(block.work_out(run))
                finally:
                    run.settle()
        return self.render(names)


def _blocks(source: str) -> list[tuple[int, int]]:
    """Where {{ … }} begin and end: each ends at the first }} after it, on the same line."""
    found: list[tuple[int, int]] = []
    low = source.find(OPENING)
    while low >= 0:
        line_end = source.find("\n", low)
        line_end = len(source) if line_end < 0 else line_end
        # One character at least lies between them.
        close = source.find(CLOSING, low + len(OPENING) + 1, line_end)
        if close < 0:
            low = source.find(OPENING, line_end)
            continue
        if len(found) == MAX_BLOCKS:
            raise ExpressionError(f"a text has at most {MAX_BLOCKS} expressions")
        found.append((low, close + len(CLOSING)))
        low = source.find(OPENING, close + len(CLOSING))
    return found


def unbraced(source: str) -> Expression:
    """The expression of a text that is one, between {{ and }} or without."""
    source = source.strip()
    if source.startswith(OPENING) and source.endswith(CLOSING):
        pieces = Template.parse(source).pieces
        if len(pieces) == 1 and isinstance(pieces[0], Block):
            return pieces[0].expression
    return compile(source)


def evaluate_list(source: str, names: Mapping[str, Any]) -> list[Any]:
    """The list that an expression comes to, written between {{ and }} or without."""
    value = unbraced(source).evaluate(names)
    if not isinstance(value, list):
        raise ExpressionError("does not evaluate to a list")
    return value


def is_false(rendered: str) -> bool:
    """Whether a rendered condition says no: anything but `false` says yes."""
    return rendered.strip() == "false"
