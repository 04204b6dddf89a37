from __future__ import annotations

import contextlib
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.cron import MACROS, Cron, Every, describe, parse
from jobs.errors import InvalidCron, JobError
from jobs.zones import zone

UTC_ZONE = zone("UTC")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def following(expression: str, after: str, count: int) -> list[datetime]:
    cron, moment, found = parse(expression), at(after), []
    for _ in range(count):
        moment = cron.next_after(moment, UTC_ZONE)
        found.append(moment)
    return found


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("0 7 * * 1-5", "2026-11-20T08:00", ["2026-11-23T07:00", "2026-11-24T07:00"]),
        ("0 7 * * mon-fri", "2026-11-20T08:00", ["2026-11-23T07:00"]),
        ("*/20 * * * *", "2026-01-01T00:00", ["2026-01-01T00:20", "2026-01-01T00:40"]),
        ("5/20 * * * *", "2026-01-01T00:00", ["2026-01-01T00:05", "2026-01-01T00:25"]),
        # reversed ranges
        ("0 22-1 * * *", "2026-01-01T12:00", ["2026-01-01T22:00", "2026-01-01T23:00"]),
        ("0 22-1 * * *", "2026-01-01T23:30", ["2026-01-02T00:00", "2026-01-02T01:00"]),
        ("0 22-3/2 * * *", "2026-01-01T22:30", ["2026-01-02T00:00", "2026-01-02T02:00"]),
        ("0 0 * * SAT-SUN", "2026-01-01T00:00", ["2026-01-03T00:00", "2026-01-04T00:00"]),
        ("0 0 * * 6-7", "2026-01-01T00:00", ["2026-01-03T00:00", "2026-01-04T00:00"]),
        ("0 0 * * 7-1", "2026-01-01T00:00", ["2026-01-04T00:00", "2026-01-05T00:00"]),
        ("0 0 1 DEC-FEB *", "2026-01-15T00:00", ["2026-02-01T00:00", "2026-12-01T00:00"]),
        ("0 0 31-1 * *", "2026-01-15T00:00", ["2026-01-31T00:00", "2026-02-01T00:00"]),
        # 0 and 7 are Sunday
        ("0 0 * * 0", "2026-01-01T00:00", ["2026-01-04T00:00"]),
        ("0 0 * * 7", "2026-01-01T00:00", ["2026-01-04T00:00"]),
        # L, LW, # and ?
        ("0 0 L * ?", "2026-02-01T00:00", ["2026-02-28T00:00", "2026-03-31T00:00"]),
        ("0 0 LW * *", "2026-02-01T00:00", ["2026-02-27T00:00"]),
        ("0 0 ? * 5L", "2026-02-01T00:00", ["2026-02-27T00:00"]),
        ("0 0 * * MON#2", "2026-02-01T00:00", ["2026-02-09T00:00"]),
        ("0 0 * * 1#5", "2026-02-01T00:00", ["2026-03-30T00:00"]),
        # both day fields restricted: either of them
        ("0 9 13 * FRI", "2026-11-01T00:00", ["2026-11-06T09:00", "2026-11-13T09:00"]),
        ("0 9 12 * FRI", "2026-11-07T00:00", ["2026-11-12T09:00", "2026-11-13T09:00"]),
        ("0 9 */2 * FRI", "2026-11-01T00:00", ["2026-11-13T09:00"]),
        ("0 0 29 2 *", "2026-01-01T00:00", ["2028-02-29T00:00", "2032-02-29T00:00"]),
        ("0 0 29 2 *", "2096-03-01T00:00", ["2104-02-29T00:00"]),
        # macros
        ("@hourly", "2026-01-01T00:30", ["2026-01-01T01:00"]),
        ("@daily", "2026-01-01T00:30", ["2026-01-02T00:00"]),
        ("@Midnight", "2026-01-01T00:30", ["2026-01-02T00:00"]),
        ("@weekly", "2026-01-01T00:30", ["2026-01-04T00:00"]),
        ("@monthly", "2026-01-01T00:30", ["2026-02-01T00:00"]),
        ("@yearly", "2026-01-01T00:30", ["2027-01-01T00:00"]),
        ("@annually", "2026-01-01T00:30", ["2027-01-01T00:00"]),
        ("  0\t7  * * *  ", "2026-01-01T00:30", ["2026-01-01T07:00"]),
        # strictly later, whatever the second
        ("0 7 * * *", "2026-01-01T07:00", ["2026-01-02T07:00"]),
        ("0 7 * * *", "2026-01-01T06:59:59.999999", ["2026-01-01T07:00"]),
        ("0 7 * * *", "2026-01-01T07:00:00.000001", ["2026-01-02T07:00"]),
        ("* * * * *", "2026-12-31T23:59:30", ["2027-01-01T00:00"]),
    ],
)
def test_what_comes_next(expression, after, expected):
    assert following(expression, after, len(expected)) == [at(text) for text in expected]


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("", "five fields"),
        ("* * * *", "this has 4"),
        ("0 0 7 * * *", "six fields"),
        ("* * * * * * *", "this has 7"),
        ("60 * * * *", "'60' is no minute"),
        ("* 24 * * *", "'24' is no hour"),
        ("* * 0 * *", "no day of month"),
        ("* * 32 * *", "no day of month"),
        ("* * * 13 *", "no month"),
        ("* * * FOO *", "no month"),
        ("* * * * 8", "no day of week"),
        ("* * * * MON#6", "no day of week"),
        ("* * * * MON#0", "no day of week"),
        ("* * * * L", "no day of week"),
        ("* * L/2 * *", "no day of month"),
        ("* * 15W * *", "no day of month"),
        ("? * * * *", "no minute"),
        ("* ? * * *", "no hour"),
        ("*/0 * * * *", "no minute"),
        ("5-1/0 * * * *", "no minute"),
        ("1--100000000 * * * *", "no minute"),
        ("1-99999 * * * *", "no minute"),
        (", * * * *", "no minute"),
        ("1,,2 * * * *", "no minute"),
        ("70-3 * * * *", "no minute"),
        ("MON * * * *", "no minute"),
        ("0 0 30 2 *", "no such day"),
        ("0 0 31 4,6,9,11 *", "no such day"),
        ("0 0 30-31 FEB ?", "no such day"),
        ("0 0 */31 * MON#5", "no such day"),
        ("@reboot", "no @reboot"),
        ("@", "no @"),
        ("@every", "after @every"),
        ("@every 1 day", "after @every"),
        ("@every -5m", "after @every"),
        ("@every 0s", "at least a second"),
        ("@every 999ms", "at least a second"),
        ("@every 999999999999h", "at most ten years"),
        ("٣ * * * *", "ASCII"),
        ("0 0 * * *\n0 0 * * *", "ASCII"),
        ("0 0 * * *\0", "ASCII"),
        ("*" * 201, "at most 200"),
        (None, "a text"),
        (5, "a text"),
    ],
)
def test_what_cannot_be_read_is_refused_and_says_why(expression, told):
    with pytest.raises(InvalidCron) as refused:
        parse(expression, field="scheduleExpression")
    assert told in str(refused.value)
    assert len(str(refused.value)) < 200
    assert (refused.value.code, refused.value.field) == ("invalid_cron", "scheduleExpression")
    assert isinstance(refused.value, JobError)


