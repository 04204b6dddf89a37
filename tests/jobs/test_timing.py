from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import InvalidSchedule
from jobs.exclusions import Exclusions
from jobs.timing import (
    Missed,
    Rule,
    check,
    excluded_between,
    missed,
    next_due,
    spread_offset,
    upcoming,
)
from jobs.zones import zone
from tests.jobs.test_exclusions import exclusions_of_any_kind


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


NOW = at("2026-11-22T12:00")
MICROSECOND = timedelta(microseconds=1)
EVERY_DAY = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"]
DAILY = Rule("cron", expression="0 7 * * *", timezone="Europe/Berlin")
MINUTELY = Rule("cron", expression="* * * * *", timezone="Europe/Berlin")
HOURLY = Rule("interval", interval_seconds=3600, anchor_at=at("2026-01-01T00:20"))
ONCE = Rule("once", run_at=at("2026-12-01T07:00"))


def but(rule: Rule, **document: object) -> Rule:
    return replace(rule, exclusions=Exclusions.parse(document))


def walked(rule: Rule, after: datetime, until: datetime) -> list[datetime]:
    """Instants one by one: the raw ones, each judged by itself."""
    raw = replace(rule, exclusions=Exclusions())
    found, moment = [], next_due(raw, after)
    while moment is not None and moment <= until:
        found.append(moment)
        moment = next_due(raw, moment)
    return found


# -- Refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "code", "field"),
    [
        (replace(DAILY, expression="0 7 * *"), "invalid_cron", "expression"),
        (replace(DAILY, expression="0 0 30 2 *"), "invalid_cron", "expression"),
        (replace(DAILY, expression=None), "invalid", "expression"),
        # always in the gap
        (
            Rule("cron", expression="0 2 * 3 0#2", timezone="America/New_York", gap="skip"),
            "invalid",
            "expression",
        ),
        (replace(DAILY, timezone="Europe/Atlantis"), "invalid_timezone", "timezone"),
        (replace(DAILY, gap="both"), "invalid", "gap"),
        (replace(DAILY, timing="hourly"), "invalid", "timing"),
        (
            replace(DAILY, starts_at=at("2027-01-01"), ends_at=at("2026-12-01")),
            "invalid",
            "ends_at",
        ),
        (
            replace(DAILY, starts_at=at("2027-01-01"), ends_at=at("2027-01-01")),
            "invalid",
            "ends_at",
        ),
        (replace(DAILY, ends_at=at("2026-11-22T12:00")), "invalid", "ends_at"),
        (replace(DAILY, ends_at=at("2026-11-23T06:00")), "invalid", "ends_at"),
        (replace(DAILY, starts_at=datetime(2027, 1, 1)), "invalid", "starts_at"),
        (replace(DAILY, starts_at=at("9998-01-01")), "invalid", "starts_at"),
        (replace(HOURLY, interval_seconds=None), "invalid", "interval_seconds"),
        (replace(HOURLY, interval_seconds=0), "invalid", "interval_seconds"),
        (replace(HOURLY, interval_seconds=0.999), "invalid", "interval_seconds"),
        (replace(HOURLY, interval_seconds=-60), "invalid", "interval_seconds"),
        (replace(HOURLY, interval_seconds=10 * 366 * 86_400), "invalid", "interval_seconds"),
        (replace(HOURLY, interval_seconds=float("nan")), "invalid", "interval_seconds"),
        (replace(HOURLY, interval_seconds=float("inf")), "invalid", "interval_seconds"),
        (replace(HOURLY, interval_seconds=True), "invalid", "interval_seconds"),
        (replace(HOURLY, interval_seconds="60"), "invalid", "interval_seconds"),
        (replace(HOURLY, anchor_at=datetime(2026, 1, 1)), "invalid", "anchor_at"),
        (replace(ONCE, run_at=None), "invalid", "run_at"),
        (replace(ONCE, run_at=NOW), "invalid", "run_at"),
        (replace(ONCE, run_at=at("2026-11-22T11:59")), "invalid", "run_at"),
        (replace(ONCE, run_at=at("0001-01-01")), "invalid", "run_at"),
        (replace(ONCE, ends_at=at("2026-12-01T07:00")), "invalid", "ends_at"),
        (replace(ONCE, starts_at=at("2026-12-01T07:01")), "invalid", "run_at"),
        (but(ONCE, dates=["2026-12-01"]), "invalid", "run_at"),
        (but(DAILY, days_of_week=EVERY_DAY), "invalid", "exclusions"),
        (but(DAILY, time_ranges=[{"start": "06:30", "end": "07:01"}]), "invalid", "exclusions"),
        (but(HOURLY, days_of_week=EVERY_DAY), "invalid", "exclusions"),
        (
            but(
                replace(HOURLY, interval_seconds=86_400),
                time_ranges=[{"start": "00:00", "end": "01:00"}],
            ),
            "invalid",
            "exclusions",
        ),
        (
            but(replace(DAILY, ends_at=at("2026-11-24")), dates=["2026-11-23"]),
            "invalid",
            "exclusions",
        ),
    ],
)
def test_a_rule_that_cannot_be_kept_is_refused(rule, code, field):
    with pytest.raises(InvalidSchedule) as refused:
        check(rule, NOW)
    assert (refused.value.code, refused.value.field) == (code, field)


