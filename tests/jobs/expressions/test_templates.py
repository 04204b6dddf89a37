"""Texts with expressions in them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import time_machine

from jobs import expressions
from jobs.expressions import ExpressionError, Template, evaluate_list, is_false, unbraced
from tests.jobs.expressions.cases import NAMES


@pytest.mark.parametrize(
    ("source", "rendered"),
    [
        ("", ""),
        ("no expression", "no expression"),
        ("{{ inputs.region }}", "eu"),
        ("{{inputs.region}}", "eu"),
        ("do {{ item.value }}", "do a"),
        ("part{{ item.index }}-{{ inputs.region }}.", "part0-eu."),
        ("{{ true }} {{ nil }} {{ nothing }}", "true <nil> <nil>"),
        ("{{ 5 }} {{ -5 }}", "5 -5"),
        ("{{ [1, 2] }} {{ [] }} {{ [[1], ['a b', nil]] }}", "[1 2] [] [[1] [a b <nil>]]"),
        ("{{ {b: 2, a: [1]} }} {{ {} }}", "map[a:[1] b:2] map[]"),
        ("{{ 10 / 4 }} {{ 10 / 2 }} {{ 1 / 3 }}", "2.5 5 0.3333333333333333"),
        ("{{ 100000.0 }} {{ 1000000.0 }} {{ 1234567.5 }}", "100000 1e+06 1.2345675e+06"),
        ("{{ 0.0001 }} {{ 0.00001 }} {{ -1.5e300 }}", "0.0001 1e-05 -1.5e+300"),
        ("{{ 0.0 }} {{ -0.0 }} {{ 100.0 }} {{ 0.1 + 0.2 }}", "0 -0 100 0.30000000000000004"),
        ("{{ duration('90s') }}", "1m30s"),
        ("{{ date('2023-08-14') }}", "2023-08-14 00:00:00 +0000 UTC"),
        ("{{ fromJSON(inputs.items) }}", "[a b]"),
        ("{{ inputs }}", 'map[count:3 items:["a","b"] lines:a\nb\nc region:eu]'),
        ("{{ {a: {b: 1} } }}", "map[a:map[b:1]]"),
        ("a {{ 'x\n{{ 1 }}", "a {{ 'x\n1"),
        ("{{ 1\n }} {{ 2 }}", "{{ 1\n }} 2"),
        ("{{}} { {1} } {{ 1 }", "{{}} { {1} } {{ 1 }"),
        ("}}{{ 1 }}}}", "}}1}}"),
        ("{{ inputs.missing }}|", "|"),
        ("{{ '\u00e9' }}", "\u00e9"),
    ],
)
def test_expressions_are_replaced_by_the_text_of_their_values(source, rendered):
    assert Template.parse(source).render(NAMES) == rendered


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("{{ inputs.region }}", "eu"),
        ("{{ [1, {a: nil}] }}", [1, {"a": None}]),
        ("{{ 10 / 2 }}", 5),
        ("{{ tasks.rows }}", [3, 1, 2]),
        ("{{ date('2023-08-14') }}", "2023-08-14T00:00:00Z"),
        ("{{ groupBy([1, 2], # > 1) }}", {"false": [1], "true": [2]}),
        (" {{ 5 }}", " 5"),
        ("{{ 5 }}{{ 6 }}", "56"),
        ("five", "five"),
        ("", ""),
    ],
)
def test_a_text_that_is_one_expression_has_its_value(source, value):
    found = Template.parse(source).value(NAMES)
    assert found == value
    assert type(found) is type(value)


def test_whole_floats_leave_as_integers_while_they_are_exact():
    assert str(expressions.compile("[5.0, 2 ** 52, 2 ** 60, 1e300]").evaluate({})) == (
        "[5, 4503599627370496, 1.152921504606847e+18, 1e+300]"
    )


def test_a_template_tells_its_names_and_whether_it_is_plain():
    template = Template.parse("{{ inputs.a }} and {{ item.value + tasks.b }}")
    assert template.names == {"inputs", "item", "tasks"}
    assert not template.is_plain
    assert Template.parse("a } } b {{").is_plain
    assert Template.parse("a").names == frozenset()


def test_every_block_is_read_when_the_text_is():
    with pytest.raises(ExpressionError, match=r"unexpected b \(character 18\)"):
        Template.parse("{{ 1 }} and {{ b b }}")
    with pytest.raises(ExpressionError, match="there is no expression"):
        Template.parse("{{ 1 }} {{ }}")


def test_what_fails_tells_its_place_in_the_text():
    for source, place in (("and {{ inputs.region + 1 }}", 22), ("{{ inputs.region + 1 }}", 18)):
        template = Template.parse(source)
        for work in (template.render, template.value):
            with pytest.raises(ExpressionError, match=rf"\(character {place}\)$") as caught:
                work(NAMES)
            assert source[caught.value.position] == "+"


def test_a_text_without_expressions_may_be_long_and_hold_anything():
    text = "a \0 }}" * 100_000
    assert Template.parse(text).render({}) is text


@pytest.mark.parametrize("source", ["[1, 2]", "{{ [1, 2] }}", " {{[1, 2]}} ", "{{ 1..2 }}"])
def test_a_list_is_written_with_or_without_braces(source):
    assert evaluate_list(source, {}) == [1, 2]


@pytest.mark.parametrize(
    "source", ["5", "{{ 'a' }}", "{{ nil }}", "{{ {a: [1]} }}", "inputs.items"]
)
def test_what_is_no_list_is_refused(source):
    with pytest.raises(ExpressionError, match="does not evaluate to a list"):
        evaluate_list(source, NAMES)


@pytest.mark.parametrize("source", ["{{ [1] }} {{ [2] }}", "a {{ [1] }}", "", "{{ [1]"])
def test_a_list_is_one_expression(source):
    with pytest.raises(ExpressionError):
        evaluate_list(source, {})


def test_an_expression_comes_out_of_its_braces():
    assert unbraced("{{ job.State == 'FAILED' }}").evaluate(NAMES) is True
    assert unbraced("job.State == 'FAILED'").names == {"job"}
    assert unbraced("{a: 1}").evaluate({}) == {"a": 1}


def test_only_the_word_false_says_no():
    assert is_false("false")
    assert is_false(" false\n")
    assert not any(map(is_false, ("", "False", "0", "no", "true", "false false", "'false'")))


def test_now_is_one_clock():
    with time_machine.travel(datetime(2025, 3, 30, 1, 30, tzinfo=UTC), tick=False):
        shown = Template.parse("{{ now().In(timezone('Europe/Berlin')) }}").render({})
    assert shown == "2025-03-30 03:30:00 +0200 CEST"


def test_equal_expressions_are_read_once():
    assert expressions.compile("1 + 41") is expressions.compile("1 + 41")