@pytest.mark.parametrize(
    "expression",
    [
        "1--100000000 * * * *",
        "0-9999/1 * * * *",
        "*/9999 * * * *",
        ",".join(["*"] * 60) + " * * * *",
        "0 0 30,31 2 *",
        "1" * 200,
        "@every " + "9h" * 90,
        "@every " + "9" * 190,
        "* * * * " + "1#1," * 40 + "1#1",
    ],
)
def test_evil_expressions_cost_nothing(expression):
    begun = time.process_time()
    with contextlib.suppress(InvalidCron):
        parse(expression)
    assert time.process_time() - begun < 0.05


@settings(max_examples=500, deadline=None)
@given(st.text(alphabet="0123456789*/,-?L#W@ MONFRIevry", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        found = parse(text)
    except InvalidCron:
        return
    assert isinstance(found, Cron | Every)
    if isinstance(found, Cron):
        assert found.next_after(datetime(2026, 1, 1, tzinfo=UTC), UTC_ZONE) is not None
    assert found.describe()


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("1h30m", timedelta(minutes=90)),
        ("90s", timedelta(seconds=90)),
        ("1.5h", timedelta(minutes=90)),
        ("1500ms", timedelta(seconds=1.5)),
        ("24h", timedelta(days=1)),
        ("1s", timedelta(seconds=1)),
    ],
)
def test_every_is_an_interval(text, length):
    found = parse(f"@every {text}")
    assert isinstance(found, Every)
    assert found.length == length


def test_there_is_an_end_to_time():
    cron = parse("0 0 * * *")
    assert cron.next_after(datetime(8999, 12, 30, tzinfo=UTC), UTC_ZONE) == at("8999-12-31")
    assert cron.next_after(datetime(9999, 12, 31, tzinfo=UTC), UTC_ZONE) is None
    assert cron.next_after(datetime(1, 1, 1, tzinfo=UTC), zone("America/New_York")) is not None


@pytest.mark.parametrize("expression", MACROS)
def test_macros_are_what_they_stand_for(expression):
    assert parse(expression).describe() == parse(MACROS[expression]).describe()


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("0 7 * * 1-5", "At 07:00 on Monday through Friday"),
        ("*/5 * * * *", "Every fifth minute of every hour"),
        ("0 0 L * *", "At 00:00 on the last day of every month"),
        ("0 0 * * FRI#2", "At 00:00 on the second Friday of the month"),
        ("0 0 * * FRI-MON", "At 00:00 on Friday, Saturday, Sunday, and Monday"),
        ("0 9 13 * FRI", "At 09:00 on the 13th day of month and on Friday (either day is enough)"),
        ("@daily", "At 00:00 every day"),
        ("@every 1h30m", "Every 1 hour 30 minutes"),
        ("@every 49h", "Every 2 days 1 hour"),
        ("@every 1500ms", "Every 1.5 seconds"),
    ],
)
def test_an_expression_is_told_in_english(expression, sentence):
    assert describe(expression) == sentence
