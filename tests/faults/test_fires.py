"""Nodes that are killed and frozen while schedules are due: each instant fires once."""

from __future__ import annotations

import time

from django.db import connections

from clusters.policy import ClusterPolicy
from jobs.engine import fires
from jobs.models import Fire, Job, Schedule
from tests.faults.fire_cases import (
    assert_exact,
    fired,
    in_a_moment,
    judge,
    plan_intervals,
    plan_one_moment,
)
from tests.faults.harness import ALIAS
from tests.faults.report import scaled
from tests.faults.test_claims import at_once

POLICY = ClusterPolicy()
PYTHON = {"YARDMASTER_WORKER_KINDS": "python"}


def test_killed_and_frozen_nodes_fire_each_instant_of_each_schedule_once(yard, figures):
    """Half of the schedules catch up on instants later than a second, half are never late."""
    instants, faults = scaled(20, least=5), scaled(5, least=1)
    for _ in range(2):
        yard.start_and_wait(concurrency=1, env=PYTHON)
    start = in_a_moment(2)
    planned = plan_intervals(
        50,
        instants,
        every=1.0,
        start=start,
        misfire="all",
        misfire_grace_seconds=lambda n: 1.0 if n % 2 else 3600.0,
    )
    end = start.timestamp() + instants
    for number in range(2 * faults):
        time.sleep(max((end - time.time()) / (2 * faults - number + 1), 0.1))
        victim = yard.random.choice(yard.running())
        if number % 2:
            frozen = yard.freeze(victim)
            time.sleep(yard.random.uniform(0.5, 2.0))
            yard.thaw(frozen)
        else:
            yard.kill(victim)
            yard.start_and_wait(concurrency=1, env=PYTHON)
    yard.wait(lambda: fired(yard.database) >= planned.count, 60, every=0.2)
    # Whatever is one too many comes now.
    time.sleep(1.5)
    yard.wait_until_all_ended(60)
    yard.stop()
    figures |= {"kills": faults, "pauses": faults, **judge(yard, planned)}
    verdict = yard.judge()
    figures |= verdict.figures
    assert_exact(figures)
    verdict.assert_sound()
    stuck = Schedule.objects.exclude(next_run_at=None).count()
    assert (stuck, Schedule.objects.exclude(error=None).count()) == (0, 0)


def test_an_instant_that_comes_again_makes_no_second_job(yard, figures):
    """Red without: the unique row of a fire. A failover or a backup may take the next instant back."""
    count = scaled(200, least=50)
    plan_one_moment(count, at=in_a_moment(-5))
    rows = Schedule.objects.values("pk", "next_due_at", "next_run_at", "accounted_until")
    before = {row.pop("pk"): row for row in rows}
    turns = 0
    for _ in range(3):
        while done := fires.fire_due(ALIAS, POLICY):
            turns += done
        for pk, values in before.items():
            Schedule.objects.filter(pk=pk).update(**values)
    figures |= {"turns": turns, "jobs": Job.objects.count(), "fires": Fire.objects.count()}
    assert turns == 3 * count
    assert Job.objects.count() == Fire.objects.count() == count


def test_nodes_that_fire_together_deal_with_each_schedule_once(yard, figures):
    """Red without: the lock of the due rows, under which their next instant is read and written."""
    count, nodes = scaled(300, least=100), 8
    turns: list[int] = []
    planned = plan_intervals(count, 3, every=1.0, start=in_a_moment(-30), misfire="all")
    Schedule.objects.update(misfire_grace_seconds=3600.0)

    def fire(number: int) -> None:
        deadline = time.monotonic() + 60
        while fired(yard.database) < planned.count and time.monotonic() < deadline:
            turns.append(fires.fire_due(ALIAS, POLICY))

    connections[ALIAS].close()
    at_once(nodes, fire)
    figures |= {"turns": sum(turns), **judge(yard, planned)}
    assert_exact(figures)
    # Nobody dealt with what another had dealt with, and no next instant was taken back.
    assert sum(turns) == planned.count
    assert not Schedule.objects.exclude(next_due_at=None).exists()
