from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.fingerprints import (
    MAX_FRAME,
    MAX_MESSAGE,
    fingerprint,
    normalised,
    own_frame,
    parts,
)

TRACE = """Traceback (most recent call last):
  File "/srv/shop/mail/tasks.py", line 33, in send
    connection.send(letter)
  File "/usr/lib/python3.11/smtplib.py", line 398, in send
    raise SMTPServerDisconnected("please run connect() first")
  File "/srv/venv/lib/python3.12/site-packages/letters/post.py", line 7, in deliver
    raise Broken
ValueError: please run connect() first
"""


@pytest.mark.parametrize(
    ("message", "marked"),
    [
        ("list index out of range", "list index out of range"),
        ("user 4711 has -3 of 1,200.50", "user <number> has -<number> of <number>"),
        ("job 0190a1b2-0000-7000-8000-0000000000AF is gone", "job <uuid> is gone"),
        ("no cus_9s6XKzkNRiz8i3", "no <id>"),
        ("at 0x7f12ab and commit deadbeef01", "at <hex> and commit <hex>"),
        ("10.1.2.3:5432 refused, fe80::1 too", "<address> refused, <address> too"),
        ("[Errno 2] No such file: '/tmp/a b/c'", "[Errno 2] No such file: <text>"),
        ("cannot open /tmp/a-b/c.txt", "cannot open <path>"),
        (r"cannot open C:\work\a.txt", "cannot open <path>"),
        ("see https://a.example/b?c=4, please", "see <url>, please"),
        ("since 2026-01-31T12:00:00.5Z and 2026-01-31", "since <time> and <time>"),
        ("bob.x@example.com is full", "<email> is full"),
        ('key "a" of `b`', "key <text> of <text>"),
        ("can't open the user's file", "can't open the user's file"),
        ("example.com answered 503", "example.com answered 503"),
        ("exit code 3: line 7", "exit code 3: line <number>"),
        ("killed by SIGKILL", "killed by SIGKILL"),
        ("", ""),
    ],
)
def test_what_differs_from_job_to_job_is_marked(message, marked):
    assert normalised(message) == marked


def test_failures_that_differ_only_in_what_is_marked_are_alike():
    one = fingerprint("ValueError", "order 17 of 'anna' at 10.0.0.1", TRACE)
    other = fingerprint("ValueError", "order 9 of 'bob' at 10.0.0.2", TRACE)
    assert one == other
    assert len(one) == 16
    assert set(one) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    ("error_type", "error", "trace"),
    [
        ("KeyError", "order 17", TRACE),
        ("ValueError", "invoice 17", TRACE),
        ("ValueError", "order 17", TRACE.replace("in send", "in resend")),
        ("ValueError", "order 17", None),
    ],
)
def test_type_message_and_place_each_tell_failures_apart(error_type, error, trace):
    assert fingerprint(error_type, error, trace) != fingerprint("ValueError", "order 17", TRACE)


@pytest.mark.parametrize("status", [404, 500, 503])
def test_the_status_of_an_answer_tells_failures_apart(status):
    others = {404, 500, 503} - {status}
    mine = fingerprint("HttpStatus", f"example.com answered {status}", None)
    assert all(
        mine != fingerprint("HttpStatus", f"example.com answered {other}", None) for other in others
    )


def test_the_place_is_the_innermost_frame_that_is_not_of_a_library():
    assert own_frame(TRACE) == "mail/tasks.py:send"
    assert own_frame(TRACE.replace("/srv/shop/mail", "/usr/lib/python3.11")) == ""
    assert own_frame("no trace at all") == ""


def test_an_edit_above_the_place_and_another_release_directory_split_no_group():
    edited = TRACE.replace("line 33", "line 40").replace("/srv/shop/", "/srv/releases/7/")
    assert fingerprint("E", "x", edited) == fingerprint("E", "x", TRACE)


def test_of_chained_exceptions_the_last_one_counts():
    first = TRACE.replace("mail/tasks.py", "mail/other.py").replace("in send", "in other")
    chained = f"{first}\nDuring handling of the above exception, another occurred:\n\n{TRACE}"
    assert own_frame(chained) == "mail/tasks.py:send"


def test_a_real_exception_of_a_handler_is_placed_in_it():
    import json
    import traceback

    def handler():
        json.loads("{")

    try:
        handler()
    except ValueError:
        trace = traceback.format_exc()
    assert own_frame(trace) == "jobs/test_fingerprints.py:handler"


def test_only_the_first_line_of_a_message_counts():
    assert parts("E", "\n  deadlock detected\nDETAIL: process 7", None).message == (
        "deadlock detected"
    )


texts = st.none() | st.text() | st.text(alphabet="a1'\"/\\@:.-_ \n", max_size=3000)


@given(texts, texts, texts)
def test_nothing_makes_it_fail_and_all_parts_fit_their_columns(error_type, error, trace):
    assert len(fingerprint(error_type, error, trace)) == 16
    found = parts(error_type, error, trace)
    assert len(found.error_type) <= 200
    assert len(found.message) <= MAX_MESSAGE
    assert len(found.frame) <= MAX_FRAME


@given(st.text())
def test_a_lone_surrogate_is_taken_too(text):
    assert fingerprint("\ud800" + text, text + "\udfff", "\ud800")


PIECES = ["a", "1", "'", "a@", "/", "a.", "1:", "::", "f1", "1.", "aaa1", "\\", "http", "status ",
          "'a", "a-", "a://", "1-", "\n", " ", "C:", "0x", '"', "`", "1_", '  File "', "  File \"/",
          '  File "/a", line 1, in b\n', "Traceback (most recent call last):\n"]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
def test_hostile_text_takes_no_longer_than_a_few_milliseconds(piece):
    hostile = piece * (100_000 // len(piece))
    best = 1.0
    for _ in range(3):
        normalised.cache_clear()
        started = time.process_time()
        fingerprint(hostile, hostile, hostile)
        best = min(best, time.process_time() - started)
    assert best < 0.01


def test_a_common_failure_takes_microseconds():
    best = 1.0
    for _ in range(20):
        normalised.cache_clear()
        started = time.process_time()
        for number in range(100):
            fingerprint("ValueError", f"order {number} is closed", TRACE)
        best = min(best, (time.process_time() - started) / 100)
    assert best < 0.000_1  # some 20 µs on an idle machine
