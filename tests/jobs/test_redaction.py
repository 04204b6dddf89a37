"""Secret values are found however they are written, and in whatever pieces they come."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote, quote_plus

import pytest

from jobs.engine.output import LINE_BYTES, BoundedOutput
from jobs.redaction import REDACTED, RedactedStream, Redaction

SECRET = 'p"a/s s\\w+örd&7'


@pytest.mark.parametrize(
    "written",
    [
        SECRET,
        json.dumps(SECRET)[1:-1],
        json.dumps(SECRET, ensure_ascii=False)[1:-1],
        repr(SECRET)[1:-1],
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        re.sub("%..", lambda escape: escape.group().lower(), quote(SECRET, safe="")),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode(),
    ],
)
def test_a_secret_is_found_in_every_form(written: str) -> None:
    assert Redaction([SECRET]).text(f"before {written} after") == f"before {REDACTED} after"


@pytest.mark.parametrize("before", ["", "u", "us", "use", "user:"])
@pytest.mark.parametrize("after", ["", "x", "xy", "xyz"])
def test_a_secret_within_base64_is_found_wherever_it_stands(before: str, after: str) -> None:
    secret = "correct-horse-battery"
    encoded = base64.b64encode(f"{before}{secret}{after}".encode()).decode()
    shown = Redaction([secret]).text(encoded)
    assert REDACTED in shown
    # What is left on either side holds no whole character of it.
    assert all(len(part) <= len(before) * 2 + 8 for part in shown.split(REDACTED))


def test_secrets_that_overlap_are_replaced_as_one() -> None:
    assert Redaction(["abcdef", "defghi"]).text("xabcdefghix") == f"x{REDACTED}x"


def test_the_mark_itself_is_not_looked_into() -> None:
    assert Redaction(["REDACTED", "word"]).text("a word") == f"a {REDACTED}"


def test_each_line_of_a_long_secret_counts() -> None:
    key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----\n"
    assert Redaction([key]).text("got MIIEvQIBADANBg!") == f"got {REDACTED}!"


def test_short_values_are_left_alone() -> None:
    assert Redaction(["abc"]).text("abc") == "abc"


def test_values_are_replaced_at_every_depth_in_names_and_as_numbers() -> None:
    redaction = Redaction(["geheim", "48151623"])
    value = {"a": ["geheim", {"x-geheim": 48151623}], "n": 4, "t": True}
    assert redaction.value(value) == {
        "a": [REDACTED, {f"x-{REDACTED}": REDACTED}],
        "n": 4,
        "t": True,
    }


@pytest.mark.parametrize("size", range(1, 12))
def test_a_stream_in_any_pieces_shows_the_same(size: int) -> None:
    text = "abc hunter22 hunter2 hunhunter22ter22 end hunter2"
    redaction = Redaction(["hunter22", "ter22 end"])
    stream = RedactedStream(redaction)
    shown = "".join(stream.feed(text[at : at + size]) for at in range(0, len(text), size))
    assert shown + stream.close() == redaction.text(text)


def test_lines_are_cut_after_secrets_were_taken_out() -> None:
    lines: list[str] = []
    output = BoundedOutput(lambda stream, level, text: lines.append(text), Redaction(["topsecret"]))
    output.write("stdout", "x" * (LINE_BYTES - 4) + "topsecret" + "y" * 10 + "\n")
    output.write("stdout", "top")
    output.write("stdout", "secret")
    output.close()
    assert "secr" not in "".join(lines)
    assert "".join(lines).count(REDACTED) == 2


def test_what_may_begin_a_secret_waits_and_other_lines_do_not() -> None:
    lines: list[str] = []
    output = BoundedOutput(lambda stream, level, text: lines.append(text), Redaction(["topsecret"]))
    output.write("stdout", "first\n")
    assert lines == ["first"]
    output.write("stdout", "second\ntop")
    assert lines == ["first", "second"]


@pytest.mark.parametrize("kept", range(6, 17))
def test_of_a_secret_that_was_cut_in_two_neither_piece_is_seen(kept: int) -> None:
    secret = "Q7-canary-of-24-chars-XY"
    redaction = Redaction([secret])
    assert redaction.clipped("it said " + secret[:kept]) == f"it said {REDACTED}"
    assert redaction.clipped(secret[-kept:] + " it said") == f"{REDACTED} it said"
    assert redaction.clipped(f"a {secret} b") == f"a {REDACTED} b"
    long = "x" * 2000 + secret[:kept]
    assert redaction.value({"body": long})["body"] == "x" * 2000 + REDACTED


def test_what_only_looks_like_a_piece_is_left_alone() -> None:
    redaction = Redaction(["hunter22"])
    for text in ("the hunt", "a hunter2x", "ter22 x", ""):
        assert redaction.clipped(text) == text
