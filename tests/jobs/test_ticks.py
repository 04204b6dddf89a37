from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from clusters.policy import ClusterPolicy
from jobs.engine import ticks
from jobs.engine.ticks import promote_due
from jobs.models import Job
from jobs.states import State
from tests.factories import make_job


def test_only_what_is_due_becomes_ready(alpha):
    due = make_job(State.SCHEDULED, run_at=timezone.now() - timedelta(seconds=1))
    later = make_job(State.SCHEDULED, run_at=timezone.now() + timedelta(hours=1))
    assert promote_due("cluster-alpha", ClusterPolicy()) == 1
    assert Job.objects.get(pk=due.pk).state == State.READY
    assert Job.objects.get(pk=later.pk).state == State.SCHEDULED


def test_a_flood_of_due_jobs_is_promoted_in_batches(alpha, monkeypatch):
    monkeypatch.setattr(ticks, "BATCH", 4)
    for _ in range(10):
        make_job(State.SCHEDULED, run_at=timezone.now() - timedelta(seconds=1))
    assert promote_due("cluster-alpha", ClusterPolicy()) == 10


def test_promotion_keeps_the_due_time_and_with_it_the_place_in_the_queue(alpha):
    run_at = timezone.now() - timedelta(minutes=5)
    job = make_job(State.SCHEDULED, run_at=run_at)
    promote_due("cluster-alpha", ClusterPolicy())
    assert Job.objects.get(pk=job.pk).run_at == run_at
