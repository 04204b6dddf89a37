"""Moments, durations and policies: arithmetic without a database."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jobs.dialects.asyncjobs.openapi import as_dict
from jobs.dialects.asyncjobs.wire.policies import POLICIES, policies_to_wire
from jobs.dialects.asyncjobs.wire.times import (
    parse_duration,
    parse_moment,
    seconds_of,
    seconds_to_ns,
)
from jobs.engine.backoff import Ramp, is_curve, wait

SECOND = 10**9
DOCUMENTED = re.compile(as_dict()["components"]["schemas"]["Duration"]["pattern"])


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("0", 0), ("+0", 0), ("-0", 0), ("0s", 0), ("1ns", 1), ("1us", 1000), ("1µs", 1000),
        ("1μs", 1000), ("1ms", 10**6), ("1s", SECOND), ("1m", 60 * SECOND), ("1h", 3600 * SECOND),
        ("1h30m", 5400 * SECOND), ("1.5h", 5400 * SECOND), (".5s", SECOND // 2), ("1.s", SECOND),
        ("30m1h30m", 7200 * SECOND), ("-1.5s", -1_500_000_000), ("+5s", 5 * SECOND),
        ("0.000000001s", 1), ("0.0000000019s", 1), ("0.1ns", 0), ("1h0m0.000000001s", 3600 * SECOND + 1),
        ("2562047h47m16.854775807s", 2**63 - 1), ("9223372036854775807ns", 2**63 - 1),
        ("0.3333333333333333333h", 1_199_999_999_999),
    ],
)  # fmt: skip
def test_durations_are_whole_nanoseconds(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize(
    "text",
    ["", " ", "1", "s", ".s", "1 s", "1d", "1S", "1h-5m", "--1s", "1e3s", "٣s", "1h ", "1.2.3s",
     "9223372036854775808ns", "2562047h47m16.854775808s", "x" * 1000, "1s" * 200, "not-a-duration"],
)  # fmt: skip
def test_what_is_no_duration(text: str) -> None:
    assert parse_duration(text) is None


@given(st.from_regex(DOCUMENTED) | st.text(alphabet="0123456789.+-hmsnuµ ", max_size=9))
@example("")
def test_the_document_tells_which_texts_are_durations(text: str) -> None:
    is_documented = DOCUMENTED.fullmatch(text) is not None
    if text == "" or parse_duration(text) is not None:
        assert is_documented
    elif len(text) <= 7:
        # A longer one may be out of range.
        assert not is_documented


@given(st.integers(0, 10 * 86400 * SECOND))
def test_a_length_is_the_same_when_it_comes_back(ns: int) -> None:
    assert parse_duration(f"{ns}ns") == ns
    assert seconds_to_ns(seconds_of(ns)) == ns


@given(st.text(alphabet="0123456789.+-hmsnuµ ", max_size=40))
def test_any_text_is_a_duration_or_none(text: str) -> None:
    found = parse_duration(text)
    assert found is None or -(2**63) < found < 2**63


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30)))
def test_a_moment_is_counted_in_nanoseconds(at: datetime) -> None:
    moment = parse_moment(at.strftime("%Y-%m-%dT%H:%M:%S.%f").rjust(26, "0") + "789Z")
    assert moment is not None
    assert moment.at == at.replace(tzinfo=UTC)
    since = moment.at - datetime(1970, 1, 1, tzinfo=UTC)
    micros = (since.days * 86400 + since.seconds) * 10**6 + since.microseconds
    assert moment.ns == micros * 1000 + 789


def test_offsets_are_taken_off() -> None:
    one, other = (
        parse_moment("2026-01-01T02:30:00.5+02:30"),
        parse_moment("2025-12-31T23:00:00.5-01:00"),
    )
    assert one is not None and other is not None
    assert one.ns == other.ns == 1_767_225_600_500_000_000
    assert one.at == other.at == datetime(2026, 1, 1, 0, 0, 0, 500_000, UTC)


def test_the_policies_are_those_of_the_original() -> None:
    told = {policy["name"]: policy for policy in policies_to_wire()}
    assert list(told) == ["10m", "1h", "1m", "default"]
    for name, first, last, steps, jitter in (
        ("default", 60, 589.2, 50, 0.9), ("10m", 60, 589.2, 50, 0.9), ("1h", 600, 3450, 20, 0.9),
        ("1m", 1, 57.05, 20, 0.5),
    ):  # fmt: skip
        intervals = told[name]["intervals"]
        assert all(type(ns) is int for ns in intervals)
        assert (intervals[0], intervals[-1]) == (first * SECOND, round(last * SECOND))
        assert (len(intervals), told[name]["jitter"]) == (steps, jitter)
    assert told["default"]["intervals"][1] == 70_800_000_000


@pytest.mark.parametrize("name", POLICIES)
def test_the_engine_waits_by_the_policy(name: str) -> None:
    policy = POLICIES[name]
    assert is_curve(policy.curve) and str(Ramp.read(policy.curve)) == policy.curve
    for attempts in (1, 2, policy.steps - 1, policy.steps, 100):
        interval = policy.intervals[min(attempts, policy.steps - 1)] / SECOND
        waits = [wait(policy.curve, attempts, 5, 3600) for _ in range(2000)]
        low, high = policy.jitter * interval, (policy.jitter + 1) * interval
        assert low - 1e-6 <= min(waits) < low + 0.05 * interval
        assert high - 0.05 * interval < max(waits) <= high + 1e-6
        assert all(round(seconds, 3) == seconds for seconds in waits)


@pytest.mark.parametrize(
    "curve",
    ["ramp:", "ramp:1,2,3", "ramp:1,2,3,4,5", "ramp:a,1,2,0.5", "ramp:-1,1,2,0.5", "ramp:1,1,0,0.5",
     "ramp:1,1,2,-1", "ramp:1,nan,2,0.5", "ramp:inf,1,2,0.5", "ramp:1,1,1001,0", "ramp:1,1e6,2,9",
     "ramp:1,1,1.5,0", "ramps:1"],
)  # fmt: skip
def test_what_is_no_ramp(curve: str) -> None:
    assert not is_curve(curve)
