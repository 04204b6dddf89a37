"""Schedules of a large cluster: nodes that come and go, and thousands due in the same second."""

from __future__ import annotations

import time

import pytest

from jobs.models import Schedule
from tests import settings as test_settings
from tests.faults.fire_cases import (
    assert_exact,
    fired,
    in_a_moment,
    judge,
    plan_intervals,
    plan_one_moment,
)
from tests.faults.report import scale, scaled

pytestmark = [pytest.mark.long, pytest.mark.django_db(transaction=True)]

IS_POSTGRES = test_settings.BACKEND == "postgresql"
PYTHON = {"YARDMASTER_WORKER_KINDS": "python"}
NODES = 5
EVERY_SECONDS = 10.0
# A node that is frozen in the middle of a transaction keeps its rows; in SQLite, the whole file.
LONGEST_PAUSE = 3.0


def test_ten_thousand_instants_fire_once_and_in_time_whoever_is_killed_or_frozen(yard, figures):
    schedules, instants, faults = scaled(500, least=50), 20, scaled(20, least=2)
    for _ in range(NODES):
        yard.start_and_wait(concurrency=1, env=PYTHON)
    start = in_a_moment(3)
    planned = plan_intervals(schedules, instants, every=EVERY_SECONDS, start=start, misfire="all")
    end = start.timestamp() + EVERY_SECONDS * (instants + 1)
    paused = 0.0
    for number in range(2 * faults):
        time.sleep(max((end - time.time()) / (2 * faults - number + 1), 0.1))
        victim = yard.random.choice(yard.running())
        if number % 2:
            frozen = yard.freeze(victim)
            begun = time.monotonic()
            time.sleep(yard.random.uniform(0.5, LONGEST_PAUSE))
            yard.thaw(frozen)
            paused += time.monotonic() - begun
        else:
            yard.kill(victim)
            yard.start_and_wait(concurrency=1, env=PYTHON)
    left = max(end - time.time(), 0)
    yard.wait(lambda: fired(yard.database) >= planned.count, left + 60, every=0.5)
    time.sleep(2)
    yard.wait_until_all_ended(120)
    yard.stop()
    figures |= {
        "nodes": NODES,
        "schedules": schedules,
        "kills": faults,
        "pauses": faults,
        "paused_seconds": round(paused, 1),
        **judge(yard, planned),
    }
    verdict = yard.judge()
    figures |= verdict.figures
    assert_exact(figures)
    verdict.assert_sound()
    assert not Schedule.objects.exclude(error=None).exists()
    bar = 1.0 if IS_POSTGRES else 1.0 + LONGEST_PAUSE
    assert figures["late_p99_seconds"] <= bar


def test_five_thousand_due_in_the_same_second_have_fired_within_five(yard, figures):
    count = scaled(5000, least=500)
    for _ in range(NODES):
        yard.start_and_wait(concurrency=1, env=PYTHON)
    planned = plan_one_moment(count, at=in_a_moment(5 + count / 1000))
    yard.wait(lambda: fired(yard.database) >= planned.count, 120, every=0.5)
    yard.wait_until_all_ended(180)
    yard.stop()
    figures |= {"nodes": NODES, **judge(yard, planned)}
    assert_exact(figures)
    if scale() >= 0.5:
        assert figures["late_max_seconds"] <= 5.0
