"""Cron where clocks are changed: by hand, and against a minute-by-minute oracle."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.cron import parse
from jobs.zones import zone
from tests.jobs.cron_comparison import Comparison
from tests.jobs.cron_oracle import EXPRESSIONS, ZONES, each_week, walk

SEED = 20_260_329
WEEKS = 24
EXPRESSIONS_EACH = 25

BERLIN, NEW_YORK, SANTIAGO = "Europe/Berlin", "America/New_York", "America/Santiago"
LORD_HOWE, CASABLANCA, CAIRO = "Australia/Lord_Howe", "Africa/Casablanca", "Africa/Cairo"
TROLL, APIA = "Antarctica/Troll", "Pacific/Apia"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_there_are_two_hundred_expressions_and_eight_zones_to_compare():
    assert len(set(EXPRESSIONS)) == 200
    assert set(Counter(name for name, _ in each_week())) == set(ZONES)


def test_some_weeks_of_all_zones_agree_with_the_oracle():
    """The whole of it is tests/faults/test_long_schedules_dst.py."""
    randomly = Random(SEED)
    comparison = Comparison()
    by_zone = {name: [] for name in ZONES}
    for name, monday in each_week():
        by_zone[name].append(monday)
    for name in ZONES:
        for monday in randomly.sample(by_zone[name], WEEKS // len(ZONES)):
            week = walk(name, monday)
            for expression in randomly.sample(EXPRESSIONS, EXPRESSIONS_EACH):
                comparison.week(week, expression, randomly)
    assert comparison.differences == []
    assert comparison.compared > 50_000


# Clocks: Berlin 2026-03-29 02:00 -> 03:00 at 01:00Z, 2026-10-25 03:00 -> 02:00 at 01:00Z.
# expression, zone, after, the next ones
BY_HAND = [
    # fixed, in a gap: the first valid instant after it
    ("30 2 * * *", BERLIN, "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:30"]),
    ("0 2 * * *", BERLIN, "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:00"]),
    ("59 2 * * *", BERLIN, "2026-03-29T00:59:59.999999", ["2026-03-29T01:00", "2026-03-30T00:59"]),
    ("30 2 29 3 *", BERLIN, "2026-01-01T00:00", ["2026-03-29T01:00", "2027-03-29T00:30"]),
    # several that land there are one, together with what is due there anyway
    ("0,15,30,45 2 * * *", BERLIN, "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-30T00:00"]),
    (
        "0,30 2,3 * * *",
        BERLIN,
        "2026-03-28T12:00",
        ["2026-03-29T01:00", "2026-03-29T01:30", "2026-03-30T00:00"],
    ),
    # the cursor at the gap's end, and just after
    ("30 2 * * *", BERLIN, "2026-03-29T01:00", ["2026-03-30T00:30"]),
    ("30 2 * * *", BERLIN, "2026-03-29T01:00:00.000001", ["2026-03-30T00:30"]),
    ("30 2 * * *", BERLIN, "2026-03-29T01:30", ["2026-03-30T00:30"]),
    # fixed, in a fold: the first pass alone
    ("30 2 * * *", BERLIN, "2026-10-24T12:00", ["2026-10-25T00:30", "2026-10-26T01:30"]),
    ("30 2 * * *", BERLIN, "2026-10-25T00:30", ["2026-10-26T01:30"]),
    ("0 3 * * *", BERLIN, "2026-10-24T12:00", ["2026-10-25T02:00", "2026-10-26T02:00"]),
    ("0-59 2 25 10 *", BERLIN, "2026-10-25T00:58:30", ["2026-10-25T00:59", "2027-10-25T00:00"]),
    # the cursor in the second pass
    ("30 2 * * *", BERLIN, "2026-10-25T01:15", ["2026-10-26T01:30"]),
    ("45 2,3 * * *", BERLIN, "2026-10-25T01:15:30", ["2026-10-25T02:45", "2026-10-26T01:45"]),
    # wildcards: nothing in a gap, both passes of a fold
    ("*/30 2 * * *", BERLIN, "2026-03-28T12:00", ["2026-03-30T00:00", "2026-03-30T00:30"]),
    (
        "*/30 2 * * *",
        BERLIN,
        "2026-10-24T12:00",
        ["2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30"],
    ),
    ("30 * * * *", BERLIN, "2026-10-25T00:30", ["2026-10-25T01:30", "2026-10-25T02:30"]),
    ("30 * * * *", BERLIN, "2026-03-29T00:30", ["2026-03-29T01:30"]),
    ("0 */2 * * *", BERLIN, "2026-03-28T23:30", ["2026-03-29T02:00"]),
    ("0 */2 * * *", BERLIN, "2026-10-24T23:30", ["2026-10-25T00:00", "2026-10-25T01:00"]),
    # a range is no star
    ("0 0-23 * * *", BERLIN, "2026-10-25T00:00", ["2026-10-25T02:00"]),
    ("30 1 * * *", NEW_YORK, "2026-11-01T05:00", ["2026-11-01T05:30", "2026-11-02T06:30"]),
    ("30 2 * * *", NEW_YORK, "2026-03-08T00:00", ["2026-03-08T07:00", "2026-03-09T06:30"]),
    # Santiago loses the hour after midnight, and shows the one before it twice
    ("0 0 * * *", SANTIAGO, "2026-09-05T12:00", ["2026-09-06T04:00", "2026-09-07T03:00"]),
    ("*/30 0 * * *", SANTIAGO, "2026-09-05T12:00", ["2026-09-07T03:00"]),
    ("30 23 * * *", SANTIAGO, "2026-04-04T12:00", ["2026-04-05T02:30", "2026-04-06T03:30"]),
    ("30 * * * *", SANTIAGO, "2026-04-05T02:00", ["2026-04-05T02:30", "2026-04-05T03:30"]),
    # Cairo's days begin at one, once a year
    ("15 0 * * *", CAIRO, "2026-04-23T12:00", ["2026-04-23T22:00", "2026-04-24T21:15"]),
    # half an hour on Lord Howe: 02:00 -> 02:30 and 02:00 -> 01:30
    ("15 2 * * *", LORD_HOWE, "2026-10-03T12:00", ["2026-10-03T15:30", "2026-10-04T15:15"]),
    ("45 1 * * *", LORD_HOWE, "2026-04-04T12:00", ["2026-04-04T14:45", "2026-04-05T15:15"]),
    (
        "*/15 1 * * *",
        LORD_HOWE,
        "2026-04-04T14:15",
        ["2026-04-04T14:30", "2026-04-04T14:45", "2026-04-04T15:00", "2026-04-04T15:15"],
    ),
    # two hours at Troll: 01:00 -> 03:00 and 03:00 -> 01:00
    ("30 1,2 * * *", TROLL, "2026-03-28T12:00", ["2026-03-29T01:00", "2026-03-29T23:30"]),
    ("30 1,2 * * *", TROLL, "2026-10-24T22:00", ["2026-10-24T23:30", "2026-10-25T00:30"]),
    ("30 1,2 * * *", TROLL, "2026-10-25T00:30", ["2026-10-26T01:30"]),
    ("30 * * * *", TROLL, "2026-10-25T00:30", ["2026-10-25T01:30", "2026-10-25T02:30"]),
    # Samoa had no 30 December 2011
    ("0 12 * * *", APIA, "2011-12-29T12:00", ["2011-12-29T22:00", "2011-12-30T10:00"]),
    ("30 9 30 12 *", APIA, "2011-12-01T00:00", ["2011-12-30T10:00", "2012-12-29T19:30"]),
    ("0 0 30,31 12 *", APIA, "2011-12-01T00:00", ["2011-12-30T10:00", "2012-12-29T10:00"]),
    ("0 * 30 12 *", APIA, "2011-12-01T00:00", ["2012-12-29T10:00"]),
    ("0 * * * *", APIA, "2011-12-30T09:00", ["2011-12-30T10:00", "2011-12-30T11:00"]),
    # Casablanca goes back for Ramadan (2026-02-15 03:00 -> 02:00) and on again (03-22 02:00)
    ("30 2 * * *", CASABLANCA, "2026-02-14T12:00", ["2026-02-15T01:30", "2026-02-16T02:30"]),
    ("30 2 * * *", CASABLANCA, "2026-03-21T12:00", ["2026-03-22T02:00", "2026-03-23T01:30"]),
]


@pytest.mark.parametrize(("expression", "name", "after", "expected"), BY_HAND)
def test_by_hand(expression, name, after, expected):
    cron, moment, found = parse(expression), at(after), []
    for _ in expected:
        moment = cron.next_after(moment, zone(name))
        found.append(moment)
    assert found == [at(text) for text in expected]


@pytest.mark.parametrize(
    ("expression", "name", "after", "expected"),
    [
        ("30 2 * * *", BERLIN, "2026-03-28T12:00", "2026-03-30T00:30"),
        ("0,30 2,3 * * *", BERLIN, "2026-03-28T12:00", "2026-03-29T01:00"),
        ("0 0 * * *", SANTIAGO, "2026-09-05T12:00", "2026-09-07T03:00"),
        ("30 9 30 12 *", APIA, "2011-12-01T00:00", "2012-12-29T19:30"),
        ("30 2 * * *", BERLIN, "2026-10-24T12:00", "2026-10-25T00:30"),
    ],
)
def test_what_a_gap_swallows_can_be_skipped(expression, name, after, expected):
    assert parse(expression).next_after(at(after), zone(name), "skip") == at(expected)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(EXPRESSIONS),
    st.sampled_from([*ZONES, "UTC", "America/St_Johns", "Asia/Kathmandu"]),
    st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1)),
    st.timedeltas(timedelta(0), timedelta(days=3)),
    st.sampled_from(["fire", "skip"]),
)
def test_the_next_instant_is_later_and_never_passes_one_by(expression, name, naive, ahead, gap):
    cron, where, moment = parse(expression), zone(name), naive.replace(tzinfo=UTC)
    first = cron.next_after(moment, where, gap)
    if first is None:
        # `0 2 * 3 0#2` in New York is when the clock goes forward there, each year since 2007.
        assert gap == "skip"
        return
    assert first > moment
    second = cron.next_after(moment + ahead, where, gap)
    # Asked later, the answer is the same or a later one; and what lies between was not passed by.
    assert second == first if moment + ahead < first else second is None or second > first
    assert cron.next_after(first - timedelta(microseconds=1), where, gap) == first
