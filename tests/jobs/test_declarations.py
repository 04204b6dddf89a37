"""Schedules declared beside handlers: what a module may say, and what it hears when it is wrong."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jobs import registry
from jobs.declarations import WORDS
from jobs.exclusions import WEEKDAYS
from jobs.models import Gap, Misfire, Overlap
from jobs.registry import declarations, job
from jobs.states import OnLost


def handler(context, payload):
    pass


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_registry", {})
    monkeypatch.setattr(registry, "_declared", {})


def test_a_handler_without_a_schedule_is_registered_as_ever():
    assert job("plain")(handler) is handler
    assert registry.types() == ["plain"]
    assert declarations() == []


def test_several_schedules_may_stand_beside_one_handler():
    decorate = (
        job("report")
        .every("0 7 * * 1-5", tz="Europe/Berlin", payload={"full": False})
        .every(timedelta(hours=6), name="Report, full", overlap="allow")
        .every(90, name="report, often")
    )
    assert decorate(handler) is handler
    first, full, often = declarations()
    assert (first.name, first.values) == (
        "report",
        {
            "type": "report",
            "timing": "cron",
            "expression": "0 7 * * 1-5",
            "timezone": "Europe/Berlin",
            "payload": {"full": False},
        },
    )
    assert (full.name, full.values["interval_seconds"]) == ("Report, full", 21600)
    assert often.values["interval_seconds"] == 90


def test_a_module_that_is_read_again_declares_what_it_says_now():
    job("report").every("@daily").every("@hourly", name="often")(handler)
    job("report").every("@weekly")(handler)
    assert [one.values["expression"] for one in declarations()] == ["@weekly"]


@pytest.mark.parametrize(
    ("when", "terms", "said"),
    [
        ("0 7 * *", {}, "schedule 'report': expression"),
        ("30 25 * * *", {}, "expression"),
        ("0 7 30 2 *", {}, "no such day in 50 years"),
        ("@daily", {"tz": "Mars/Olympus"}, "Mars/Olympus"),
        (0.2, {}, "interval_seconds"),
        (timedelta(0), {}, "interval_seconds"),
        (None, {}, "interval_seconds"),
        ("@daily", {"overlap": "sometimes"}, "overlap: must be one of skip, allow"),
        ("@daily", {"misfire": "late"}, "misfire: must be one of latest, all, skip"),
        ("@daily", {"on_lost": "cry"}, "on_lost"),
        ("@daily", {"gap": "jump"}, "gap"),
        ("@daily", {"exclusions": {"dates": ["soon"]}}, "exclusions"),
        ("@daily", {"exclusions": {"days_of_week": [*WEEKDAYS]}}, "exclusions"),
        ("@daily", {"starts_at": datetime(2030, 1, 1)}, "starts_at: needs an offset"),
        ("@daily", {"ends_at": "2030"}, "ends_at: must be a datetime"),
        ("@daily", {"payload": object()}, "JSON"),
        ("@daily", {"payload": float("nan")}, "JSON"),
        ("@daily", {"name": " "}, "name"),
    ],
)
def test_what_is_wrong_is_said_when_the_module_is_imported(when, terms, said):
    with pytest.raises(ValueError, match=said):
        job("report").every(when, **terms)


def test_unknown_words_and_second_names_are_refused():
    with pytest.raises(TypeError, match="cron_tz"):
        job("report").every("@daily", cron_tz="UTC")
    with pytest.raises(ValueError, match="give each schedule"):
        job("report").every("@daily").every("@hourly")
    job("report").every("@daily", name="Nightly")(handler)
    with pytest.raises(ValueError, match="'nightly' is declared twice, for 'report' and 'other'"):
        job("other").every("@daily", name="nightly")(handler)


def test_a_module_can_be_imported_after_the_time_of_its_schedule():
    job("report").every("@daily", ends_at=datetime(2020, 1, 1, tzinfo=UTC))(handler)
    assert declarations()[0].values["ends_at"] == "2020-01-01T00:00:00+00:00"


def test_the_words_are_those_of_the_model():
    choices = {"misfire": Misfire, "overlap": Overlap, "gap": Gap, "on_lost": OnLost}
    assert {name: tuple(one.values) for name, one in choices.items()} == WORDS
