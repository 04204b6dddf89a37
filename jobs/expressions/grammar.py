"""From text to tree. Lark reads the grammar; the strength of operators is a table of ours.

The parser keeps its own stack, so no nesting can overflow Python's; words and signs are counted as they
come. Importing this module builds the parser, so it is imported when there is an expression to read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from lark import Lark, Token, Transformer
from lark.exceptions import LarkError, UnexpectedCharacters, UnexpectedToken

from jobs.expressions.bounds import MAX_DEPTH, MAX_TOKENS, ExpressionError
from jobs.expressions.functions import FUNCTIONS, LOOPS, WITHOUT_PREDICATE, Function
from jobs.expressions.nodes import (
    ITEM,
    Array,
    Binary,
    Call,
    Coalesce,
    Comparisons,
    Conditional,
    Elvis,
    Let,
    Literal,
    Logical,
    Loop,
    Map,
    Member,
    Method,
    Name,
    Node,
    Path,
    Pointer,
    Slice,
    Step,
    Unary,
)
from jobs.expressions.operators import BINARY, Operator, matches_pattern
from jobs.expressions.values import finite, whole

_GRAMMAR = r"""
?start: expr

?expr: chain
     | chain "?" expr ":" expr    -> conditional
     | chain "?" ":" expr         -> elvis
     | LET NAME "=" expr ";" expr -> let
     | branch

branch: IF expr "{" expr "}" "else" "{" expr "}"
      | IF expr "{" expr "}" "else" branch

// Unary signs, values and binary signs as they follow each other; they are folded by strength afterwards.
?chain: _operand (BINARY _operand | PIPE piped step*)*
_operand: UNARY* path
?path: value step*

?value: NUMBER            -> number
      | STRING            -> string
      | CONSTANT          -> constant
      | POINTER           -> pointer
      | NAME              -> name
      | DOT PROPERTY      -> item_member
      | NAME "(" _arguments? ")" -> call
      | "(" expr ")"      -> group
      | OPEN (expr ("," expr)* ","?)? "]" -> array
      | map

piped: NAME "(" _arguments? ")"
_arguments: argument ("," argument)* ","?
?argument: expr | "{" expr "}" -> closure

map: BRACE (_pair ("," _pair)* ","?)? "}"
_pair: (NAME | STRING | NUMBER) ":" expr
     | computed_key ":" expr
computed_key: "(" expr ")"

step: DOT PROPERTY                  -> member
    | MAYBE PROPERTY                -> member
    | DOT PROPERTY arguments        -> method
    | MAYBE PROPERTY arguments      -> method
    | OPEN expr "]"                 -> index
    | MAYBE OPEN expr "]"           -> index
    | OPEN bound ":" bound "]"      -> slice
    | MAYBE OPEN bound ":" bound "]" -> slice
bound: expr?
arguments: "(" (expr ("," expr)* ","?)? ")"

LET: /let\b/
IF: /if\b/
PIPE: "|"
DOT: "."
MAYBE: "?."
OPEN: "["
BRACE: "{"
BINARY: /\*\*|\?\?|&&|\|\||==|!=|<=|>=|\.\.|[-+*\/%^<>]|(?:and|or)\b/
      | /(?:not\s+)?(?:in|contains|matches|startsWith|endsWith)\b/
