"""When schedules will run: counted hour by hour, within a bounded time, and who crowds an hour."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from django.utils import timezone

from jobs import schedule_load, timing
from jobs.engine import calendars, schedules
from jobs.exclusions import Exclusions
from jobs.timing import Rule
from tests.jobs.schedule_cases import USING, make_schedule

PATH = "/admin/alpha/schedules/load/"
# A Saturday; that night the clocks of Berlin are put forward.
BEGINS_AT = datetime(2030, 3, 30, tzinfo=UTC)
pytestmark = pytest.mark.usefixtures("alpha")


@pytest.mark.parametrize(
    "rule",
    [
        Rule("cron", "*/5 8-18 * * 1-5", timezone="America/New_York"),
        Rule("cron", "30 2 * * *", timezone="Europe/Berlin"),
        Rule("cron", "*/15 * * * *", timezone="Europe/Berlin"),
        Rule("interval", interval_seconds=700.5, anchor_at=BEGINS_AT - timedelta(days=3)),
        Rule("once", run_at=BEGINS_AT + timedelta(hours=30, minutes=5)),
        Rule(
            "cron",
            "*/20 * * * *",
            starts_at=BEGINS_AT + timedelta(hours=5),
            ends_at=BEGINS_AT + timedelta(days=3),
            exclusions=Exclusions.parse(
                {"time_ranges": [{"start": "22:10", "end": "06:00"}], "days_of_week": ["Sunday"]}
            ),
        ),
    ],
)
def test_the_counts_are_those_of_the_runs_one_by_one(rule):
    since = BEGINS_AT + timedelta(hours=3)
    found = timing.counts_by_hour(rule, BEGINS_AT, since, 168)
    expected: dict[int, int] = {}
    runs = timing.upcoming(rule, since - timedelta(microseconds=1), 3000)
    for run in runs:
        place = (run.instant - BEGINS_AT) // timedelta(hours=1)
        if place < 168:
            expected[place] = expected.get(place, 0) + 1
    assert found == expected
    assert found


def test_the_page_counts_and_names_who_crowds_an_hour(viewer, queries):
    now = timezone.now().astimezone(UTC)
    at = (now + timedelta(days=2)).replace(hour=5, minute=0, second=0, microsecond=0)
    for n in range(3):
        make_schedule(name=f"at five {n}", expression="10 5 * * *", timing="cron")
    calendars.create("closed", [at.date().isoformat()], by="test")
    away = make_schedule(name="away", expression="20 5 * * *", timing="cron")
    schedules.change(away.pk, {"exclusions": {"calendars": ["closed"]}}, by="test")
    stopped = make_schedule(name="stopped", expression="30 5 * * *", timing="cron")
    schedules.pause(stopped.pk, by="test")
    with queries() as asked:
        page = viewer.get(PATH).content.decode()
    assert len(asked) <= 15
    hour = f"{at:%Y-%m-%dT%H:%M:%SZ}"
    assert f'href="?hour={hour}"' in page
    assert page.count(": 4 runs") >= 5
    page = viewer.get(f"{PATH}?hour={hour}").content.decode()
    assert all(f"at five {n}" in page for n in range(3))
    assert "away" not in page
    assert "stopped" not in page
    assert viewer.get(f"{PATH}?hour=noon").status_code == 400
    assert b"Nobody runs" in viewer.get(f"{PATH}?hour=2001-01-01T00:00:00Z").content


def test_a_spread_puts_runs_off_by_its_part_of_it():
    one = make_schedule(expression="59 5 * * *", timing="cron", spread_seconds=7200)
    now = timezone.now()
    load = schedule_load.read(USING, now)
    expected: dict[int, int] = {}
    offset = one.next_run_at - one.next_due_at
    for run in schedules.next_runs(one, 9):
        place = (run.instant + offset - load.begins_at) // timedelta(hours=1)
        if place < 168:
            expected[place] = expected.get(place, 0) + 1
    assert {place: runs for place, runs in enumerate(load.hours) if runs} == expected


def test_one_look_takes_a_bounded_time_and_the_next_goes_on():
    for n in range(6):
        make_schedule(name=f"busy {n}", expression=f"{n} * * * *", timing="cron")
    schedule_load._counted.cache_clear()
    ticks = count(0.0, schedule_load.BUDGET_SECONDS / 3)
    load = schedule_load.read(USING, timezone.now(), clock=lambda: next(ticks))
    assert (load.counted, load.is_whole) == (3, False)
    whole = schedule_load.read(USING, timezone.now())
    assert (whole.counted, whole.is_whole) == (6, True)


def test_more_schedules_than_one_look_counts_are_told_of(monkeypatch, viewer):
    monkeypatch.setattr(schedule_load, "MOST_SCHEDULES", 2)
    for n in range(3):
        make_schedule(name=f"one {n}")
    page = viewer.get(PATH).content.decode()
    assert "more schedules than one look can count" in page
    assert "as the 2 schedules say" in page


def test_counts_with_little_room():
    from ui.words import short

    said = [short(value) for value in (0, 950, 1200, 9949, 35_000, 1_234_567)]
    assert said == ["0", "950", "1.2k", "9.9k", "35k", "1\u202f235k"]
