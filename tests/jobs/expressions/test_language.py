"""What expressions come to, and what they refuse."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest

from jobs import expressions
from jobs.expressions import ExpressionError, bounds
from jobs.expressions.functions import FUNCTIONS, LOOPS
from tests.documents import page
from tests.jobs.expressions.cases import CASES, NAMES


def came_to(source: str) -> object:
    return expressions.compile(source).evaluate(NAMES)


def refused(source: str) -> ExpressionError:
    with pytest.raises(ExpressionError) as caught:
        came_to(source)
    return caught.value


@pytest.mark.parametrize(("source", "value"), CASES, ids=[source for source, _ in CASES])
def test_an_expression_comes_to_its_value(source, value):
    found = came_to(source)
    assert found == value
    # True == 1 in Python.
    assert type(found) is type(value) or isinstance(value, float)


def test_the_table_calls_every_function():
    written = " ".join(source for source, _ in CASES)
    assert [name for name in (*FUNCTIONS, *LOOPS) if f"{name}(" not in written] == []


def test_the_documents_name_every_function_and_bound():
    told = page("docs/expressions.md")
    words = set(re.findall(r"\w+", told))
    assert [name for name in (*FUNCTIONS, *LOOPS) if name not in words] == []
    numbers = (value for name, value in vars(bounds).items() if name.startswith("MAX_"))
    small = {f"{value:,}" for value in numbers if value < bounds.MAX_INTEGER}
    assert [number for number in small if number not in told] == []


def test_values_are_copies():
    rows = NAMES["tasks"]["rows"]
    assert came_to("tasks.rows") == rows
    assert came_to("tasks.rows") is not rows
    came_to("sort(tasks.rows)")
    assert rows == [3, 1, 2]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "there is no expression"),
        ("1 +", "ends too early (character 4)"),
        ("(1", "ends too early"),
        ("a b", "unexpected b (character 3)"),
        ("1 $ 2", "cannot be read from here on (character 3)"),
        ("'abc", "cannot be read"),
        ("[1,,2]", "unexpected ,"),
        ("{a 1}", "unexpected 1"),
        ("{1 + 2: 3}", "unexpected +"),
        ("not", "ends too early"),
        ("in", "unexpected in (character 1)"),
        ("let x; x", "unexpected ;"),
        ("let x = 1", "ends too early"),
        ("let x = 1; let x = 2; x", "the variable x is there already (character 16)"),
        ("let len = 1; len", "len is the name of a function"),
        ("foo(1)", "unknown function foo (character 1)"),
        ("inputs.foo(1)", "a map has no method foo"),
        ("len()", "len takes 1 arguments, not 0"),
        ("split('a', 'b', 1, 2)", "split takes 2 to 3 arguments, not 4"),
        ("map([1])", "map takes 2 arguments, not 1"),
        ("len({# > 1})", "a predicate in braces stands where a value is expected"),
        ("map({# > 1}, {# > 1})", "a predicate in braces stands where a value is expected"),
        ("#", "# stands outside of a predicate"),
        (".a", "# stands outside of a predicate"),
        ("map([1], #acc)", "#acc stands outside of a predicate of reduce"),
        ("reduce([1], map([1], #acc))", "#acc stands outside of a predicate of reduce"),
        ("map([1], #key)", "unknown #key"),
        ("map(#, 1)", "# stands outside of a predicate"),
        ("nothing ?? 1 + 2", "?? and + need parentheses (character 14)"),
        ("9223372036854775808", "the integer does not fit 64 bits"),
        ("1e999", "not a finite number"),
        (r"'\q'", "an escape that stands for no character"),
        (r"'\ud800'", "an escape that stands for no character"),
        (r"'\U00110000'", "an escape that stands for no character"),
        ("'a' matches '('", "this is no pattern, or too large a one (character 13)"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(source, message):
    assert message in str(refused(source))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("bogus", "unknown name bogus (character 1)"),
        ("1 + bogus.a", "unknown name bogus (character 5)"),
        ("'5' == 5", "a string cannot be compared with an int (character 5)"),
        ("inputs.count > 5", "a string cannot be compared with an int (character 14)"),
        ("5 < '5'", "an int cannot be compared with a string"),
        ("true == 1", "a bool cannot be compared with an int"),
        ("true < false", "a bool cannot be compared with a bool"),
        ("[1] == 1", "an array cannot be compared with an int"),
        ("1 + '1'", "+ does not take an int and a string (character 3)"),
        ("'a' - 'b'", "- does not take a string and a string"),
        ("true + 1", "+ does not take a bool and an int"),
        ("nil + 1", "+ does not take nil and an int"),
        ("1.5 % 2", "% does not take a float and an int"),
        ("1 % 0", "division by zero"),
        ("1 / 0", "division by zero"),
        ("1.0 / 0", "division by zero"),
        ("9223372036854775807 + 1", "the integer does not fit 64 bits"),
        ("-9223372036854775807 - 2", "the integer does not fit 64 bits"),
        ("4611686018427387904 * 2", "the integer does not fit 64 bits"),
        ("1e308 * 10", "not a finite number"),
        ("10 ** 400", "not a finite number"),
        ("(-1) ** 0.5", "not a finite number"),
        ("-'a'", "- does not take a string"),
        ("+true", "+ does not take a bool"),
        ("not 1", "not does not take an int"),
        ("1 and true", "and takes true or false, not an int"),
        ("1 ? 2 : 3", "a condition takes true or false, not an int"),
        ("filter([1], #)", "the predicate of filter takes true or false, not an int"),
        ("map(1, #)", "map goes through an array, not an int"),
        ("map({a: 1}, #)", "map goes through an array, not a map"),
        ("count([1])", "counts true and false"),
        ("sum(['a', 1])", "+ does not take"),
        ("reduce([], #)", "reduce of no items needs a value to start with"),
        ("[1][1]", "the index is outside of the 1 there are"),
        ("[1]['a']", "an index is an int, not a string"),
        ("[1][1.0]", "an index is an int, not a float"),
        ("nil.a", "nil has no members"),
        ("1.5.a", "a float has no members"),
        ("inputs.region.a", "an index is an int, not a string"),
        ("1[0:1]", "an int cannot be sliced"),
        ("[1]['a':]", "a slice goes from int to int, not a string"),
        ("{([1]): 1}", "an array cannot be the key of a map"),
        ("{a: 1}[[1]]", "an array cannot be the key of a map"),
        ("1 in 'a'", "in does not take an int and a string"),
        ("'a' in 'abc'", "in does not take a string and a string"),
        ("1 contains 'a'", "contains does not take an int and a string"),
        ("'a' matches 1", "matches does not take a string and an int"),
        ("1 matches 'a'", "matches does not take an int and a string"),
        ("'a' matches lower('(')", "this is no pattern"),
        ("1.5..3", ".. does not take a float and an int"),
        ("len(1)", "len takes a string, an array or a map, not an int"),
        ("upper(nil)", "upper takes a string, not nil"),
        ("repeat('a', -1)", "repeat takes a count that is not negative"),
        ("take([1], -1)", "take takes a count that is not negative"),
        ("join([1])", "join takes a string, not an int"),
        ("max(1, '2')", "max takes a number, not a string"),
        ("sort([1, 'a'])", "an int cannot be compared with a string"),
        ("sort([[1]])", "an array cannot be compared with an array"),
        ("sort([true])", "a bool cannot be compared with a bool"),
        ("sort([1], 'up')", "the order is asc or desc"),
        ("fromPairs([[1]])", "fromPairs takes an array of pairs"),
        ("keys([1])", "keys takes a map, not an array"),
        ("bitshl(1, -1)", "bitshl takes a shift that is not negative"),
        ("bitand(1, 1.5)", "bitand takes an int, not a float"),
        ("randomInt(0)", "randomInt takes an int above 0"),
        ("int('12x')", "cannot read an int from this string"),
        ("int(' 1')", "cannot read an int from this string"),
        ("int('\u0663')", "cannot read an int from this string"),
        ("int(1e300)", "the integer does not fit 64 bits"),
        ("int('9999999999999999999')", "the integer does not fit 64 bits"),
        ("int(true)", "int takes a number, not a bool"),
        ("float('inf')", "cannot read a float from this string"),
        ("float('1e999')", "not a finite number"),
        ("fromJSON('{')", "the string is not JSON"),
        ("fromJSON('NaN')", "the string is not JSON"),
        ("fromJSON('1e999')", "not a finite number"),
        ("fromBase64('?')", "the string is not base64 of a text"),
        ("fromBase64('/w==')", "the string is not base64 of a text"),
        ("date('yesterday')", "this is no date"),
        ("date('2023-02-30')", "this is no date"),
        ("date('2023', '2006 2006')", "the layout names a part of the date twice"),
        ("date('a', 'b', 'Mars/Olympus')", "there is no such time zone"),
        ("date(timezone('UTC'))", "date takes a date, a layout and a time zone"),
        ("date(1)", "date takes a string, not an int"),
        ("duration('1 day')", "this is no duration"),
        ("duration(repeat('1h', 51))", "this is no duration"),
        ("date(repeat('1', 101))", "a date and its layout have at most 100 characters"),
        ("date('1', repeat('1', 101))", "a date and its layout have at most 100 characters"),
        ("now().Format(repeat('2006', 26))", "a layout has at most 100 characters"),
        ("duration('300000h') * 10", "the duration is longer than 292 years"),
        ("date('9999-12-31') + duration('48h')", "the date lies outside the years 1 to 9999"),
        ("now().Bogus()", "a time.Time has no method Bogus"),
        ("now().Format()", "Format takes 1 arguments, not 0"),
        ("now().Format(1)", "Format does not take an int"),
        ("now(1)", "now takes a time zone, not an int"),
        ("now() + 1", "+ does not take a time.Time and an int"),
        ("now() < 1", "a time.Time cannot be compared with an int"),
        ("'a\\x00b'", "the result holds a NUL character"),
        ("fromJSON('\"\\\\ud800\"')", "the text is not valid Unicode"),
        ("fromJSON('\"\\\\ud800\"') matches 'a'", "the text is not valid Unicode (character 23)"),
        ("'a' matches fromJSON('\"\\\\ud800\"')", "the text is not valid Unicode (character 5)"),
        ("toBase64(fromJSON('\"\\\\ud800\"'))", "the text is not valid Unicode (character 1)"),
    ],
)
def test_what_cannot_be_worked_out_is_refused_with_its_place(source, message):
    assert message in str(refused(source))


def test_the_names_an_expression_reads_are_those_no_let_makes():
    source = "let x = tasks.a; map(x, # + y) == [inputs.b, let z = 1; z] ? upper(item.v) : z"
    assert expressions.compile(source).names == {"tasks", "inputs", "y", "item", "z"}
    assert expressions.compile("len('inputs')").names == frozenset()


def test_a_missing_name_at_the_top_is_an_error_even_if_it_is_one_of_the_roots():
    with pytest.raises(ExpressionError, match="unknown name inputs"):
        expressions.compile("inputs.a").evaluate({})


@pytest.mark.parametrize(
    "source",
    [
        "inputs.__class__",
        "'a'.__class__",
        "'a'.upper",
        "'a'.upper()",
        "[].append(1)",
        "{}.items()",
        "{}.get('a')",
        "(1).__class__.__mro__",
        "inputs.__init__.__globals__",
        "now().__class__",
        "now().at",
        "now().__class__()",
        "now().rfc3339()",
        "now().format('2006')",
        "duration('1s').nanoseconds",
        "duration('1s').timedelta()",
        "timezone('UTC').rules",
        "map([1], #.__class__)",
        "len.__class__",
        "__builtins__",
        "__import__('os')",
        "eval('1')",
        "open('/etc/passwd')",
        "get('a', '__class__')",
        "get(now(), '__class__')",
        "now()['__class__']",
        "$env",
    ],
)
def test_nothing_of_python_can_be_reached(source):
    with suppress(ExpressionError):
        assert came_to(source) in (None, "")


def test_objects_of_python_are_no_values():
    class Handle:
        secret = "s3cr3t"

    names = {"x": Handle(), "y": {"x": Handle()}, "z": [Handle()]}
    for source in ("x", "x.secret", "[x]", "string(x)", "x == x", "y", "y.x", "y.x.secret"):
        with pytest.raises(ExpressionError, match="a kind that expressions do not know"):
            expressions.compile(source).evaluate(names)
    for source in ("z", "z[0]", "map(z, #)", "string(z)", "toJSON(y)", "z == z", "sort(z)"):
        with pytest.raises(ExpressionError, match="a kind that expressions do not know"):
            expressions.compile(source).evaluate(names)


@pytest.mark.parametrize(
    "source",
    [
        "int(secrets.token)",
        "secrets.token > 1",
        "secrets.token + 1",
        "date(secrets.token)",
        "duration(secrets.token)",
        "fromJSON(secrets.token)",
        "fromBase64(secrets.token)",
        "timezone(secrets.token)",
        "[1][secrets.token]",
        "nil[secrets.token]",
        "now()[secrets.token]",
        "1 + fromJSON('{\"' + secrets.token + '\": 1}')",
        "'a' matches '(' + secrets.token",
        "sort([1], secrets.token)",
        "max(secrets.token, 1)",
        "{([secrets.token]): 1}",
        "secrets.token ? 1 : 2",
        "secrets.token[100]",
        "now().Format(secrets.token, 1)",
    ],
)
def test_an_error_never_tells_a_value(source):
    names = {"secrets": {"token": "s3cr3t-v4lue"}}
    with pytest.raises(ExpressionError) as caught:
        expressions.compile(source).evaluate(names)
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None
