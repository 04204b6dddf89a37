"""Whatever is written: a JSON value or an ExpressionError, nothing else."""

from __future__ import annotations

import json
import math
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs import expressions
from jobs.expressions import ExpressionError, Template
from jobs.expressions.functions import FUNCTIONS, LOOPS
from tests.jobs.expressions.cases import CASES, NAMES

WORDS = [
    *(FUNCTIONS.keys() | LOOPS.keys()),
    *("inputs", "tasks", "secrets", "job", "item", "users", "nothing", "x", "Name", "__class__"),
    *(
        "and",
        "or",
        "not",
        "in",
        "contains",
        "matches",
        "startsWith",
        "endsWith",
        "let",
        "if",
        "else",
    ),
    *(
        "true",
        "false",
        "nil",
        "#",
        "#acc",
        "#index",
        ".Age",
        ".Format",
        ".Year",
        "?.",
        "??",
        "?",
        ":",
    ),
    *(
        "+",
        "-",
        "*",
        "/",
        "%",
        "**",
        "^",
        "==",
        "!=",
        "<",
        ">",
        "<=",
        ">=",
        "..",
        "|",
        "=",
        ";",
        ",",
    ),
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "{{",
        "}}",
        "0",
        "1",
        "-1",
        "2.5",
        "1e9",
        "9223372036854775807",
    ),
    *("'a'", '"2023-08-14"', "'1h'", "'[1]'", "'('", "`x`", "now()", "duration('1h')", "[1, 2]"),
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=10,
)
QUICK = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def check(source: str, names: dict[str, Any]) -> None:
    try:
        value = expressions.compile(source).evaluate(names)
    except ExpressionError as error:
        assert len(str(error)) < 300
    else:
        check_json(value)
    try:
        template = Template.parse(f"a {{{{ {source} }}}} b")
        assert isinstance(template.render(names), str)
        check_json(template.value(names))
    except ExpressionError:
        pass


def check_json(value: Any) -> None:
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    match value:
        case list():
            for item in value:
                check_json(item)
        case dict():
            for item in value.values():
                check_json(item)
        case _:
            assert type(value) in (type(None), bool, int, float, str)
            assert not isinstance(value, float) or math.isfinite(value)


@QUICK
@given(st.text(max_size=60))
def test_any_text(source):
    check(source, NAMES)


@QUICK
@given(st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join))
def test_any_words_in_any_order(source):
    check(source, NAMES)


@QUICK
@given(st.data())
def test_what_works_with_one_part_replaced(data):
    source, _ = data.draw(st.sampled_from(CASES))
    low = data.draw(st.integers(0, len(source)))
    high = data.draw(st.integers(low, min(len(source), low + 4)))
    check(source[:low] + data.draw(st.sampled_from([*WORDS, ""])) + source[high:], NAMES)


@QUICK
@given(
    st.sampled_from([*FUNCTIONS, *LOOPS]),
    st.lists(VALUES, max_size=3),
    st.sampled_from(["", "# == 1, ", "#, ", "[#], ", "string(#), "]),
)
def test_any_function_of_any_values(name, values, predicate):
    places = [f"x{place}" for place in range(len(values))]
    names = dict(zip(places, values, strict=True))
    arguments = ", ".join(places)
    check(f"{name}({arguments})", names)
    head, *tail = places or [""]
    check(f"{name}({head}, {predicate}{', '.join(tail)})", names)


SIGNS = [
    *("+", "-", "*", "/", "%", "**", "..", "==", "!=", "<", ">", "<=", ">=", "??"),
    *("in", "contains", "matches", "startsWith", "endsWith", "and", "or"),
]


@QUICK
@given(VALUES, VALUES, st.sampled_from(SIGNS))
def test_any_operator_between_any_values(left, right, sign):
    check(f"x {sign} y", {"x": left, "y": right})
    check(f"x[y] {sign} -x", {"x": left, "y": right})
    check(f"x[y:1] {sign} x?.a", {"x": left, "y": right})
