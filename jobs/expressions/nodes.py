"""The tree of an expression. A node knows what it costs, which names it reads and how it is worked out.

Nothing here asks a value for an attribute: members are keys of maps, and methods come from a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from jobs.expressions.bounds import CALL, MAX_DEPTH, SHOW_DATE, TURN, ExpressionError, Root, Run
from jobs.expressions.dates import METHODS
from jobs.expressions.operators import UNARY, Operator
from jobs.expressions.values import finite, is_map, key_text, known, named

ITEM, INDEX, ACC = "#", "#index", "#acc"
# What a predicate may read besides names; that of `reduce` reads what there is so far, too.
IN_LOOP = frozenset({ITEM, INDEX})
IN_REDUCE = IN_LOOP | {ACC}


class Node:
    """A part of the tree, at a character of the expression."""

    __slots__ = ("at", "depth", "parts", "size")
    weight = 1
    depth: int
    size: int

    def __init__(self, at: int, *parts: Node) -> None:
        self.at = at
        self.parts = parts
        self.depth = 1 + max((part.depth for part in parts), default=0)
        self.size = self.weight + sum(part.size for part in parts)
        if self.depth > MAX_DEPTH:
            raise ExpressionError(f"goes more than {MAX_DEPTH} levels deep", at)

    def survey(self, names: set[str], variables: frozenset[str], scope: frozenset[str]) -> None:
        """Collect the names this reads that no `let` makes; refuse `#` where there is no loop."""
        for part in self.parts:
            part.survey(names, variables, scope)

    def evaluate(self, run: Run) -> Any:
        raise NotImplementedError


class Literal(Node):
    __slots__ = ("value",)

    def __init__(self, at: int, value: Any) -> None:
        super().__init__(at)
        self.value = value

    def evaluate(self, run: Run) -> Any:
        return self.value


class Name(Node):
    __slots__ = ("name",)

    def __init__(self, at: int, name: str) -> None:
        super().__init__(at)
        self.name = name

    def survey(self, names: set[str], variables: frozenset[str], scope: frozenset[str]) -> None:
        if self.name not in variables:
            names.add(self.name)

    def evaluate(self, run: Run) -> Any:
        try:
            return known(run.look_up(self.name))
        except ExpressionError as error:
            raise error.at(self.at) from None


class Pointer(Node):
    """The item a loop is at, its index, or what `reduce` has so far."""

    __slots__ = ("kind",)

    def __init__(self, at: int, kind: str) -> None:
        super().__init__(at)
        self.kind = kind

    def survey(self, names: set[str], variables: frozenset[str], scope: frozenset[str]) -> None:
        if self.kind not in IN_REDUCE:
            raise ExpressionError(f"unknown {self.kind}; there are #, #index and #acc", self.at)
        if self.kind not in scope:
            where = "of reduce" if self.kind == ACC else "of a function such as map"
            raise ExpressionError(f"{self.kind} stands outside of a predicate {where}", self.at)

    def evaluate(self, run: Run) -> Any:
        if self.kind == ITEM:
            return known(run.item)
        return run.index if self.kind == INDEX else run.acc


class Array(Node):
    __slots__ = ()

    def evaluate(self, run: Run) -> Any:
        return [part.evaluate(run) for part in self.parts]


class Map(Node):
    """Keys and values in turn."""

    __slots__ = ()

    def evaluate(self, run: Run) -> Any:
        made = {}
        for key, value in zip(self.parts[::2], self.parts[1::2], strict=True):
            try:
                made[key_text(key.evaluate(run))] = value.evaluate(run)
            except ExpressionError as error:
                raise error.at(key.at) from None
        return made


class Unary(Node):
    __slots__ = ("sign",)

    def __init__(self, at: int, sign: str, operand: Node) -> None:
        super().__init__(at, operand)
        self.sign = sign

    def evaluate(self, run: Run) -> Any:
        value = self.parts[0].evaluate(run)
        try:
            return UNARY[self.sign](value)
        except ExpressionError as error:
            raise error.at(self.at) from None


class Binary(Node):
    __slots__ = ("operator",)

    def __init__(self, at: int, operator: Operator, left: Node, right: Node) -> None:
        super().__init__(at, left, right)
        self.operator = operator

    def evaluate(self, run: Run) -> Any:
        left, right = self.parts
        try:
            return self.operator(left.evaluate(run), right.evaluate(run), run)
        except ExpressionError as error:
            raise error.at(self.at) from None
        except OverflowError:
            raise ExpressionError("the number is too large", self.at) from None


class Logical(Node):
    """`and` and `or`: the right side is worked out only when the left does not settle it."""

    __slots__ = ("settles", "sign")

    def __init__(self, at: int, sign: str, left: Node, right: Node) -> None:
        super().__init__(at, left, right)
        self.sign = {"&&": "and", "||": "or"}.get(sign, sign)
        self.settles = self.sign == "or"

    def evaluate(self, run: Run) -> bool:
        for part in self.parts:
            if truth(part.evaluate(run), self.sign, self.at) is self.settles:
                return self.settles
        return not self.settles


class Coalesce(Node):
    """The left side, or the right one if that is nil."""

    __slots__ = ()

    def evaluate(self, run: Run) -> Any:
        value = self.parts[0].evaluate(run)
        return self.parts[1].evaluate(run) if value is None else value


class Comparisons(Node):
    """`a < b < c`: every operand is worked out once, and none after the first comparison that fails."""

    __slots__ = ("operators",)

    def __init__(
        self, operands: Sequence[Node], operators: Sequence[tuple[int, Operator, bool]]
    ) -> None:
        super().__init__(operators[0][0], *operands)
        # The place of each sign, what it does, and whether `not` stands before it.
        self.operators = tuple(operators)

    def evaluate(self, run: Run) -> bool:
        first, *others = self.parts
        left = first.evaluate(run)
        for operand, (place, operator, is_negated) in zip(others, self.operators, strict=True):
            right = operand.evaluate(run)
            try:
                holds = operator(left, right, run)
            except ExpressionError as error:
                raise error.at(place) from None
            if holds is is_negated:
                return False
            left = right
        return True


class Elvis(Node):
    """The left side if that is true, else the right one."""

    __slots__ = ()

    def evaluate(self, run: Run) -> Any:
        condition, other = self.parts
        return truth(condition.evaluate(run), "?:", self.at) or other.evaluate(run)


class Conditional(Node):
    __slots__ = ()

    def evaluate(self, run: Run) -> Any:
        condition, chosen, other = self.parts
        if truth(condition.evaluate(run), "a condition", condition.at):
            return chosen.evaluate(run)
        return other.evaluate(run)


def truth(value: Any, what: str, at: int) -> bool:
    if type(value) is not bool:
        raise ExpressionError(f"{what} takes true or false, not {named(value)}", at)
    return value


class Let(Node):
    __slots__ = ("name",)

    def __init__(self, at: int, name: str, value: Node, body: Node) -> None:
        super().__init__(at, value, body)
        self.name = name

    def survey(self, names: set[str], variables: frozenset[str], scope: frozenset[str]) -> None:
        if self.name in variables:
            raise ExpressionError(f"the variable {self.name} is there already", self.at)
        value, body = self.parts
        value.survey(names, variables, scope)
        body.survey(names, variables | {self.name}, scope)

    def evaluate(self, run: Run) -> Any:
        value, body = self.parts
        run.variables[self.name] = value.evaluate(run)
        try:
            return body.evaluate(run)
        finally:
            del run.variables[self.name]


class Step(Node):
    """One step from a value to a part of it: `.name`, `[index]`, `[from:to]`, `.Method()`."""

    __slots__ = ("is_optional",)

    def __init__(self, at: int, *parts: Node, is_optional: bool = False) -> None:
        super().__init__(at, *parts)
        self.is_optional = is_optional

    def follow(self, value: Any, run: Run) -> Any:
        raise NotImplementedError


class Member(Step):
    __slots__ = ()

    def follow(self, value: Any, run: Run) -> Any:
        return fetch(value, self.parts[0].evaluate(run))


class Slice(Step):
    """The bounds are nodes; a missing one is the literal nil."""

    __slots__ = ()

    def follow(self, value: Any, run: Run) -> Any:
        if type(value) is not str and type(value) is not list:
            raise ExpressionError(f"{named(value)} cannot be sliced")
        low, high = (_bound(part.evaluate(run)) for part in self.parts)
        found = value[slice(low, high)]
        (run.take_text if type(value) is str else run.take_items)(len(found))
        return found


def _bound(value: Any) -> int | None:
    if value is not None and type(value) is not int:
        raise ExpressionError(f"a slice goes from int to int, not {named(value)}")
    return value


class Method(Step):
    __slots__ = ("name",)
    weight = CALL

    def __init__(self, at: int, name: str, *parts: Node, is_optional: bool = False) -> None:
        super().__init__(at, *parts, is_optional=is_optional)
        self.name = name

    def follow(self, value: Any, run: Run) -> Any:
        known_methods: dict[str, Any] = METHODS.get(type(value), {})
        if self.name not in known_methods:
            raise ExpressionError(f"{named(value)} has no method {self.name}")
        kinds, method = known_methods[self.name]
        arguments = [part.evaluate(run) for part in self.parts]
        if len(arguments) != len(kinds):
            raise ExpressionError(f"{self.name} takes {len(kinds)} arguments, not {len(arguments)}")
        for kind, argument in zip(kinds, arguments, strict=True):
            if type(argument) is not kind:
                raise ExpressionError(f"{self.name} does not take {named(argument)}")
        if self.name in ("Format", "String"):
            run.spend(SHOW_DATE)
        return method(value, *arguments)


class Path(Node):
    """A value and the steps from it. At nil, `?.` ends the whole path with nil."""

    __slots__ = ("steps",)

    def __init__(self, at: int, base: Node, steps: Sequence[Step]) -> None:
        super().__init__(at, base, *steps)
        self.steps = tuple(steps)

    def evaluate(self, run: Run) -> Any:
        value = self.parts[0].evaluate(run)
        for step in self.steps:
            if value is None and step.is_optional:
                return None
            try:
                value = known(step.follow(value, run))
            except ExpressionError as error:
                raise error.at(step.at) from None
        return value


def fetch(value: Any, key: Any) -> Any:
    """The item at an index, from the end if negative; the value of a key, nil if there is none."""
    if is_map(value):
        return value.get(key_text(key), "" if type(value) is Root else None)
    if type(value) is not list and type(value) is not str:
        # The key may be a secret; it is not told.
        raise ExpressionError(f"{named(value)} has no members")
    if type(key) is not int:
        raise ExpressionError(f"an index is an int, not {named(key)}")
    if not -len(value) <= key < len(value):
        raise ExpressionError(f"the index is outside of the {len(value)} there are")
    return value[key]


class Call(Node):
    """A function of its arguments."""

    __slots__ = ("function", "name")
    weight = CALL

    def __init__(
        self, at: int, name: str, function: Callable[..., Any], arguments: Sequence[Node]
    ) -> None:
        super().__init__(at, *arguments)
        self.name = name
        self.function = function

    def evaluate(self, run: Run) -> Any:
        arguments = [part.evaluate(run) for part in self.parts]
        try:
            value = self.function(run, *arguments)
        except ExpressionError as error:
            told = f"{self.name} " if error.message.startswith("takes ") else ""
            raise ExpressionError(f"{told}{error.message}", self.at) from None
        except OverflowError:
            raise ExpressionError("the number is too large", self.at) from None
        return finite(value) if type(value) is float else value


class Loop(Node):
    """A function that works out a predicate for the items of a list."""

    __slots__ = ("function", "name", "scope")
    weight = CALL

    def __init__(
        self, at: int, name: str, function: Callable[..., Any], arguments: Sequence[Node]
    ) -> None:
        super().__init__(at, *arguments)
        self.name = name
        self.function = function
        self.scope = IN_REDUCE if name == "reduce" else IN_LOOP

    def survey(self, names: set[str], variables: frozenset[str], scope: frozenset[str]) -> None:
        for index, part in enumerate(self.parts):
            part.survey(names, variables, self.scope if index == 1 else scope)

    def evaluate(self, run: Run) -> Any:
        items = self.parts[0].evaluate(run)
        if type(items) is not list:
            raise ExpressionError(f"{self.name} goes through an array, not {named(items)}", self.at)
        more = [part.evaluate(run) for part in self.parts[2:]]
        outer = run.item, run.index, run.acc
        try:
            return self.function(run, items, Predicate(self.name, self.parts[1], run), *more)
        except ExpressionError as error:
            raise error.at(self.at) from None
        except OverflowError:
            raise ExpressionError("the number is too large", self.at) from None
        finally:
            run.item, run.index, run.acc = outer


class Predicate:
    """What a loop asks of each item. It restores nothing: the loop does when it ends."""

    __slots__ = ("body", "name", "run")

    def __init__(self, name: str, body: Node, run: Run) -> None:
        self.name = name
        self.body = body
        self.run = run

    def value(self, index: int, item: Any) -> Any:
        self.run.spend(TURN + self.body.size)
        self.run.index, self.run.item = index, item
        return self.body.evaluate(self.run)

    def holds(self, index: int, item: Any) -> bool:
        return truth(self.value(index, item), f"the predicate of {self.name}", self.body.at)

    def values(self, items: list[Any]) -> Iterator[Any]:
        return (self.value(index, item) for index, item in enumerate(items))