@pytest.mark.parametrize(
    "rule",
    [
        DAILY,
        MINUTELY,
        HOURLY,
        ONCE,
        replace(ONCE, run_at=at("2099-01-01")),
        replace(HOURLY, anchor_at=None),
        replace(HOURLY, interval_seconds=1),
        replace(HOURLY, interval_seconds=10 * 365 * 86_400),
        replace(DAILY, starts_at=at("2090-01-01")),
        replace(DAILY, ends_at=at("2026-11-23T06:00:00.000001")),
        Rule("cron", expression="@every 90m"),
        but(DAILY, days_of_week=EVERY_DAY[:6]),
        # What belongs to another timing is not looked at.
        replace(DAILY, interval_seconds=0, run_at=at("1999-01-01")),
    ],
)
def test_a_rule_that_can_be_kept_is_taken(rule):
    check(rule, NOW)


def test_a_schedule_that_is_over_may_stay_as_it_is():
    check(replace(ONCE, run_at=at("2026-01-01")), NOW, must_lie_ahead=False)
    check(replace(DAILY, ends_at=at("2026-01-01")), NOW, must_lie_ahead=False)
    with pytest.raises(InvalidSchedule):
        check(but(DAILY, days_of_week=EVERY_DAY), NOW, must_lie_ahead=False)


def test_an_interval_without_an_anchor_has_no_instants():
    with pytest.raises(InvalidSchedule) as refused:
        next_due(replace(HOURLY, anchor_at=None), NOW)
    assert refused.value.field == "anchor_at"


