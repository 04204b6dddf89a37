"""The line of search words: read, written, and read again as the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from config.problems import InvalidInput
from jobs.api.filters import JobFilter, read_line
from jobs.filter_text import LineError, pairs_of, written
from tests.factories import make_node


@pytest.mark.parametrize(
    ("line", "pairs"),
    [
        ("", []),
        ("  ", []),
        ("state:failed", [("state", "failed")]),
        ("state:failed,ready", [("state", "failed"), ("state", "ready")]),
        (
            "  state:failed   queue:mail\ttag:a,b ",
            [("state", "failed"), ("queue", "mail"), ("tag", "a,b")],
        ),
        ("type:email:new", [("type", "email:new")]),
        ('error:"timed out" queue:a', [("error", "timed out"), ("queue", "a")]),
        (r'error:"say \"no\" \\ here"', [("error", 'say "no" \\ here')]),
        ("args.user.id:123", [("args", "user.id:123")]),
        ('args.to:"a b"', [("args", "to:a b")]),
        ("metadata:customer:7", [("metadata", "customer:7")]),
        ("attempt:>3 since:2h", [("attempt", ">3"), ("since", "2h")]),
        ("error:=cmd", [("error", "=cmd")]),
    ],
)
def test_a_line_is_words_with_values(line, pairs):
    assert pairs_of(line) == pairs
    assert pairs_of(written(pairs)) == pairs


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("failed", "failed"),
        ("state: failed", "state"),
        ("state:", "state"),
        ('error:"', "error"),
        ('error:"half', "error"),
        ('error:"half\\"', "error"),
        ('error:"a"b', "error"),
        (":x", ":x"),
        ('"state:failed"', '"state:failed"'),
        ("queue:mail and", "and"),
    ],
)
def test_what_cannot_be_read_is_said_by_its_word(line, word):
    with pytest.raises(LineError) as caught:
        pairs_of(line)
    assert caught.value.word == word
    with pytest.raises(InvalidInput) as refused:
        read_line(line)
    assert refused.value.errors[0].field == word


@pytest.mark.once
@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("colour:red", "colour"),
        ("state:lost", "state"),
        ("queue:a queue:b", "queue"),
        ("since:soon", "since"),
        ("since:2y", "since"),
        ("since:99999d", "since"),
        ("attempt:many", "attempt"),
        ("attempt:=>3", "attempt"),
        ("args:x", "args"),
        ("args.:x", "args"),
        ("args.a..b:x", "args"),
        ("kind:magic", "kind"),
        ("is_held:maybe", "is_held"),
        ("queue:a\0b", "queue"),
        ("all:true", "all"),
        ("error:" + "x" * 201, "error"),
    ],
)
def test_a_word_that_makes_no_sense_is_said_by_its_name(line, word, alpha):
    with pytest.raises(InvalidInput) as refused:
        read_line(line)
    assert refused.value.errors[0].field.partition("[")[0] == word


def test_every_word_of_the_api_can_be_written_and_read(alpha):
    identifier = "01a20191-868c-7979-8cdf-31c02d86b8b8"
    moment = datetime(2026, 1, 31, 12, tzinfo=UTC)
    words = {
        "state": ["failed", "ready"],
        "queue": "mail",
        "type": 'the "odd" one',
        "kind": "http",
        "tag": "eu",
        "reason": "error",
        "is_held": True,
        "failure": "a" * 16,
        "trigger": "schedule",
        "attempt": ">=3",
        "error": "timed out: 5",
        "args": ["user.id:123", "to:a b"],
        "metadata": ["n:1", 'say:"x"'],
        "unique_key": "k",
        **dict.fromkeys(("schedule", "workflow_run", "copy_of", "node"), identifier),
        **dict.fromkeys(("since", "created_after", "created_before"), moment),
        **dict.fromkeys(("finished_after", "finished_before"), moment),
    }
    assert words.keys() == JobFilter().fields.keys()
    line = written(words)
    assert line.startswith("state:failed state:ready queue:mail type:")
    read = read_line(line)
    assert {word: str(value) for word, value in read.items()} == {
        word: str(value) for word, value in words.items()
    }


def test_since_is_so_long_ago_or_a_moment(alpha):
    before = datetime.now(UTC)
    since = read_line("since:2h")["since"]
    assert before - timedelta(hours=2) <= since <= datetime.now(UTC) - timedelta(hours=2)
    assert read_line("since:2026-01-31T12:00:00Z")["since"] == datetime(2026, 1, 31, 12, tzinfo=UTC)


def test_a_node_may_be_named_by_its_host(alpha):
    one = make_node(host="w3", pid=7)
    make_node("closed", host="w3", pid=8)
    assert str(read_line("node:w3")["node"]) == str(one.pk)
    assert str(read_line(f"node:{one.pk}")["node"]) == str(one.pk)
    make_node(host="w3", pid=9)
    assert str(read_line("node:w3:7")["node"]) == str(one.pk)
    for line, said in (
        ("node:w3", "w3:7 or w3:9"),
        ("node:w4", "no live node"),
        ("node:w3:8", "no live"),
    ):
        with pytest.raises(InvalidInput) as refused:
            read_line(line)
        [error] = refused.value.errors
        assert error.field == "node"
        assert said in error.message