UNARY.2: /not\b|[-+!]/
CONSTANT.2: /(?:true|false|nil)\b/
NUMBER: /0[xX][0-9a-fA-F_]+\b|0[oO][0-7_]+\b|0[bB][01_]+\b/
      | /(?:[0-9][0-9_]*(?:\.(?!\.)[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?(?!\w)/
STRING: /"(?:[^"\\\n]|\\.)*"/ | /'(?:[^'\\\n]|\\.)*'/ | /`[^`]*`/
POINTER: /#\w*/
NAME: /(?!(?:in|or|and|not|let|if|else|contains|matches|startsWith|endsWith)\b)[^\W\d]\w*/
PROPERTY: /[^\W\d]\w*/
COMMENT.3: /\/\/[^\n]*/ | /\/\*[\s\S]*?\*\//
%ignore COMMENT
%ignore /\s+/
"""

# How strongly signs bind. `|` takes all there is to its left, up to a bracket.
_STRENGTH = {
    **dict.fromkeys(("or", "||"), 10),
    **dict.fromkeys(("and", "&&"), 15),
    **dict.fromkeys(("==", "!=", "<", ">", "<=", ">="), 20),
    **dict.fromkeys(("in", "contains", "matches", "startsWith", "endsWith"), 20),
    "..": 25,
    **dict.fromkeys("+-", 30),
    **dict.fromkeys("*/%", 60),
    **dict.fromkeys(("**", "^"), 100),
    "??": 500,
    "|": 0,
}
_UNARY_STRENGTH = {"not": 50, "!": 50, "-": 90, "+": 90}
_COMPARISON, _POWER = 20, 100

_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|([abfnrtv\\'\"`?])|)"
)
_SIMPLE_ESCAPES = dict(zip("abfnrtv\\'\"`?", "\a\b\f\n\r\t\v\\'\"`?", strict=True))


def parse(source: str) -> Node:
    """The tree of an expression."""
    try:
        return _PARSER.parse(source)  # type: ignore[return-value]
    except UnexpectedCharacters as error:
        raise ExpressionError("cannot be read from here on", error.pos_in_stream) from None
    except UnexpectedToken as error:
        if error.token.type == "$END":
            raise ExpressionError("ends too early", len(source)) from None
        shown = str(error.token)[:20]
        raise ExpressionError(f"unexpected {shown}", error.token.start_pos) from None
    except LarkError:
        raise ExpressionError("cannot be read") from None


class _Counted:
    """Lets so many tokens through."""

    always_accept = ()

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        for count, token in enumerate(stream):
            if count >= MAX_TOKENS:
                raise ExpressionError(
                    f"has more than {MAX_TOKENS} words and signs", token.start_pos
                )
            yield token


class _Closure:
    """`{ expression }` where an argument is expected."""

    def __init__(self, body: Node) -> None:
        self.body = body


class _Builder(Transformer[Token, Any]):
    """Makes nodes of what the parser has read, from the leaves up."""

    def number(self, children: list[Token]) -> Node:
        (token,) = children
        try:
            return Literal(_place(token), _number(token))
        except ExpressionError as error:
            raise error.at(_place(token)) from None

    def string(self, children: list[Token]) -> Node:
        (token,) = children
        return Literal(_place(token), _string(token))

    def constant(self, children: list[Token]) -> Node:
        (token,) = children
        return Literal(_place(token), {"true": True, "false": False}.get(str(token)))

    def pointer(self, children: list[Token]) -> Node:
        (token,) = children
        return Pointer(_place(token), str(token))

    def name(self, children: list[Token]) -> Node:
        (token,) = children
        return Name(_place(token), str(token))

    def item_member(self, children: list[Token]) -> Node:
        dot, word = children
        member = Member(_place(word), Literal(_place(word), str(word)))
        return Path(_place(dot), Pointer(_place(dot), ITEM), [member])

    def call(self, children: list[Any]) -> Node:
        name, *arguments = children
        return _call(name, arguments)

    def piped(self, children: list[Any]) -> list[Any]:
        return children

    def closure(self, children: list[Node]) -> _Closure:
        return _Closure(children[0])

    def group(self, children: list[Node]) -> Node:
        return children[0]

    def array(self, children: list[Any]) -> Node:
        bracket, *items = children
        return Array(_place(bracket), *items)

    def map(self, children: list[Any]) -> Node:
        brace, *parts = children
        return Map(
            _place(brace), *(_key(part) if isinstance(part, Token) else part for part in parts)
        )

    def computed_key(self, children: list[Node]) -> Node:
        return children[0]

    def path(self, children: list[Any]) -> Node:
        base, *steps = children
        return Path(base.at, base, steps)

    def member(self, children: list[Token]) -> Step:
        sign, word = children
        return Member(_place(word), Literal(_place(word), str(word)), is_optional=sign == "?.")

    def method(self, children: list[Any]) -> Step:
        sign, word, arguments = children
        return Method(_place(word), str(word), *arguments, is_optional=sign == "?.")

    def arguments(self, children: list[Node]) -> list[Node]:
        return children

    def index(self, children: list[Any]) -> Step:
        sign, key = children[0], children[-1]
        return Member(_place(sign), key, is_optional=sign == "?.")

    def slice(self, children: list[Any]) -> Step:
        sign, (low, high) = children[0], children[-2:]
        return Slice(_place(sign), low, high, is_optional=sign == "?.")

    def bound(self, children: list[Node]) -> Node:
        return children[0] if children else Literal(0, None)

    def chain(self, children: list[Any]) -> Node:
        return _Fold(children).expression(0)

    def conditional(self, children: list[Node]) -> Node:
        condition, chosen, other = children
        return Conditional(condition.at, condition, chosen, other)

    def elvis(self, children: list[Node]) -> Node:
        condition, other = children
        return Elvis(condition.at, condition, other)

    def branch(self, children: list[Any]) -> Node:
        word, condition, chosen, other = children
        return Conditional(_place(word), condition, chosen, other)

    def let(self, children: list[Any]) -> Node:
        _, name, value, body = children
        if name in FUNCTIONS or name in LOOPS:
            raise ExpressionError(f"{name} is the name of a function", _place(name))
        return Let(_place(name), str(name), value, body)


class _Fold:
    """Makes a tree of signs and values in a row, by the strength of the signs."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items
        self.next = 0
        self.depth = 0

    def expression(self, least: int) -> Node:
        """All that is held together by signs at least this strong."""
        self.depth += 1
        left = self._operand()
        previous = ""
        while (sign := self._sign()) is not None:
            word = _word(sign)[0]
            if least > _STRENGTH[word]:
                break
            if sign.type == "PIPE":
                self.next += 1
                left = self._pipe(left)
            elif previous == "??" and word != "??":
                raise ExpressionError(f"?? and {word} need parentheses", _place(sign))
            elif _STRENGTH[word] == _COMPARISON:
                left = self._comparison(left)
            else:
                self.next += 1
                right = self.expression(_STRENGTH[word] + (_STRENGTH[word] != _POWER))
                left = _binary(sign, word, left, right)
            previous = word
        self.depth -= 1
        return left

    def _operand(self) -> Node:
        item = self.items[self.next]
        if self.depth > MAX_DEPTH:
            raise ExpressionError(f"goes more than {MAX_DEPTH} levels deep", _place(item))
        self.next += 1
        if not isinstance(item, Token):
            return item  # type: ignore[no-any-return]
        return Unary(_place(item), str(item), self.expression(_UNARY_STRENGTH[item]))

    def _sign(self) -> Token | None:
        return self.items[self.next] if self.next < len(self.items) else None

    def _pipe(self, left: Node) -> Node:
        (name, *arguments) = self.items[self.next]
        self.next += 1
        node, steps = _call(name, [left, *arguments]), []
        while self.next < len(self.items) and isinstance(self.items[self.next], Step):
            steps.append(self.items[self.next])
            self.next += 1
        return Path(node.at, node, steps) if steps else node

    def _comparison(self, left: Node) -> Node:
        """One comparison, or as many as follow each other."""
        operands, operators = [left], []
        while (sign := self._sign()) is not None:
            word, is_negated = _word(sign)
            if _STRENGTH[word] != _COMPARISON:
                break
            self.next += 1
            operands.append(self.expression(_COMPARISON + 1))
            operators.append((_place(sign), _operator(word, operands[-1]), is_negated))
        if len(operators) == 1 and not operators[0][2]:
            place, operator, _ = operators[0]
            return Binary(place, operator, *operands)
        return Comparisons(operands, operators)


def _word(sign: Token) -> tuple[str, bool]:
    words = sign.split()
    return words[-1], len(words) > 1


def _binary(sign: Token, word: str, left: Node, right: Node) -> Node:
    place = _place(sign)
    if word == "??":
        return Coalesce(place, left, right)
    if _STRENGTH[word] < _COMPARISON:
        return Logical(place, word, left, right)
    return Binary(place, BINARY[word], left, right)


def _operator(word: str, right: Node) -> Operator:
    """What a sign does; a pattern that stands in the expression is read now."""
    if word != "matches" or not isinstance(right, Literal) or type(right.value) is not str:
        return BINARY[word]
    try:
        return matches_pattern(right.value)
    except ExpressionError as error:
        raise error.at(right.at) from None


def _call(name: Token, arguments: Sequence[Any]) -> Node:
    place = _place(name)
    if name in LOOPS and not (name in WITHOUT_PREDICATE and len(arguments) == 1):
        _check_count(name, LOOPS[name], arguments)
        opened = [part.body if isinstance(part, _Closure) else part for part in arguments]
        _refuse_closures([arguments[0], *arguments[2:]], place)
        return Loop(place, str(name), LOOPS[name].work, opened)
    function = WITHOUT_PREDICATE.get(name) or FUNCTIONS.get(name)
    if function is None:
        raise ExpressionError(f"unknown function {name[:40]}", place)
    _check_count(name, function, arguments)
    _refuse_closures(arguments, place)
    return Call(place, str(name), function.work, arguments)


def _check_count(name: Token, function: Function, arguments: Sequence[Any]) -> None:
    if not function.least <= len(arguments) <= function.most:
        wanted = " to ".join(map(str, sorted({function.least, function.most})))
        raise ExpressionError(
            f"{name} takes {wanted} arguments, not {len(arguments)}", _place(name)
        )


def _refuse_closures(arguments: Sequence[Any], place: int) -> None:
    if any(isinstance(part, _Closure) for part in arguments):
        raise ExpressionError("a predicate in braces stands where a value is expected", place)


def _place(token: Token | Node) -> int:
    return token.at if isinstance(token, Node) else token.start_pos or 0


def _number(token: Token) -> float:
    written = token.replace("_", "")
    prefix = written[:2].lower()
    if prefix in ("0x", "0o", "0b"):
        if not written[2:]:
            raise ExpressionError("this is no number")
        return whole(int(written, 0))
    if set(written) & set(".eE"):
        return finite(float(written))
    if len(written) > 40:
        raise ExpressionError("the integer does not fit 64 bits")
    return whole(int(written))


def _string(token: Token) -> str:
    if token[0] == "`":
        return token[1:-1]
    return _ESCAPE.sub(lambda found: _escaped(found, _place(token)), token[1:-1])


def _escaped(found: re.Match[str], place: int) -> str:
    two, four, eight, octal, simple = found.groups()
    if simple:
        return _SIMPLE_ESCAPES[simple]
    code = int(octal, 8) if octal else int(two or four or eight or "110000", 16)
    if code > 0x10FFFF or 0xD800 <= code < 0xE000:
        raise ExpressionError("the string has an escape that stands for no character", place)
    return chr(code)


def _key(token: Token) -> Node:
    is_string = token.type == "STRING"
    return Literal(_place(token), _string(token) if is_string else str(token))


_PARSER = Lark(
    _GRAMMAR,
    parser="lalr",
    lexer="contextual",
    transformer=_Builder(),
    postlex=_Counted(),
    maybe_placeholders=False,
)