# -- The next instant ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "after", "expected"),
    [
        (DAILY, "2026-11-22T12:00", "2026-11-23T06:00"),
        (DAILY, "2026-11-23T06:00", "2026-11-24T06:00"),
        (ONCE, "2026-11-22T12:00", "2026-12-01T07:00"),
        (ONCE, "2026-12-01T07:00", None),
        (replace(ONCE, run_at=at("2099-01-01")), "2026-11-22", "2099-01-01"),
        # intervals: the anchor plus whole steps of elapsed time, the first a step later
        (HOURLY, "2025-06-01T00:00", "2026-01-01T01:20"),
        (HOURLY, "2026-01-01T00:20", "2026-01-01T01:20"),
        (HOURLY, "2026-01-01T01:20", "2026-01-01T02:20"),
        (HOURLY, "2026-01-01T01:19:59.999999", "2026-01-01T01:20"),
        # a day is 24 hours, also where the clock is changed
        (
            Rule(
                "interval",
                interval_seconds=86_400,
                anchor_at=at("2026-03-28T06:00"),
                timezone="Europe/Berlin",
            ),
            "2026-03-28T06:00",
            "2026-03-29T06:00",
        ),
        (
            Rule("cron", expression="@every 90m", anchor_at=at("2026-01-01T00:00:00.250000")),
            "2026-01-01T02:00",
            "2026-01-01T03:00:00.250000",
        ),
        # from starts_at on, until before ends_at
        (replace(DAILY, starts_at=at("2026-12-01T06:00")), "2026-11-22T12:00", "2026-12-01T06:00"),
        (replace(DAILY, starts_at=at("2026-12-01T06:01")), "2026-11-22T12:00", "2026-12-02T06:00"),
        (replace(DAILY, ends_at=at("2026-11-24T06:00")), "2026-11-22T12:00", "2026-11-23T06:00"),
        (replace(DAILY, ends_at=at("2026-11-24T06:00")), "2026-11-23T06:00", None),
        (replace(HOURLY, starts_at=at("2026-05-01")), "2026-01-01T01:20", "2026-05-01T00:20"),
        # exclusions, by the clock in Berlin
        (but(DAILY, dates=["2026-11-23"]), "2026-11-22T12:00", "2026-11-24T06:00"),
        (but(DAILY, days_of_week=["Sat", "Sun"]), "2026-11-20T12:00", "2026-11-23T06:00"),
        (
            but(MINUTELY, time_ranges=[{"start": "22:00", "end": "06:00"}]),
            "2026-11-22T20:59",
            "2026-11-23T05:00",
        ),
        (
            but(replace(HOURLY, interval_seconds=1), days_of_week=EVERY_DAY[:6]),
            "2026-11-22T23:59:59",
            "2026-11-29T00:00:00",
        ),
        (
            but(replace(DAILY, ends_at=at("2026-11-24")), dates=["2026-11-23"]),
            "2026-11-22T12:00",
            None,
        ),
        # 29 February 2028 is a Tuesday, that of 2032 a Sunday
        (
            but(replace(DAILY, expression="0 7 29 2 *"), days_of_week=["Tue"]),
            "2026-11-22T12:00",
            "2032-02-29T06:00",
        ),
        (
            but(replace(DAILY, expression="0 7 29 2 *"), days_of_week=["Tue", "Sun"]),
            "2026-11-22T12:00",
            None,
        ),
        # a gap's fire is judged where it lands
        (
            but(
                replace(DAILY, expression="30 2 * * *"),
                time_ranges=[{"start": "02:00", "end": "03:00"}],
            ),
            "2026-03-01T00:00",
            "2026-03-29T01:00",
        ),
        (
            but(
                replace(DAILY, expression="30 2 * * *"),
                time_ranges=[{"start": "03:00", "end": "03:01"}],
            ),
            "2026-03-28T12:00",
            "2026-03-30T00:30",
        ),
        (
            replace(DAILY, expression="30 2 * * *", gap="skip"),
            "2026-03-28T12:00",
            "2026-03-30T00:30",
        ),
    ],
)
def test_the_next_instant(rule, after, expected):
    assert next_due(rule, at(after)) == (expected and at(expected))


