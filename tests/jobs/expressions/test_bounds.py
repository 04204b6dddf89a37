"""Hostile expressions: refused or cut short, soon, and with nothing but an ExpressionError."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from jobs import expressions
from jobs.expressions import ExpressionError, Template
from jobs.expressions import bounds as bounds_of

# On an idle machine each takes a few hundredths of a second at most; this one may be busy.
SECONDS = 1.0


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


BIG = "a" * (1 << 20)
NAMES: dict[str, Any] = {
    "inputs": {
        "big": BIG,
        "copy": "".join(["a"] * (1 << 20)),
        "numeral": "1." + "1" * 390,
        "short": "a" * 2400,
        "part": "a" * 600 + "b" + "a" * 600,
        "many": "".join(map(chr, range(0x4E00, 0x9000))) + "a",
        "wide": "\u00df" * (1 << 20),
        "rows": list(range(100_000)),
        "words": [f"{number}" * 50 for number in range(20_000)],
        "deep": nested(500),
        "huge": 10**400,
        # No two stretches alike, which is what costs an automaton most.
        "mixed": "".join(Random(6).choices("ab", k=1 << 20)),
    }
}
# Ten lists of ten of ten: little in memory, endless when it is written down.
LAUGHS = (
    "let a=[1,1,1,1,1,1,1,1,1,1];let b=[a,a,a,a,a,a,a,a,a,a];let c=[b,b,b,b,b,b,b,b,b,b];"
    "let d=[c,c,c,c,c,c,c,c,c,c];let e=[d,d,d,d,d,d,d,d,d,d];let f=[e,e,e,e,e,e,e,e,e,e];"
)
DEEP, WORDS = "more than 100 levels deep", "more than 1000 words and signs"
WORK, TEXT = "more than 50000 operations", "a text of more than 1048576 characters"
ITEMS, NESTED = "more than 100000 items", "more than 50 deep in each other"

REFUSED = {
    "parentheses": ("(" * 2000 + "1" + ")" * 2000, WORDS),
    "lists": ("[" * 450 + "]" * 450, DEEP),
    "open lists": ("[" * 4000, WORDS),
    "signs": ("-" * 900 + "1", DEEP),
    "nots": ("not " * 400 + "true", DEEP),
    "long sum": ("1" + "+1" * 2000, WORDS),
    "nested loops": ("all([1]," * 99 + "#" + ")" * 99, DEEP),
    "shorter sum": ("1" + "+1" * 400, DEEP),
    "powers": ("2" + "**2" * 400, DEEP),
    "conditions": ("true?" * 200 + "1" + ":1" * 200, DEEP),
    "pipes": ("'a'" + "|upper()" * 150, DEEP),
    "variables": ("".join(f"let v{n}=1;" for n in range(150)) + "1", DEEP),
    "long": ("1" + " " * 5000, "at most 4096 characters"),
    "range": ("1..1000000000", ITEMS),
    "endless range": ("-9223372036854775807..9223372036854775807", ITEMS),
    "sequence": ("sequence(0, 9000000000000000000)", ITEMS),
    "repeat": ("repeat('x', 1000000000)", TEXT),
    "repeated repeat": ("repeat(repeat('x', 1000000), 1000000)", TEXT),
    "power": ("9 ** 9 ** 9 ** 9", "not a finite number"),
    "loops": ("map(1..1000, map(1..1000, map(1..1000, #)))", WORK),
    "loop": ("all(1..100000, # > 0)", WORK),
    "laughs": (LAUGHS + "[f,f,f]", ITEMS),
    "laughs as JSON": (LAUGHS + "toJSON([f,f,f])", WORK),
    "laughs as text": (LAUGHS + "string(f)", WORK),
    "laughs compared": (LAUGHS + "f == f", WORK),
    "laughs flattened": (LAUGHS + "flatten(f)", WORK),
    "laughs summed": (LAUGHS + "max(f)", WORK),
    "laughs told apart": (LAUGHS + "uniq([f, f])", WORK),
    "growing nest": ("reduce(1..10000, [#acc], 0)", NESTED),
    "growing maps": ("reduce(1..5000, {a: #acc}, 0)", NESTED),
    "growing list": ("reduce(1..20000, concat(#acc, [#]), [])", WORK),
    "doubled list": ("reduce(1..100, concat(#acc, #acc), [1])", ITEMS),
    "longer list": ("len(concat(inputs.rows, [1]))", ITEMS),
    "doubled text": ("reduce(1..100, #acc + #acc, 'x')", TEXT),
    "growing text": ("reduce(1..20000, #acc + 'x', '')", WORK),
    "long pattern": (f"'a' matches '{'a' * 600}'", "a pattern has at most 500 characters"),
    "large pattern": ("'a' matches '((((a?){30}){30}){30})'", "no pattern, or too large a one"),
    "steep pattern": ("inputs.big matches '(.{1,100}){1,10}z'", WORK),
    "pattern that forgets": ("inputs.mixed matches '(a|b)*a(a|b){20}c'", WORK),
    "repeated classes": ("'a' matches `(\\pL{10}){10}`", "too large a one"),
    "patterns": ("map(1..950, 'x' matches string(#))", WORK),
    "long text of a list": ("string(map(1..20, inputs.big[:100000]))", TEXT),
    "long JSON of a list": ("toJSON(map(1..20, inputs.big[:100000]))", TEXT),
    "many patterns": ("map(1..30000, 'x' matches string(#))", WORK),
    "many searches": ("map(1..100, inputs.big matches 'a{100}b')", WORK),
    "deep JSON": ("fromJSON(repeat('[', 50000))", "not JSON"),
    "closed deep JSON": ("fromJSON(repeat('[', 300) + repeat(']', 300))", NESTED),
    "long numeral": ("fromJSON('1' + repeat('0', 5000))", "not a finite number"),
    "wide JSON": ("fromJSON('[' + repeat('[],', 60000) + '1]')", ITEMS),
    "much JSON": ("map(1..1000, fromJSON('[' + repeat('1,', 30000) + '1]'))", WORK),
    "equal texts": ("all(1..30000, inputs.big == inputs.copy)", WORK),
    "ordered texts": ("all(1..30000, inputs.big <= inputs.copy)", WORK),
    "held texts": ("all(1..30000, not (inputs.big contains 'b'))", WORK),
    "wide capitals": ("upper(inputs.wide)", TEXT),
    "capitals": ("map(1..1000, upper(inputs.big))", WORK),
    "pieces": ("split(inputs.big, 'a')", ITEMS),
    "characters": ("split(inputs.big, '')", ITEMS),
    "longer text": ("replace(inputs.big, 'a', 'bb')", TEXT),
    "replaced": ("map(1..1000, replace(inputs.big, 'a', 'b'))", WORK),
    "searches": ("map(1..1000, indexOf(inputs.big, repeat('a', 50) + 'b'))", WORK),
    "backward searches": ("map(1..1000, lastIndexOf(inputs.big, 'b' + repeat('a', 50)))", WORK),
    "long part from the end": (
        "map(1..9, lastIndexOf(repeat('a', 320000), 'ab'+repeat('a', 160000)))",
        WORK,
    ),
    "medium parts": ("map(1..200, indexOf(inputs.short, inputs.part))", WORK),
    "medium parts held": ("all(1..200, not (inputs.short contains inputs.part))", WORK),
    "medium parts replaced": ("map(1..200, replace(inputs.short, inputs.part, ''))", WORK),
    "medium parts split": ("map(1..200, split(inputs.short, inputs.part))", WORK),
    "short parts": ("map(1..30, indexOf(inputs.big[:29000], inputs.part[550:640]))", WORK),
    "floats": ("map(1..4500, float(inputs.numeral))", WORK),
    "written floats": ("toJSON(map(1..5500, 1.5e-300))", WORK),
    "many characters to trim": ("map(1..9, trim(repeat('a', 20000), inputs.many))", WORK),
    "trims": ("map(1..1000, trim(inputs.big, 'a'))", WORK),
    "long text of texts": ("join([inputs.big, inputs.big])", TEXT),
    "joined": ("join(map(1..1000, inputs.big))", WORK),
    "base64": ("toBase64(inputs.big)", TEXT),
    "plus": ("inputs.big + 'a'", TEXT),
    "same text many times": ("map(1..1000, inputs.big)", "characters"),
    "slices": ("map(1..1000, inputs.big[1:])", WORK),
    "list slices": ("map(1..10000, inputs.rows[1:])", WORK),
    "sorted words": ("map(1..1000, sort(inputs.words))", WORK),
    "sorted once": ("sort(inputs.rows)", WORK),
    "sorted": ("map(1..1000, sort(inputs.rows))", WORK),
    "sorted by": ("sortBy(inputs.rows, -#)", WORK),
    "in lists": ("all(inputs.rows, # in inputs.rows)", WORK),
    "averages": ("map(1..1000, mean(inputs.rows))", WORK),
    "texts of lists": ("map(1..1000, string(inputs.rows))", WORK),
    "calls": ("map(1..20000, len(inputs))", WORK),
    "keys": ("map(1..100000, keys(inputs))", WORK),
    "dates": ("map(1..1500, date('2023-08-14 00:00:00', '2006-01-02 15:04:05'))", WORK),
    "written dates": ("let n = now(); map(1..2300, n.Format('Monday January 2006'))", WORK),
    "dates as texts": ("let n = now(); map(1..2300, string(n))", WORK),
    "dates as JSON": ("let n = now(); map(1..2300, toJSON(n))", WORK),
    "dates as values": ("let n = now(); map(1..3000, n)", ITEMS),
    "zones": ("map(1..1500, timezone('Europe/Zurich'))", WORK),
    "deep value": ("inputs.deep", NESTED),
    "deep value as text": ("string(inputs.deep)", NESTED),
    "deep value as JSON": ("toJSON(inputs.deep)", NESTED),
    "deep value flattened": ("flatten(inputs.deep)", NESTED),
    "deep value compared": ("inputs.deep == inputs.deep", NESTED),
    "deep value averaged": ("mean(inputs.deep)", NESTED),
    "huge integer": ("inputs.huge * 1.5", "the number is too large"),
    "huge integer in a list": ("sum([1.5, inputs.huge])", "the number is too large"),
}


def refusal(source: str) -> tuple[str, float]:
    expressions.compile("1").evaluate({})
    began = time.process_time()
    with pytest.raises(ExpressionError) as caught:
        expressions.compile(source).evaluate(NAMES)
    return str(caught.value), time.process_time() - began


@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_expression_fails_soon(case):
    source, message = REFUSED[case]
    told, seconds = refusal(source)
    assert message in told
    assert seconds < SECONDS


@pytest.mark.parametrize(
    "source",
    [
        "inputs.big[:500000] matches '(x+x+)+y'",
        "inputs.big[:200000] matches '.*.*.*=.*'",
        "inputs.mixed[:100000] matches '(a|b)*a(a|b){20}c'",
        "'" + "a" * 400 + "' matches '(a*)*b'",
        "'" + "a" * 400 + "' matches '(a|aa)+$b'",
    ],
)
def test_patterns_take_no_longer_for_being_nested(source):
    expressions.compile("1").evaluate({})
    began = time.process_time()
    assert expressions.compile(source).evaluate(NAMES) is False
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize(
    "source",
    [
        "{{" * 8000,
        "{{ 1 " * 3000,
        "{{ 1 }}" * 101,
        "{{ 1 }}" + "x" * (16 << 10),
        "{{ " + "1" * 3000 + "}} {{" + "1" * 2000 + "}}",
        "{{ all(1..10000, # > 0) }}" * 90,
        "{{ inputs.big }}{{ inputs.big }}",
        "{{ inputs.rows }}{{ inputs.rows }}",
    ],
)
def test_a_hostile_text_is_dealt_with_soon(source):
    expressions.compile("1").evaluate({})
    began = time.process_time()
    try:
        assert Template.parse(source).render(NAMES) == source
    except ExpressionError:
        assert "}}" in source
    assert time.process_time() - began < SECONDS


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ 1 }}" * 101, "at most 100 expressions"),
        ("{{ 1 }}" + "x" * (16 << 10), "at most 16384 characters"),
        ("{{ 1" + " " * 3000 + "}} {{ 1" + " " * 2000 + "}}", "expressions of a text have at most"),
        ("{{ inputs.big }}{{ inputs.big }}", TEXT),
        ("{{ inputs.big }}a", TEXT),
    ],
)
def test_a_text_has_its_own_bounds(source, message):
    with pytest.raises(ExpressionError, match=message):
        Template.parse(source).render(NAMES)


@pytest.mark.parametrize(
    "case",
    [
        "range",
        "endless range",
        "sequence",
        "repeat",
        "repeated repeat",
        "wide JSON",
        "plus",
        "pieces",
        "characters",
    ],
)
def test_room_is_refused_before_it_is_taken(case):
    source, _ = REFUSED[case]
    expressions.compile(source)
    tracemalloc.start()
    try:
        refusal(source)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


def test_what_lies_within_the_bounds_is_worked_out():
    assert len(expressions.compile("1..100000").evaluate({})) == bounds_of.MAX_ITEMS
    assert len(expressions.compile("repeat('x', 1048576)").evaluate({})) == bounds_of.MAX_TEXT
    assert expressions.compile("1" + "+1" * 98).evaluate({}) == 99
    assert expressions.compile("(" * 450 + "1" + ")" * 450).evaluate({}) == 1
    assert expressions.compile("reduce(1..50, [#acc], 1)").evaluate({}) == nested(50)
    assert len(Template.parse("{{ 1 }}" * 100).render({})) == 100


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("(" * 95 + "false" + " ?: false)" * 95, False),
        ("true == (" * 95 + "true" + ") == true" * 95, True),
        ("all([true], " * 95 + "true" + ")" * 95, True),
        ("let x = (" * 45 + "1" + "); x" * 45, 1),
    ],
)
def test_no_part_is_worked_out_twice(source, value):
    began = time.process_time()
    assert expressions.compile(source).evaluate({}) == value
    assert time.process_time() - began < SECONDS


def test_blocks_of_a_text_share_one_budget():
    block = "{{ all(1..6000, # > 0) }}"
    assert Template.parse(block).render({}) == "true"
    with pytest.raises(ExpressionError, match=WORK):
        Template.parse(block * 5).render({})


def test_what_is_no_loop_has_its_price_too(monkeypatch):
    monkeypatch.setattr(bounds_of, "MAX_OPERATIONS", 10)
    assert expressions.compile("1 + 2 + 3").evaluate({}) == 6
    with pytest.raises(ExpressionError, match="more than 10 operations"):
        expressions.compile("1 + 2 + 3 + 4 + 5 + 6").evaluate({})


def from_deep_within(work: Callable[[], Any], room: int) -> Any:
    """Call this with so many calls left that Python allows."""
    depth, frame = 0, sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        depth += 1

    def descend(levels: int) -> Any:
        return descend(levels - 1) if levels else work()

    return descend(sys.getrecursionlimit() - depth - room)


def test_deep_trees_are_worked_out_from_deep_within_python():
    source = "[1" + ", [1" * 60 + "]" * 61
    nest = expressions.compile(f"len({source[:-1]}, 2])")
    assert from_deep_within(lambda: nest.evaluate({}), room=400) == 3
    read = from_deep_within(lambda: expressions.compile(f"len({source})"), room=400)
    assert read.evaluate({}) == 2
    for work in (lambda: nest.evaluate({}), lambda: expressions.compile(f"last({source})")):
        with pytest.raises(ExpressionError, match="goes too deep"):
            from_deep_within(work, room=55)


def test_no_parser_is_built_before_there_is_an_expression():
    code = (
        "import sys; from jobs import expressions; expressions.Template.parse('plain').render({});"
        "assert 'lark' not in sys.modules; expressions.compile('1'); assert 'lark' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_threads_may_read_their_first_expressions_at_once():
    code = (
        "from concurrent.futures import ThreadPoolExecutor\n"
        "from jobs import expressions\n"
        "def work(n):\n"
        "    source = f'map(1..3, # * {n}) | sum() == {6 * n} ? [{n}, upper(\"a\")] : nil'\n"
        "    return expressions.compile(source).evaluate({})\n"
        "with ThreadPoolExecutor(16) as pool:\n"
        "    found = list(pool.map(work, range(200)))\n"
        "assert found == [[n, 'A'] for n in range(200)], found\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_what_was_spent_can_be_seen():
    before = expressions.spent()
    assert Template.parse("{{ len(filter(1..3000, # % 7 == 3)) }}").render({}) == "429"
    price = expressions.spent() - before
    assert 20_000 < price < bounds_of.MAX_OPERATIONS
    with pytest.raises(ExpressionError, match=WORK):
        expressions.compile("all(1..100000, # > 0)").evaluate({})
    assert expressions.spent() - before - price > bounds_of.MAX_OPERATIONS
    assert Template.parse("{{ 1 }}").value({}) == 1
