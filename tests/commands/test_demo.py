"""manage.py demo: an empty cluster gets a day, whole and consistent, and no other one does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.db.models import F

from authn.keys import find_principal
from authn.models import ApiKey
from clusters.binding import cluster_bound
from clusters.models import AuditEntry, Node
from jobs import doctor, registry
from jobs.demo import fill
from jobs.demo.letters import LETTERS
from jobs.demo.plays import OF_CLUSTERS, PLAYS
from jobs.doctor.findings import FAIL, WARN
from jobs.models import (
    Attempt,
    BulkOperation,
    Calendar,
    Failure,
    Fire,
    Job,
    JobDependency,
    LogLine,
    Queue,
    Rollup,
    Schedule,
    StepsRun,
    Tally,
    WorkflowRun,
)
from jobs.models.rollup import DAY, HOUR, MINUTE
from jobs.states import FINAL, State
from tests.factories import make_job

JOBS = 1200
COUNTED = ("enqueued", "started", "succeeded", "failed", "cancelled", "skipped", "retried")
NOON = datetime(2031, 3, 4, 12, 34, 56, tzinfo=UTC)


def quiet(what: str, done: int, total: int) -> None:
    """Nobody watches."""


@pytest.fixture
def filled(run) -> Any:
    return run("demo", "--jobs", str(JOBS), "-o", "json")


def test_two_clusters_have_a_day_of_which_the_doctor_finds_nothing_wrong(filled):
    assert filled.code == 0, filled.err
    assert [*filled.json] == ["alpha", "beta"]
    assert sum(filled.json.values()) == JOBS
    for cluster_id, number in filled.json.items():
        with cluster_bound(cluster_id):
            assert Job.objects.count() == number
            _is_whole(number)
        found = doctor.examine(django_settings.CLUSTERS[cluster_id])
        bad = [one for one in found if one.status in (WARN, FAIL)]
        # What those of the test's own database server are is no matter of ours.
        assert [one for one in bad if one.check not in ("durability", "vacuum", "dead_rows")] == []
    _shows_what_people_come_for()


def _is_whole(number: int) -> None:
    """Each sort of row is there, and what is told twice is told alike."""
    assert {*Job.objects.values_list("state", flat=True)} == {*State.values}
    assert not Tally.objects.exists()
    tried = Attempt.objects.count()
    ended = {state: Job.objects.filter(state=state).count() for state in FINAL}
    for length in (MINUTE, HOUR, DAY):
        rows = Rollup.objects.filter(resolution_seconds=length, queue="", type="")
        sums = {name: sum(rows.values_list(name, flat=True)) for name in COUNTED}
        assert sums["enqueued"] == number
        assert {state: sums[state] for state in ended} == ended
        begun = Job.objects.filter(state__in=(State.RUNNING, State.WAITING)).count()
        assert sums["started"] == tried + begun
    # Times go one way, and none of them lies ahead.
    assert not Job.objects.filter(started_at__lt=F("created_at")).exists()
    assert not Job.objects.filter(finished_at__lt=F("started_at")).exists()
    assert not Attempt.objects.filter(finished_at__lt=F("started_at")).exists()
    latest = Job.objects.order_by("-finished_at").exclude(finished_at=None)[0].finished_at
    assert latest < datetime.now(UTC)
    for job in Job.objects.filter(state=State.SUCCEEDED)[:50]:
        last = Attempt.objects.of_job(job.pk).last()  # type: ignore[attr-defined]
        assert (last.fence, last.outcome, last.finished_at) == (
            job.fence,
            "succeeded",
            job.finished_at,
        )
    for failure in Failure.objects.all():
        assert failure.count >= Job.objects.filter(fingerprint=failure.fingerprint).count() > 0
    held = [*Node.objects.filter(status__in=("live", "draining"))]
    for node in held:
        running = Job.objects.filter(state=State.RUNNING, node_id=node.pk).count()
        assert node.running_jobs == running > 0
    blocked = Job.objects.filter(state=State.BLOCKED)
    for job in blocked:
        open_edges = JobDependency.objects.filter(child_id=job.pk, satisfied_at=None)
        assert open_edges.count() == job.pending_dependencies
    for waiting in StepsRun.objects.filter(job__state=State.WAITING):
        assert waiting.open_steps == 1
    for run_ in WorkflowRun.objects.all():
        assert Job.objects.filter(workflow_run_id=run_.pk).count() == len(run_.nodes)
    assert LogLine.objects.exists()
    assert {*BulkOperation.objects.values_list("status", flat=True)} == {"finished", "cancelled"}
    assert {"queues.pause", "settings.change", "bulk_operations.request"} <= {
        *AuditEntry.objects.values_list("verb", flat=True)
    }


def _shows_what_people_come_for() -> None:
    with cluster_bound("alpha"):
        assert {*Node.objects.values_list("status", flat=True)} == {
            *("live", "draining", "closed", "dead")
        }
        paused = Queue.objects.get(is_paused=True)
        assert paused.pause_reason
        assert paused.resume_at is not None
        assert Job.objects.filter(queue=paused.name, state="ready").exists()
        assert Job.objects.filter(is_held=True).exists()
        assert {*Fire.objects.values_list("state", flat=True)} == {"fired", "missed"}
        assert Schedule.objects.filter(next_run_at__lt=datetime.now(UTC)).count() == 1
        assert Schedule.objects.filter(consecutive_failures__gt=1).exists()
    with cluster_bound("beta"):
        (calendar,) = Calendar.objects.all()
        (payday,) = Schedule.objects.filter(name="Payday")
        assert payday.exclusions == {"calendars": [calendar.name]}


def test_the_full_day_has_a_group_of_2134_failures():
    largest = max(LETTERS.troubles, key=lambda trouble: trouble.failed)
    assert largest.failed == 2134
    # Each of them has one try, so members and failures are as many.
    assert LETTERS.work(largest.type).max_attempts == 1
    assert sum(play.jobs for play in PLAYS) == 100_000


def test_the_same_seed_makes_the_same_day(alpha):
    days = []
    for cluster_id in ("alpha", "beta"):
        assert fill(cluster_id, LETTERS, 300, 7, quiet, NOON) == 300
        with cluster_bound(cluster_id):
            rows = Job.objects.order_by("pk").exclude(schedule_id__isnull=False)
            days.append([*rows.values_list("pk", "type", "state", "payload", "finished_at")])
    assert len(days[0]) > 200
    assert days[0] == days[1]
    fill("beta", LETTERS, 200, 8, quiet, NOON)
    with cluster_bound("beta"):
        assert Job.objects.exclude(pk__in=[row[0] for row in days[0]]).exists()


@pytest.mark.once
@pytest.mark.parametrize("minute", [0, 23, 24, 29, 30, 54, 59])
def test_at_any_minute_of_the_hour_one_schedule_is_late(alpha, minute):
    now = NOON.replace(minute=minute)
    fill("alpha", LETTERS, 200, 7, quiet, now)
    schedule = Schedule.objects.get(name="Refresh segments")
    assert schedule.next_run_at is not None and schedule.last_due_at is not None
    assert schedule.last_due_at < schedule.next_run_at
    # Its alert fired 14 minutes ago, and waits for ten.
    assert timedelta(minutes=24) <= now - schedule.next_run_at < timedelta(minutes=55)


def test_a_cluster_that_has_jobs_is_left_alone_unless_told(run):
    with cluster_bound("beta"):
        mine = make_job()
    refused = run("demo", "--jobs", "200")
    assert refused.code == 4
    assert "beta" in refused.err
    with cluster_bound("alpha"):
        assert not Job.objects.exists()
    assert run("demo", "--jobs", "200", "--if-empty", "-o", "json").json == {"alpha": 200}
    with cluster_bound("beta"):
        assert Job.objects.count() == 1
    assert run("demo", "--jobs", "200", "--cluster", "beta", "--add").code == 0
    with cluster_bound("beta"):
        assert Job.objects.filter(pk=mine.pk).exists()
        assert Job.objects.count() == 201


def test_production_is_never_filled(run, settings):
    clusters = dict(settings.CLUSTERS)
    settings.CLUSTERS = clusters | {"beta": replace(clusters["beta"], environment="production")}
    for words in ((), ("--add",), ("--cluster", "beta", "--add")):
        refused = run("demo", "--jobs", "200", *words)
        assert refused.code == 1
        assert "production" in refused.err
    for cluster_id in ("alpha", "beta"):
        with cluster_bound(cluster_id):
            assert not Job.objects.exists()


def test_what_cannot_be_filled_is_refused(run):
    assert run("demo", "--jobs", "3").code == 2
    assert run("demo", "--cluster", "nowhere").code == 3


def test_nobody_can_sign_in_as_one_of_its_people_and_its_keys_open_nothing(filled, run):
    users = get_user_model().objects.exclude(username="root")
    assert users.filter(username="oncall").exists()
    assert not [user for user in users if user.has_usable_password()]
    key = ApiKey.objects.get(name="shop")
    assert find_principal(f"ym_{key.public_id}_{'0' * 64}") is None
    # A second day finds them.
    assert run("demo", "--jobs", "200", "--add").code == 0
    assert ApiKey.objects.filter(name="shop").count() == 1


def test_live_nodes_know_its_work_and_each_payload_of_it():
    registry.discover(["jobs.demo.handlers"])
    for play in OF_CLUSTERS.values():
        for work in play.works:
            if work.kind != "python":
                continue
            handler = registry.find(work.type)
            assert handler is not None, work.type
    said: list[str] = []
    context = SimpleNamespace(id="1", log=lambda *parts: said.append(" ".join(parts)))
    work = LETTERS.work("letter:send")
    result = registry.find("letter:send").handler(context, {})  # type: ignore[misc]
    assert [*result] == ["message_id"]
    assert said == [*work.lines]
