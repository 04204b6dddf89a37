from __future__ import annotations

import sys
from datetime import UTC, date, datetime, time, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.errors import InvalidSchedule
from jobs.exclusions import NOTHING, Exclusions, TimeRange, holidays_of
from jobs.zones import to_micros, to_moment, zone

BERLIN = zone("Europe/Berlin")
COMPANY = {"company": [date(2026, 7, 1), date(2026, 7, 2)], "plant": [date(2026, 8, 1)]}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def rules(**document: object) -> Exclusions:
    return Exclusions.parse(document, COMPANY)


@pytest.mark.parametrize(
    ("document", "instant", "reason"),
    [
        # judged by the clock of the zone: Berlin is two hours ahead in summer, one in winter
        ({"dates": ["2026-12-25"]}, "2026-12-24T22:59:59", None),
        ({"dates": ["2026-12-25"]}, "2026-12-24T23:00", "date 2026-12-25"),
        ({"dates": ["2026-12-25"]}, "2026-12-25T22:59:59.999999", "date 2026-12-25"),
        ({"dates": ["2026-12-25"]}, "2026-12-25T23:00", None),
        ({"days_of_week": ["Saturday"]}, "2026-06-05T21:59", None),
        ({"days_of_week": ["SAT"]}, "2026-06-05T22:00", "Saturday"),
        # start inclusive, end exclusive
        ({"time_ranges": [{"start": "12:00", "end": "13:00"}]}, "2026-06-01T09:59:59", None),
        (
            {"time_ranges": [{"start": "12:00", "end": "13:00"}]},
            "2026-06-01T10:00",
            "time 12:00-13:00",
        ),
        ({"time_ranges": [{"start": "12:00", "end": "13:00"}]}, "2026-06-01T11:00", None),
        (
            {"time_ranges": [{"start": "12:00", "end": "13:00"}]},
            "2026-12-01T11:00",
            "time 12:00-13:00",
        ),
        # over midnight
        (
            {"time_ranges": [{"start": "22:00", "end": "06:00"}]},
            "2026-06-01T20:00",
            "time 22:00-06:00",
        ),
        (
            {"time_ranges": [{"start": "22:00", "end": "06:00"}]},
            "2026-06-01T03:59",
            "time 22:00-06:00",
        ),
        ({"time_ranges": [{"start": "22:00", "end": "06:00"}]}, "2026-06-01T04:00", None),
        (
            {"time_ranges": [{"start": "22:00", "end": "00:00"}]},
            "2026-06-01T21:59",
            "time 22:00-00:00",
        ),
        ({"time_ranges": [{"start": "22:00", "end": "00:00"}]}, "2026-06-01T22:00", None),
        (
            {"time_ranges": [{"start": "12:00:30", "end": "12:01"}]},
            "2026-06-01T10:00:30",
            "time 12:00:30-12:01",
        ),
        # both passes of a fold, and what a gap leaves
        (
            {"time_ranges": [{"start": "02:30", "end": "02:31"}]},
            "2026-10-25T00:30",
            "time 02:30-02:31",
        ),
        (
            {"time_ranges": [{"start": "02:30", "end": "02:31"}]},
            "2026-10-25T01:30",
            "time 02:30-02:31",
        ),
        ({"time_ranges": [{"start": "02:00", "end": "03:00"}]}, "2026-03-29T01:00", None),
        ({"calendars": ["company"]}, "2026-07-01T10:00", "calendar company"),
        ({"calendars": ["plant"]}, "2026-07-01T10:00", None),
        ({"countries": ["DE"]}, "2026-12-25T10:00", "holiday Christmas Day (DE)"),
        ({"countries": ["DE-BY"]}, "2026-01-06T10:00", "holiday Epiphany (DE-BY)"),
        ({"countries": ["DE"]}, "2026-01-06T10:00", None),
        # one match is enough; the date is told first
        (
            {"dates": ["2026-12-25"], "days_of_week": ["Friday"]},
            "2026-12-25T10:00",
            "date 2026-12-25",
        ),
        ({"dates": ["2026-12-25"], "days_of_week": ["Monday"]}, "2026-12-21T10:00", "Monday"),
        ({}, "2026-12-21T10:00", None),
    ],
)
def test_the_reason_is_told(document, instant, reason):
    exclusions = rules(**document)
    assert exclusions.reason(at(instant), BERLIN) == reason
    assert exclusions.excludes(to_micros(at(instant)), BERLIN) == (reason is not None)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ([], "exclusions"),
        ("2026-12-25", "exclusions"),
        ({"excludedDates": []}, "exclusions.excludedDates"),
        ({"dates": "2026-12-25"}, "exclusions.dates"),
        ({"dates": ["2026-12-25", "2026-12-26", "2026-02-30"]}, "exclusions.dates[2]"),
        ({"dates": ["20261225"]}, "exclusions.dates[0]"),
        ({"dates": ["0000-01-01"]}, "exclusions.dates[0]"),
        ({"dates": [20261225]}, "exclusions.dates[0]"),
        ({"dates": [None]}, "exclusions.dates[0]"),
        ({"dates": ["2026-12-25"] * 2001}, "exclusions.dates"),
        ({"days_of_week": ["Saturday", "Someday"]}, "exclusions.days_of_week[1]"),
        ({"days_of_week": [6]}, "exclusions.days_of_week[0]"),
        ({"time_ranges": ["22:00-06:00"]}, "exclusions.time_ranges[0]"),
        ({"time_ranges": [{"start": "22:00"}]}, "exclusions.time_ranges[0]"),
        ({"time_ranges": [{"start": "22:00", "end": "22:00"}]}, "exclusions.time_ranges[0].end"),
        ({"time_ranges": [{"start": "22:00", "end": "24:00"}]}, "exclusions.time_ranges[0].end"),
        ({"time_ranges": [{"start": "9:00", "end": "10:00"}]}, "exclusions.time_ranges[0].start"),
        ({"time_ranges": [{"start": 9, "end": "10:00"}]}, "exclusions.time_ranges[0].start"),
        (
            {"time_ranges": [{"start": "09:00+02", "end": "10:00"}]},
            "exclusions.time_ranges[0].start",
        ),
        ({"time_ranges": [{"start": "09:00", "end": "10:00"}] * 21}, "exclusions.time_ranges"),
        ({"calendars": ["nobody's"]}, "exclusions.calendars[0]"),
        ({"calendars": [["company"]]}, "exclusions.calendars[0]"),
        ({"countries": ["DE", "XX"]}, "exclusions.countries[1]"),
        ({"countries": ["DE-ZZ"]}, "exclusions.countries[0]"),
        ({"countries": ["de"]}, "exclusions.countries[0]"),
        ({"countries": ["Germany"]}, "exclusions.countries[0]"),
        ({"countries": [{}]}, "exclusions.countries[0]"),
    ],
)
def test_what_cannot_be_read_is_refused_and_named(document, field):
    with pytest.raises(InvalidSchedule) as refused:
        Exclusions.parse(document, COMPANY)
    assert (refused.value.code, refused.value.field) == ("invalid", field)


