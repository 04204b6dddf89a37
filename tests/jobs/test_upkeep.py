"""Upkeep: who does which duty, and what a duty that fails does to the others. Real threads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import pairwise
from uuid import UUID, uuid4

import pytest
from django.db import connections
from django.utils import timezone

from clusters.models import Node, NodeStatus
from clusters.policy import ClusterPolicy
from jobs.engine import upkeep
from jobs.engine.upkeep import Duty, Upkeep, duties
from jobs.engine.watchdog import Watchdog
from jobs.models import Job, UpkeepDuty
from jobs.states import State
from tests.factories import make_job, make_node

pytestmark = pytest.mark.django_db(transaction=True)

ONE, TWO = uuid4(), uuid4()


class Count:
    """A duty that notes who did it and when, and has so much to do."""

    def __init__(self, *, backlog: int = 0) -> None:
        self.backlog = backlog
        self.runs: list[tuple[str, float]] = []

    def __call__(self, using: str, policy: ClusterPolicy) -> int:
        assert isinstance(policy, ClusterPolicy)
        self.runs.append((threading.current_thread().name, time.monotonic()))
        self.backlog -= 1
        return 1 if self.backlog >= 0 else 0

    @property
    def doers(self) -> set[str]:
        return {name for name, _ in self.runs}


@contextmanager
def running(
    *tasks: Duty, node: UUID = ONE, wake: Callable[[], None] = lambda: None
) -> Iterator[Upkeep]:
    thread = Upkeep("alpha", str(node), Watchdog("test"), wake, tasks)
    thread.name = str(node)
    thread.start()
    try:
        yield thread
    finally:
        thread.stop(10)
        assert not thread.is_alive()


def row(name: str) -> UpkeepDuty:
    return UpkeepDuty.objects.get(name=name)


# -- Leases ----------------------------------------------------------------------------------------


def test_a_duty_under_a_lease_is_done_by_one_node_and_the_others_by_all(alpha, eventually):
    leased, common = Count(), Count()
    both = (
        Duty("leased", leased, 0.02),
        Duty("common", common, 0.02, is_everywhere=True),
    )
    with running(*both, node=ONE), running(*both, node=TWO):
        eventually(lambda: len(leased.runs) > 20 and len(common.doers) == 2)
    assert len(leased.doers) == 1
    assert not UpkeepDuty.objects.filter(name="common").exists()


def test_a_rare_duty_is_given_back_with_what_it_did(alpha, eventually):
    work = Count(backlog=3)
    with running(Duty("rare", work, 100.0)):
        eventually(lambda: UpkeepDuty.objects.filter(last_count=3).exists())
        done = row("rare")
    assert len(work.runs) == 4  # the last found nothing more
    assert (done.node_id, done.lease_until, done.last_error) == (None, None, None)
    assert done.last_started_at <= done.last_finished_at
    wait = (done.next_at - done.last_finished_at).total_seconds()
    assert 80 <= wait <= 120


def test_a_duty_that_was_done_a_moment_ago_is_not_due_for_another_node(alpha, eventually):
    first, second, other = Count(), Count(), Count()
    with running(Duty("rare", first, 100.0)):
        eventually(lambda: UpkeepDuty.objects.filter(next_at__isnull=False).exists())
    with running(Duty("rare", second, 100.0), Duty("other", other, 0.02), node=TWO):
        eventually(lambda: len(other.runs) > 5)
        time.sleep(1)
    assert second.runs == []


def test_a_duty_that_has_more_to_do_goes_on_soon_but_not_at_once(alpha, eventually):
    work = Count(backlog=4)
    with running(Duty("rare", work, 100.0)):
        eventually(lambda: len(work.runs) == 5)
    times = [at for _, at in work.runs]
    pauses = [later - sooner for sooner, later in pairwise(times)]
    assert min(pauses) >= upkeep.PAUSE_SECONDS * 0.8
    assert max(pauses) < 30


def test_a_node_that_ends_leaves_its_duties_to_others(alpha, eventually):
    work = Count()
    with running(Duty("often", work, 0.02)):
        eventually(lambda: len(work.runs) > 3)
        assert row("often").node_id == ONE
    assert (row("often").node_id, row("often").lease_until) == (None, None)


@pytest.mark.parametrize(
    ("ago", "is_taken"), [(timedelta(seconds=5), True), (-timedelta(1), False)]
)
def test_the_duty_of_a_node_that_went_quiet_is_taken_when_its_lease_is_over(
    alpha, eventually, ago, is_taken
):
    UpkeepDuty.objects.create(name="often", node_id=TWO, lease_until=timezone.now() - ago)
    work, other = Count(), Count()
    with running(Duty("often", work, 0.02), Duty("other", other, 0.02)):
        eventually(lambda: len(other.runs) > 5)
        time.sleep(1)
    assert bool(work.runs) == is_taken


def test_a_holder_renews_its_lease_and_tells_what_it_did(alpha, eventually, monkeypatch):
    monkeypatch.setattr(upkeep, "LEASE_SECONDS", 4.0)
    work = Count(backlog=10**6)
    with running(Duty("often", work, 0.02)):
        eventually(lambda: UpkeepDuty.objects.filter(last_count__gt=0).exists())
        began = row("often").last_started_at
        eventually(lambda: row("often").lease_until > began + timedelta(seconds=6))
        assert row("often").last_started_at == began


def test_only_the_holder_tells_and_only_while_it_holds(alpha):
    now = timezone.now()
    UpkeepDuty.objects.create(name="x", node_id=ONE, lease_until=now + timedelta(seconds=60))
    rows = UpkeepDuty.objects.filter(name="x")
    assert rows.take(TWO, 5) == 0
    assert rows.keep(TWO, 5, count=1, error=None) == 0
    assert rows.give_back(TWO, 5, count=1, error=None) == 0
    assert rows.drop(TWO) == 0
    assert rows.take(ONE, 5) == 1
    rows.update(lease_until=now - timedelta(seconds=1))
    assert rows.keep(ONE, 5, count=1, error=None) == 0
    assert rows.take(TWO, 5) == 1


# -- Failing ---------------------------------------------------------------------------------------


def test_a_duty_that_fails_is_told_of_once_and_stops_no_other(alpha, eventually, caplog):
    def fail(using: str, policy: ClusterPolicy) -> int:
        tries.append(time.monotonic())
        raise ValueError("it cannot be done")

    tries: list[float] = []
    fine = Count()
    with (
        caplog.at_level(logging.ERROR, "jobs.engine.trouble"),
        running(Duty("bad", fail, 0.02), Duty("fine", fine, 0.02)) as thread,
    ):
        eventually(lambda: len(tries) >= 3)
        assert thread.conditions() == {"bad": "ValueError"}
        seen = len(fine.runs)
        eventually(lambda: len(fine.runs) > seen)
        assert row("bad").last_error == "ValueError: it cannot be done"
    assert len([r for r in caplog.records if "duty bad" in r.getMessage()]) == 1
    assert tries[1] - tries[0] >= 0.4 and tries[2] - tries[1] >= 0.8  # it backs off


def test_a_duty_that_works_again_is_no_longer_in_trouble(alpha, eventually, caplog):
    def sometimes(using: str, policy: ClusterPolicy) -> int:
        tries.append(1)
        if len(tries) == 1:
            raise ValueError("not yet")
        return 0

    tries: list[int] = []
    with caplog.at_level(logging.INFO), running(Duty("bad", sometimes, 0.02)) as thread:
        eventually(lambda: len(tries) > 2)
        assert thread.conditions() == {}
    assert "duty bad of alpha works again" in caplog.text


def test_upkeep_survives_a_connection_that_is_cut_or_a_disk_that_is_full(
    alpha, eventually, is_postgresql, caplog
):
    def break_it(using: str, policy: ClusterPolicy) -> int:
        breaks.append(1)
        if len(breaks) > 2:
            return 0
        with connections[using].cursor() as cursor:
            if is_postgresql:
                cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
            else:
                cursor.execute("PRAGMA max_page_count = 1")  # no less than there are now
                # The room of what earlier tests have deleted is room too.
                free = "(SELECT freelist_count FROM pragma_freelist_count)"
                size = f"10000000 + {free} * (SELECT page_size FROM pragma_page_size)"
                cursor.execute(f"CREATE TABLE filler AS SELECT randomblob({size}) AS x")
        return 0

    breaks: list[int] = []
    fine = Count()
    with (
        caplog.at_level(logging.INFO, "jobs.engine.trouble"),
        running(Duty("bad", break_it, 0.02), Duty("fine", fine, 0.02)) as thread,
    ):
        eventually(lambda: len(breaks) > 3, seconds=60)
        seen = len(fine.runs)
        eventually(lambda: len(fine.runs) > seen)
        assert thread.conditions() == {}
    told = [r.getMessage() for r in caplog.records if "the upkeep of alpha" in r.getMessage()]
    assert len([text for text in told if "fails" in text]) == 1
    assert told[-1] == "the upkeep of alpha works again"


# -- What there is to do ---------------------------------------------------------------------------


def test_every_duty_has_a_name_of_its_own_that_fits_its_row():
    names = [duty.name for duty in duties()]
    assert len({*names}) == len(names)
    assert all(len(name) <= 40 for name in names)


def test_every_duty_finds_nothing_to_do_in_an_empty_cluster(alpha):
    for duty in duties():
        assert duty.work("cluster-alpha", ClusterPolicy()) == 0, duty.name


def test_the_duties_of_a_node_promote_rescue_and_wake_it(alpha, eventually):
    past = timezone.now() - timedelta(seconds=1)
    due = make_job(State.SCHEDULED, run_at=past)
    lost = make_job(State.RUNNING, node=make_node(lease_until=past))
    woken: list[int] = []
    with running(*duties(), wake=lambda: woken.append(1)):
        eventually(lambda: Job.objects.get(pk=due.pk).state == State.READY)
        eventually(lambda: Job.objects.get(pk=lost.pk).attempts == 1 and lost_is_free(lost))
        eventually(lambda: len(woken) >= 2)
    assert Node.objects.get(pk=lost.node_id).status == NodeStatus.DEAD


def lost_is_free(job: Job) -> bool:
    return Job.objects.get(pk=job.pk).state in (State.SCHEDULED, State.READY)


def test_rescue_comes_several_times_a_lease_however_short_that_is():
    (duty,) = [duty for duty in duties() if duty.name == "rescue_lost"]
    assert duty.period(ClusterPolicy()) == 5.0
    assert duty.period(ClusterPolicy(lease_seconds=3.0)) == 0.5
    assert duty.is_everywhere


def test_rows_of_duties_are_made_once(alpha):
    UpkeepDuty.objects.all().ensure(["a", "b"])
    UpkeepDuty.objects.all().ensure(["b", "c"])
    assert sorted(str(one) for one in UpkeepDuty.objects.all()) == ["a", "b", "c"]