rules = st.one_of(
    st.builds(
        Rule,
        st.just("cron"),
        expression=st.sampled_from(
            ["*/7 * * * *", "30 2 * * *", "0 */3 * * *", "0-59/20 0-4 * * *", "15 7 * * 1-5"]
        ),
        gap=st.sampled_from(["fire", "skip"]),
    ),
    st.builds(
        Rule,
        st.just("interval"),
        interval_seconds=st.sampled_from([600, 3600, 5400, 86_400, 777.5]),
        anchor_at=st.datetimes(datetime(2026, 3, 1), datetime(2026, 4, 1), timezones=st.just(UTC)),
    ),
)
zones_of_rules = st.sampled_from(
    ["Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "UTC"]
)
moments = st.datetimes(datetime(2026, 3, 20), datetime(2026, 4, 8), timezones=st.just(UTC))
lengths = st.timedeltas(timedelta(0), timedelta(days=4))


@settings(max_examples=300, deadline=None)
@given(rules, zones_of_rules, exclusions_of_any_kind, moments, lengths)
def test_the_next_instant_is_later_not_excluded_and_passes_none_by(
    bare, name, exclusions, after, ahead
):
    rule, where = replace(bare, timezone=name, exclusions=exclusions), zone(name)
    first = next_due(rule, after)
    if first is None:
        return
    assert first > after
    assert exclusions.reason(first, where) is None
    assert next_due(rule, first - MICROSECOND) == first
    later = next_due(rule, after + ahead)
    assert later == first if after + ahead < first else (later is None or later > first)


@settings(max_examples=200, deadline=None)
@given(rules, zones_of_rules, exclusions_of_any_kind, moments, lengths, st.integers(0, 5))
def test_what_was_missed_is_what_one_by_one_was_due(bare, name, exclusions, after, length, keep):
    rule, where = replace(bare, timezone=name, exclusions=exclusions), zone(name)
    raw = walked(rule, after, after + length)
    due = [moment for moment in raw if exclusions.reason(moment, where) is None]
    newest = tuple(due[len(due) - keep :] if keep < len(due) else due)
    expected = Missed(len(due), False, due[0], due[-1], newest) if due else Missed()
    assert missed(rule, after, after + length, keep) == expected
    taken_out = [one for one in raw if one not in due and one < after + length]
    stretch = excluded_between(rule, after, after + length)
    if not taken_out:
        assert stretch is None
    else:
        assert (stretch.count, stretch.first, stretch.last) == (
            len(taken_out),
            taken_out[0],
            taken_out[-1],
        )
        assert stretch.reason == exclusions.reason(taken_out[0], where)


# -- Many of them ----------------------------------------------------------------------------------

NIGHTS = {"days_of_week": ["Sat", "Sun"], "time_ranges": [{"start": "22:00", "end": "06:00"}]}
SECONDLY = replace(HOURLY, interval_seconds=1)


@pytest.mark.parametrize(
    ("rule", "days", "count"),
    [
        (MINUTELY, 40, 57_600),
        (MINUTELY, 3652, 5_258_880),
        (SECONDLY, 40, 3_456_000),
        (SECONDLY, 3652, None),
        (but(MINUTELY, **NIGHTS), 40, None),
        (but(SECONDLY, **NIGHTS), 40, None),
        (but(DAILY, days_of_week=["Sun"]), 40, None),
        (replace(DAILY, expression="30 2 29 2 *"), 40, None),
    ],
)
def test_long_outages_are_counted_in_no_time(rule, days, count):
    until = NOW
    after = until - timedelta(days=days)
    rule = replace(rule, anchor_at=rule.anchor_at and after)
    missed(rule, after, until, 100)
    begun = time.process_time()
    found = missed(rule, after, until, 100)
    took = time.process_time() - begun
    assert took < (0.05 if days < 100 else 0.25)
    assert not found.is_at_least
    if count is not None:
        assert found.count == count
        assert len(found.newest) == 100
        assert (found.newest[-1], found.last) == (until, until)
    assert list(found.newest) == sorted(set(found.newest))


def test_ten_years_with_exclusions_are_counted_too():
    begun = time.process_time()
    found = missed(but(MINUTELY, **NIGHTS), NOW - timedelta(days=3652), NOW, 100)
    assert time.process_time() - begun < 0.5
    # From Tuesday at 13:01 on the rest of that day, then 16 hours of each weekday until Friday.
    assert found.count == 539 + 16 * 60 * (521 * 5 + 3)
    assert found.last == at("2026-11-20T20:59")
    assert found.newest[0] == at("2026-11-20T19:20")


def test_beyond_twenty_years_nobody_counts():
    found = missed(SECONDLY, at("1990-01-01"), at("2000-01-01"), 5)
    assert found == Missed()
    old = replace(SECONDLY, anchor_at=at("1971-01-01"))
    begun = time.process_time()
    found = missed(but(old, **NIGHTS), at("1971-01-01"), NOW, 2)
    assert time.process_time() - begun < 1.0
    assert found.is_at_least
    assert found.first == at("1971-01-01T06:00")
    assert found.count > 100_000_000
    assert found.newest == (at("2026-11-20T21:59:58"), at("2026-11-20T21:59:59"))


def test_what_was_due_at_the_end_was_missed_and_at_the_beginning_was_not():
    found = missed(DAILY, at("2026-11-20T06:00"), at("2026-11-22T06:00"), 10)
    assert found.newest == (at("2026-11-21T06:00"), at("2026-11-22T06:00"))
    assert missed(DAILY, NOW, NOW - timedelta(days=1), 10) == Missed()


def test_what_a_gap_brings_together_was_missed_once():
    rule = replace(DAILY, expression="0,30 2,3 * * *")
    found = missed(rule, at("2026-03-28T12:00"), at("2026-03-29T12:00"), 10)
    assert found.newest == (at("2026-03-29T01:00"), at("2026-03-29T01:30"))
    assert found.count == 2


def test_the_stretch_that_exclusions_took_out_has_a_reason():
    rule = but(DAILY, days_of_week=["Sat", "Sun"], dates=["2026-11-23"])
    stretch = excluded_between(rule, at("2026-11-20T06:00"), at("2026-11-24T06:00"))
    assert (stretch.count, stretch.is_at_least, stretch.reason) == (3, False, "Saturday")
    assert (stretch.first, stretch.last) == (at("2026-11-21T06:00"), at("2026-11-23T06:00"))
    assert excluded_between(DAILY, at("2026-11-20"), at("2026-11-24")) is None
    # strictly between
    assert excluded_between(rule, at("2026-11-21T06:00"), at("2026-11-22T06:00")) is None


# -- Previews, spread ------------------------------------------------------------------------------


def test_a_preview_shows_local_time_and_days_on_which_the_clock_is_changed():
    rule = replace(DAILY, expression="30 2 * * *")
    found = upcoming(rule, at("2026-03-27T12:00"), 3)
    assert [one.local.isoformat() for one in found] == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]
    assert [one.is_on_clock_change for one in found] == [False, True, False]
    assert [one.instant for one in found] == [one.local for one in found]


