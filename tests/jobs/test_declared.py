"""Schedules declared in code: brought when a node starts, kept while one lives, then retired."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta

import pytest
from django.db import connections
from django.utils import timezone

from clusters.binding import cluster_bound
from jobs.declarations import declare
from jobs.engine import declared, schedules
from jobs.engine.clock import countdown
from jobs.engine.declared import Declared, Retirement, retire_forgotten
from jobs.errors import ScheduleNotFound
from jobs.models import Schedule
from tests.jobs.schedule_cases import POLICY, USING, make_schedule
from tests.processes import started, worker_environment

DAILY = declare("demo:noop", "0 7 * * 1-5", {"tz": "Europe/Berlin", "tags": ["b", "a"]})


def bring(*declarations):
    Declared(declarations)(USING, POLICY)


def row(name="demo:noop") -> Schedule:
    return Schedule.objects.get(name=name, deleted_at=None)


def state(schedule: Schedule):
    return schedule.pk, schedule.version, schedule.next_run_at, schedule.updated_at


def hours_pass(count: float) -> None:
    Schedule.objects.update(declared_at=timezone.now() - timedelta(hours=count))


def test_a_declaration_makes_a_schedule(alpha):
    bring(DAILY)
    made = row()
    assert (made.source, made.type, made.expression) == ("code", "demo:noop", "0 7 * * 1-5")
    assert (made.timezone, made.overlap, made.created_by) == ("Europe/Berlin", "skip", "code")
    assert made.next_run_at is not None
    assert made.declared_at is not None


@pytest.mark.parametrize(
    "one",
    [
        DAILY,
        declare("demo:noop", 90, {"payload": {"a": [1, None]}, "metadata": {"k": "v"}}),
        declare(
            "demo:noop",
            "@hourly",
            {
                "exclusions": {
                    "days_of_week": ["sun"],
                    "time_ranges": [{"start": "22:00", "end": "06:00"}],
                },
                "starts_at": timezone.now() + timedelta(days=1),
                "timeout_seconds": 7,
            },
        ),
    ],
)
def test_what_is_as_declared_is_not_touched(alpha, one):
    bring(one)
    before = state(row())
    hours_pass(0.5)
    bring(one)
    assert state(row()) == before
    assert row().declared_at > timezone.now() - timedelta(minutes=1)


def test_a_new_declaration_changes_what_differs_and_a_word_taken_back_has_its_default(alpha):
    bring(declare("demo:noop", "@daily", {"overlap": "allow", "payload": 1}))
    first = row()
    bring(declare("demo:noop", "@daily", {"payload": 2}))
    second = row()
    assert (second.pk, second.payload, second.overlap) == (first.pk, 2, "skip")
    assert second.next_run_at == first.next_run_at
    bring(declare("demo:noop", 60, {"payload": 2}))
    third = row()
    assert (third.timing, third.expression, third.interval_seconds) == ("interval", None, 60)
    assert third.version == 3


def test_whether_it_is_enabled_or_paused_is_the_operators_word(alpha):
    bring(declare("demo:noop", "@daily", {"is_enabled": False}))
    assert not row().is_enabled
    schedules.change(row().pk, {"is_enabled": True}, by="anna")
    schedules.pause(row().pk, by="anna")
    bring(declare("demo:noop", "@hourly", {"is_enabled": False}))
    assert (row().is_enabled, row().is_paused, row().expression) == (True, True, "@hourly")
    assert row().next_run_at is None


def test_a_schedule_that_people_made_under_the_same_name_wins(alpha, caplog):
    theirs = make_schedule(name="Demo:Noop", timing="cron", expression="5 5 * * *")
    node = Declared([DAILY])
    with caplog.at_level(logging.WARNING):
        node(USING, POLICY)
        node(USING, POLICY)
    assert Schedule.objects.get() == theirs
    assert Schedule.objects.get().expression == "5 5 * * *"
    assert [r.message for r in caplog.records if "left alone" in r.message] == [
        "declared schedule 'demo:noop': there is a schedule of this name that code has not made;"
        " it is left alone"
    ]


def test_one_that_the_cluster_refuses_is_told_of_and_keeps_no_other_away(alpha, caplog):
    bad = declare("demo:noop", "@daily", {"queue": "no-such", "name": "bad"})
    bring(bad, DAILY)
    assert [one.name for one in Schedule.objects.all()] == ["demo:noop"]
    assert "declared schedule 'bad': queue: " in caplog.text


def test_what_no_node_declares_for_an_hour_is_retired_and_comes_back_with_its_declaration(alpha):
    bring(DAILY)
    made = row()
    hours_pass(0.9)
    assert retire_forgotten(USING) == 0
    hours_pass(1.1)
    assert retire_forgotten(USING) == 1
    with pytest.raises(ScheduleNotFound):
        schedules.get(made.pk)
    assert retire_forgotten(USING) == 0
    bring(declare("demo:noop", "30 8 * * *", {}))
    assert (row().pk, row().expression) == (made.pk, "30 8 * * *")
    assert row().next_run_at is not None
    assert retire_forgotten(USING) == 0


def test_schedules_of_people_are_never_retired(alpha):
    make_schedule()
    hours_pass(100)
    assert retire_forgotten(USING) == 0


def test_a_node_that_lives_keeps_its_declarations_and_changes_nothing_else(alpha):
    node = Declared([DAILY])
    node(USING, POLICY)
    # Another node has newer code; the one that started later has the last word.
    bring(declare("demo:noop", "@hourly", {}))
    hours_pass(0.9)
    before = state(row())
    node(USING, POLICY)
    assert state(row()) == before
    assert row().declared_at > timezone.now() - timedelta(minutes=1)
    schedules.delete(row().pk, by="anna")
    node(USING, POLICY)
    assert row().expression == "0 7 * * 1-5"


def test_a_node_retires_nothing_in_its_first_hour(alpha, monkeypatch):
    bring(DAILY)
    hours_pass(2)
    duty = Retirement()
    assert duty(USING, POLICY) == 0
    monkeypatch.setattr(declared, "countdown", lambda: countdown() + 3700)
    assert duty(USING, POLICY) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("round_", range(3))
def test_nodes_that_start_at_once_make_each_schedule_once_and_change_it_once(round_):
    declarations = [declare("demo:noop", "@daily", {"name": f"s{n}"}) for n in range(5)]
    newer = [declare("demo:noop", "@hourly", {"name": f"s{n}"}) for n in range(5)]
    for wanted, version in ((declarations, 1), (newer, 2)):
        errors = []
        gate = threading.Barrier(4)

        def start(wanted=wanted, gate=gate, errors=errors):
            try:
                with cluster_bound("alpha"):
                    gate.wait(60)
                    Declared(wanted)(USING, POLICY)
            except BaseException as error:
                errors.append(error)
            finally:
                connections[USING].close()

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert errors == []
        with cluster_bound("alpha"):
            found = Schedule.objects.order_by("name").values_list("name", "version")
            assert list(found) == [(f"s{n}", version) for n in range(5)]


@pytest.mark.django_db(transaction=True)
def test_a_worker_brings_what_its_handlers_declare_to_its_own_cluster(eventually):
    env = worker_environment(YARDMASTER_HANDLERS="tests.declaring_handlers")
    with started("worker", "--cluster", "alpha", env=env), cluster_bound("alpha"):
        eventually(
            lambda: Schedule.objects.filter(declared_at__isnull=False).count() == 2, seconds=30
        )
        (big, small) = Schedule.objects.order_by("name")
        assert (big.name, len(big.payload)) == ("declared:big", 200_000)
        assert (small.type, small.interval_seconds, small.source) == (
            "declared:small",
            3600,
            "code",
        )
    with cluster_bound("beta"):
        assert not Schedule.objects.exists()