def test_a_country_without_the_library_is_refused_clearly(monkeypatch):
    monkeypatch.setitem(sys.modules, "holidays", None)
    holidays_of.cache_clear()
    with pytest.raises(InvalidSchedule, match="not installed") as refused:
        rules(countries=["FR"])
    assert refused.value.field == "exclusions.countries[0]"


def test_rules_survive_the_way_into_json_and_back():
    document = {
        "dates": ["2026-12-24", "2026-12-25"],
        "days_of_week": ["Saturday", "Sunday"],
        "time_ranges": [{"start": "22:00", "end": "06:00"}, {"start": "12:00:30", "end": "13:00"}],
        "calendars": ["company"],
        "countries": ["DE-BY"],
    }
    exclusions = rules(**document)
    assert exclusions.to_json() == document
    assert rules(**exclusions.to_json()) == exclusions
    assert hash(rules(**document)) == hash(exclusions)


def test_what_is_said_twice_counts_once():
    twice = rules(
        dates=["2026-12-25"] * 2,
        days_of_week=["sat", "Saturday"],
        time_ranges=[{"start": "22:00", "end": "06:00"}] * 2,
        calendars=["company"] * 2,
    )
    assert twice.to_json() == {
        "dates": ["2026-12-25"],
        "days_of_week": ["Saturday"],
        "time_ranges": [{"start": "22:00", "end": "06:00"}],
        "calendars": ["company"],
    }


@pytest.mark.parametrize("document", [None, {}, {"dates": []}, {"dates": None}])
def test_no_rules_are_false_and_empty(document):
    assert Exclusions.parse(document) == NOTHING
    assert not NOTHING
    assert NOTHING.to_json() == {}


times = st.times().map(lambda one: one.replace(microsecond=0, second=one.second // 30 * 30))
ranges = st.builds(TimeRange, times, times).filter(lambda one: one.start != one.end)
exclusions_of_any_kind = st.builds(
    Exclusions,
    dates=st.frozensets(st.dates(date(2026, 3, 20), date(2026, 4, 10)), max_size=5),
    days_of_week=st.frozensets(st.integers(0, 6), max_size=6),
    time_ranges=st.lists(ranges, max_size=4).map(tuple),
)


@settings(max_examples=200, deadline=None)
@given(
    exclusions_of_any_kind,
    st.sampled_from(["Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "UTC"]),
    st.datetimes(datetime(2026, 3, 20), datetime(2026, 4, 10)),
    st.timedeltas(timedelta(0), timedelta(days=6)),
    st.data(),
)
def test_spans_say_the_same_as_the_reasons(exclusions, name, naive, length, data):
    where, low = zone(name), naive.replace(tzinfo=UTC)
    high = low + length
    spans = list(exclusions.spans(to_micros(low), to_micros(high), where))
    reached, before = to_micros(low), None
    for span in spans:
        assert span.start == reached < span.end
        assert span.is_excluded != before
        reached, before = span.end, span.is_excluded
        inside = data.draw(st.integers(span.start, span.end - 1))
        for micros in (span.start, inside, span.end - 1):
            reason = exclusions.reason(to_moment(micros), where)
            assert (reason is not None) == span.is_excluded == exclusions.excludes(micros, where)
    assert reached == to_micros(high)


def test_a_range_over_midnight_is_two_parts_of_a_day():
    hour = 3_600_000_000
    assert TimeRange(time(22), time(6)).parts == [(0, 6 * hour), (22 * hour, 24 * hour)]
    assert TimeRange(time(22), time(0)).parts == [(22 * hour, 24 * hour)]
