"""Counters and histograms: exact after a known story, folded or not, and they never go back."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.db import connections
from django.utils import timezone

from clusters.policy import ClusterPolicy
from jobs.engine import rescue, run_upkeep, ticks
from jobs.engine.claim import Appetite, Claimed
from jobs.engine.clock import countdown
from jobs.engine.complete import Report, decide, hand_back
from jobs.engine.enqueue import enqueue
from jobs.engine.new_job import NewJob
from jobs.engine.prune import Pruner
from jobs.engine.rollup import compact
from jobs.engine.turn import take_turn
from jobs.histogram import bucket_of
from jobs.models import (
    Event,
    Failure,
    Fire,
    Job,
    JobDependency,
    OnParentFailure,
    Queue,
    Rollup,
    Schedule,
    Tally,
    Total,
    TotalName,
)
from jobs.prometheus import figures
from jobs.prometheus.families import BOUNDS
from jobs.states import OnLost, Outcome, State
from tests.factories import make_job, make_node
from tests.jobs.prometheus.scraped import Scraped, fold, scrape
from tests.jobs.schedule_cases import fire, hours_ago, make_schedule, put_back

USING = "cluster-alpha"
POLICY = ClusterPolicy(max_crashes=2, retry_base_seconds=0)
MAIL = {"cluster": "alpha", "queue": "mail"}
COUNTERS = ("jobs_enqueued_total", "jobs_finished_total", "attempts_total", "fires_total")
HISTOGRAMS = ("job_wait_seconds_bucket", "job_run_seconds_bucket", "job_run_seconds_count")

pytestmark = pytest.mark.usefixtures("alpha")


def claim(node: str) -> list[Claimed]:
    appetite = Appetite(node, {"process": 500}, {"python": "process"}, ("demo:noop",), None)
    return take_turn(connections[USING], [], appetite).claimed


def end(node: str, outcome: Outcome, seconds: float = 0.5, **more: object) -> None:
    """Run the one ready job of the queue, to this end."""
    (job,) = claim(node)
    now = countdown()
    report = Report(outcome, now - seconds, now, **more)  # type: ignore[arg-type]
    assert take_turn(connections[USING], [decide(job, node, report, POLICY)], None).superseded == []


def put(**policies: object) -> Job:
    Queue.objects.get_or_create(name="mail")
    policies = {"max_attempts": 1, **policies}
    made = enqueue(NewJob(type="demo:noop", queue="mail", **policies), by="test")
    return Job.objects.get(pk=made.job_id)


def tell_story() -> None:
    """Every end that a job and an attempt can have, each a known number of times."""
    node = str(make_node().pk)
    for _ in range(3):
        put()
        end(node, Outcome.SUCCEEDED, seconds=0.05)
    put()
    end(node, Outcome.FAILED, error="ValueError: no")
    put()
    end(node, Outcome.TIMEOUT, seconds=3.0)
    # Tried again, and then it succeeds.
    put(max_attempts=2)
    end(node, Outcome.FAILED, error="ValueError: no")
    due = timezone.now() - timedelta(seconds=1)
    Job.objects.filter(state=State.SCHEDULED).update(run_at=due)
    ticks.promote_due(USING, POLICY)
    end(node, Outcome.SUCCEEDED, seconds=100.0)
    # Given back by a node that stops, taken back unbegun, and cancelled while it runs.
    put()
    end(node, Outcome.RELEASED)
    (job,) = claim(node)
    take_turn(connections[USING], [hand_back(job, node)], None)
    (job,) = claim(node)
    Job.objects.filter(pk=job.id).cancel()
    now = countdown()
    cancelled = decide(job, node, Report(Outcome.CANCELLED, now, now), POLICY)
    take_turn(connections[USING], [cancelled], None)
    # Cancelled, skipped and expired before they began.
    put(delay_seconds=60)
    Job.objects.filter(state=State.SCHEDULED).cancel()
    put(delay_seconds=60)
    Job.objects.filter(state=State.SCHEDULED).skip()
    late = put(delay_seconds=60)
    Job.objects.filter(pk=late.pk).update(expires_at=timezone.now() - timedelta(seconds=1))
    ticks.expire_due(USING, POLICY)
    # Lost with its node, and one that takes its process down.
    put(on_lost=OnLost.FAIL)
    end(node, Outcome.LOST)
    put(max_attempts=5)
    for _ in range(2):
        end(node, Outcome.LOST, crashed=True)
        Job.objects.filter(state=State.SCHEDULED).update(state=State.READY)


STORY_FINISHED = {
    ("succeeded", ""): 4,
    ("cancelled", ""): 2,
    ("skipped", ""): 1,
    ("failed", "error"): 1,
    ("failed", "timeout"): 1,
    ("failed", "expired"): 1,
    ("failed", "lost"): 1,
    ("failed", "poisoned"): 1,
}
STORY_ATTEMPTS = {
    "succeeded": 4,
    "failed": 2,
    "timeout": 1,
    "released": 1,
    "cancelled": 1,
    "lost": 3,
}


def finished(told: Scraped) -> dict[tuple[str, str], float]:
    found = told.all("jobs_finished_total", **MAIL)
    return {(dict(rest)["state"], dict(rest)["reason"]): value for rest, value in found.items()}


def attempts(told: Scraped) -> dict[str, float]:
    found = told.all("attempts_total", **MAIL)
    return {dict(rest)["outcome"]: value for rest, value in found.items()}


def check_story(told: Scraped) -> None:
    assert told("jobs_enqueued_total", **MAIL) == 12
    assert finished(told) == STORY_FINISHED
    assert attempts(told) == STORY_ATTEMPTS
    assert told("job_run_seconds_count", **MAIL) == sum(STORY_ATTEMPTS.values())
    # One more start than attempts: that of the job that was handed back.
    assert told("job_wait_seconds_count", **MAIL) == sum(STORY_ATTEMPTS.values()) + 1
    at_most = {
        float(dict(rest)["le"]): value
        for rest, value in told.all("job_run_seconds_bucket", **MAIL).items()
    }
    assert at_most[0.064] - at_most[0.016] == 3
    assert at_most[4.096] - at_most[2.048] == 1
    assert at_most[262.144] - at_most[65.536] == 1
    assert at_most[float("inf")] == sum(STORY_ATTEMPTS.values())


def test_every_end_is_counted_once_before_and_after_folding():
    tell_story()
    assert Tally.objects.exists()
    check_story(scrape())
    fold()
    assert not Tally.objects.exists()
    check_story(scrape())


def test_some_folded_and_some_not_are_counted_together():
    tell_story()
    fold()
    tell_story()
    doubled = {key: 2 * number for key, number in STORY_FINISHED.items()}
    assert finished(scrape()) == doubled
    fold()
    assert finished(scrape()) == doubled


def counters(told: Scraped) -> dict[object, float]:
    return {
        key: value
        for key, value in told.samples.items()
        if key[0].removeprefix("yardmaster_") in COUNTERS + HISTOGRAMS
    }


def test_nothing_that_is_deleted_lowers_a_counter():
    tell_story()
    put_back(make_schedule(), hours_ago(30))
    fire()
    before = counters(scrape())
    assert any(value for (name, _), value in before.items() if name == "yardmaster_fires_total")
    long_ago = timezone.now() - timedelta(days=900)
    Job.objects.filter(finished_at__isnull=False).update(finished_at=long_ago, created_at=long_ago)
    prune = Pruner()
    while prune(USING, POLICY):
        pass
    assert Job.objects.filter(finished_at__isnull=False).count() == 0
    assert counters(scrape()) == before
    fold()
    Rollup.objects.exclude(resolution_seconds=0).update(starts_at=long_ago)
    while compact(USING, POLICY):
        pass
    assert set(Rollup.objects.values_list("resolution_seconds", flat=True)) == {0}
    Fire.objects.update(fired_at=long_ago)
    while run_upkeep.forget_fires(USING, POLICY):
        pass
    assert not Fire.objects.exists()
    Schedule.objects.all().delete()
    Failure.objects.all().delete()
    assert counters(scrape()) == before
    # Nor a queue that is gone.
    assert Queue.objects.filter(name="mail").delete_unused() == 1
    after = scrape()
    assert counters(after) == before
    assert after("queue_depth", state="ready", **MAIL) is None
    assert after("queue_paused", **MAIL) is None


def test_a_lost_node_is_told_of_as_lost():
    node = make_node(lease_until=timezone.now() - timedelta(seconds=1))
    make_job(State.RUNNING, queue="mail", node=node, on_lost=OnLost.FAIL, started_at=timezone.now())
    assert rescue.rescue_lost(USING, POLICY) == 1
    told = scrape()
    assert finished(told)["failed", "lost"] == 1
    assert attempts(told) == {"succeeded": 0, "failed": 0, "lost": 1}


def test_jobs_that_end_with_the_job_they_wait_for_are_told_of_by_their_rule():
    node = str(make_node().pk)
    parent = put()
    for rule in (OnParentFailure.FAIL, OnParentFailure.SKIP):
        Queue.objects.get_or_create(name="after")
        new = NewJob(
            type="demo:noop", queue="after", depends_on=[parent.pk], on_dependency_failure=rule
        )
        enqueue(new, by="test")
    assert JobDependency.objects.count() == 2
    end(node, Outcome.FAILED, error="ValueError: no")
    after = scrape().all("jobs_finished_total", cluster="alpha", queue="after")
    assert {value for value in after.values() if value} == {1}
    said = {(dict(k)["state"], dict(k)["reason"]) for k, value in after.items() if value}
    assert said == {("failed", "dependency"), ("skipped", "")}


def test_failures_from_before_reasons_were_counted_have_none():
    now = timezone.now().replace(second=0, microsecond=0)
    Tally.objects.create(minute=now, queue="mail", type="a", event=Event.FAILED, count=7)
    Tally.objects.create(
        minute=now, queue="mail", type="a", event=Event.FAILED, reason="lost", count=2
    )
    for _ in range(2):
        told = finished(scrape())
        assert told["failed", "unknown"] == 7
        assert told["failed", "lost"] == 2
        fold()


def test_times_are_counted_at_the_bounds_of_our_own_buckets():
    for bucket, bound in BOUNDS:
        assert bucket_of(bound) == bucket
        assert bucket_of(bound * 1.001) == bucket + 1
    now = timezone.now().replace(second=0, microsecond=0)
    for bucket in (-39, 8, 9, 24, 160):
        Tally.objects.create(
            minute=now, queue="mail", type="a", event=Event.STARTED, bucket=bucket, count=1
        )
    at_most = {
        float(dict(rest)["le"]): value
        for rest, value in scrape().all("job_wait_seconds_bucket", **MAIL).items()
    }
    assert [at_most[le] for le in (0.004, 0.016, 0.064, 67108.864, float("inf"))] == [2, 3, 4, 4, 5]
    assert [*at_most.values()] == sorted(at_most.values())
    assert len(at_most) == len(BOUNDS) + 1


def test_the_sum_of_a_histogram_is_near_the_truth():
    node = str(make_node().pk)
    for seconds in (0.3, 1.7, 11.0):
        put()
        end(node, Outcome.SUCCEEDED, seconds=seconds)
    told = scrape()("job_run_seconds_sum", **MAIL)
    assert told is not None
    assert abs(told - 13.0) < 1.3


def test_percentiles_are_of_the_last_minutes_only():
    now = timezone.now().replace(second=0, microsecond=0)
    for minutes, bucket in ((0, 40), (3, 40), (20, 80)):
        at = now - timedelta(minutes=minutes)
        Tally.objects.create(
            minute=at, queue="mail", type="a", event=Event.SUCCEEDED, bucket=bucket, count=100
        )
        Tally.objects.create(minute=at, queue="mail", type="a", event=Event.ENQUEUED, count=1)
    for _ in range(2):
        told = scrape()
        for quantile in ("0.5", "0.95", "0.99"):
            value = told("job_run_quantile_seconds", quantile=quantile, **MAIL)
            assert value is not None
            # Bucket 40 holds 0.86 to 1.024 s.
            assert 0.86 < value <= 1.024
        assert told("job_wait_quantile_seconds", quantile="0.5", **MAIL) is None
        assert told("job_run_seconds_count", **MAIL) == 300
        fold()


def test_where_upkeep_stopped_long_ago_not_all_of_it_is_read_along(monkeypatch):
    monkeypatch.setattr(figures, "MAX_TAIL", 3)
    for _ in range(5):
        Tally.objects.create(
            minute=timezone.now(), queue="mail", type="a", event=Event.ENQUEUED, count=1
        )
    assert scrape()("jobs_enqueued_total", **MAIL) == 3
    fold()
    assert scrape()("jobs_enqueued_total", **MAIL) == 5


def test_fires_are_counted_by_what_became_of_them():
    schedule = make_schedule(misfire="skip")
    put_back(schedule, hours_ago(5))
    fire()
    on_time = make_schedule(name="on time")
    put_back(on_time, timezone.now() - timedelta(seconds=1))
    fire()
    assert Fire.objects.filter(state="fired").count() == 1
    missed = Fire.objects.get(reason="misfire")
    told = scrape()
    outcomes = {
        dict(rest)["outcome"]: value
        for rest, value in told.all("fires_total", cluster="alpha").items()
    }
    assert outcomes == {
        "fired": 1,
        "misfire": missed.count,
        "exclusion": 0,
        "overlap": 0,
        "no_rights": 0,
        "refused": 0,
    }
    assert missed.count >= 4


def test_an_instant_that_is_there_already_is_not_counted_again():
    schedule = make_schedule()
    Schedule.objects.filter(pk=schedule.pk).update(misfire_grace_seconds=7200)
    for _ in range(3):
        put_back(schedule, hours_ago(0))
        assert fire() == 1
    assert Total.objects.get(name=TotalName.FIRES, word="fired").count == 1


def test_a_run_that_is_refused_is_counted_as_refused():
    Queue.objects.create(name="full", max_entries=1)
    make_job(queue="full")
    schedule = make_schedule(queue="full")
    put_back(schedule, timezone.now() - timedelta(seconds=1))
    fire()
    assert dict(Total.objects.values_list("word", "count")) == {"refused": 1}


@pytest.mark.django_db(transaction=True)
def test_a_total_never_goes_back_while_others_fold_and_count(eventually):
    import threading

    from clusters.binding import cluster_bound

    stop = threading.Event()

    def work() -> None:
        with cluster_bound("alpha"):
            node = str(make_node().pk)
            while not stop.is_set():
                put()
                end(node, Outcome.FAILED, error="ValueError: no")
            connections[USING].close()

    def folding() -> None:
        with cluster_bound("alpha"):
            while not stop.is_set():
                fold()
                time.sleep(0.001)
            connections[USING].close()

    threads = [threading.Thread(target=work), threading.Thread(target=folding)]
    for thread in threads:
        thread.start()
    try:
        seen: list[tuple[float, ...]] = []
        deadline = time.monotonic() + 3
        while time.monotonic() < deadline:
            told = scrape()
            failed = finished(told).get(("failed", "error"), 0.0)
            seen.append((told("jobs_enqueued_total", **MAIL) or 0.0, failed))
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    for column in zip(*seen, strict=True):
        assert [*column] == sorted(column)
    assert finished(scrape())["failed", "error"] == Job.objects.filter(state=State.FAILED).count()