@pytest.mark.parametrize(
    ("name", "after", "changes"),
    [
        ("Europe/Berlin", "2026-10-23T12:00", [False, True, False]),
        # Santiago's clock goes from 24:00 of one day to 01:00 of the next: both are odd days
        ("America/Santiago", "2026-09-04T05:00", [True, True, False]),
        ("UTC", "2026-03-27T12:00", [False, False, False]),
    ],
)
def test_days_on_which_the_clock_is_changed(name, after, changes):
    rule = Rule("cron", expression="0 12 * * *", timezone=name)
    found = upcoming(rule, at(after) + timedelta(days=name == "America/Santiago"), 3)
    assert [one.is_on_clock_change for one in found] == changes


def test_a_preview_may_show_what_is_excluded():
    rule = but(DAILY, days_of_week=["Sat", "Sun"])
    shown = upcoming(rule, at("2026-11-20T12:00"), 3, include_excluded=True)
    assert [one.excluded for one in shown] == ["Saturday", "Sunday", None]
    hidden = upcoming(rule, at("2026-11-20T12:00"), 3)
    assert [one.instant for one in hidden] == [at(f"2026-11-{day}T06:00") for day in (23, 24, 25)]
    assert {one.excluded for one in hidden} == {None}
    assert [one.instant for one in upcoming(ONCE, NOW, 5)] == [ONCE.run_at]
    assert upcoming(DAILY, NOW, 0) == []


def test_a_spread_is_fixed_and_within_its_window():
    ids = [uuid4() for _ in range(2000)]
    offsets = [spread_offset(one, 60) for one in ids]
    assert offsets == [spread_offset(one, 60) for one in ids]
    assert all(timedelta(0) <= one < timedelta(seconds=60) for one in offsets)
    # spread, and not heaped
    assert all(sum(one.seconds // 10 == tenth for one in offsets) > 200 for tenth in range(6))
    one = UUID("018f0000-0000-7000-8000-000000000001")
    assert spread_offset(one, 0) == spread_offset(one, -1) == timedelta(0)
    # The same in every process and version.
    assert spread_offset(one, 3600) == timedelta(seconds=2754, microseconds=543_276)


def test_a_day_of_the_calendar_can_be_left_out():
    calendars = {"company": [date(2026, 11, 23)]}
    rule = replace(DAILY, exclusions=Exclusions.parse({"calendars": ["company"]}, calendars))
    assert next_due(rule, NOW) == at("2026-11-24T06:00")
