"""`manage.py restored`, and what other commands say of a cluster that waits."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.conf import settings
from django.utils import timezone

from clusters.models import ClusterSetting, Node, forget_policies
from jobs import doctor
from jobs.doctor.findings import FAIL, OK
from jobs.models import Job
from jobs.states import State
from tests.factories import make_job, make_node

pytestmark = pytest.mark.usefixtures("alpha")


@pytest.fixture
def job() -> Job:
    """One that was running when the backup was taken."""
    then = timezone.now() - timedelta(hours=1)
    node = make_node(heartbeat_at=then, lease_until=then)
    return make_job(State.RUNNING, node=node, started_at=then, type="test:lost")


def test_a_marked_cluster_shows_what_is_uncertain(run, job):
    make_job()
    assert run("restored", "show", "-o", "json").json == {"awaits_confirmation": False, "items": []}
    assert run("restored", "mark").code == 0
    shown = run("restored", "show", "-o", "json").json
    assert (shown["awaits_confirmation"], shown["unstarted"]) == (True, 1)
    assert shown["by"].startswith("cli:")
    assert shown["last_heartbeat_at"] is not None
    (item,) = shown["items"]
    assert (item["id"], item["type"], item["queue"]) == (str(job.pk), "test:lost", "default")
    assert (item["node_id"], item["on_lost"]) == (str(job.node_id), "retry")
    assert item["started_at"] is not None
    assert str(job.pk) in run("restored", "show").out
    assert "before" in run("restored", "mark").err


def test_confirming_wants_a_decision_and_a_yes(run, job):
    run("restored", "mark")
    undecided = run("restored", "confirm", "--yes", "-o", "json")
    assert undecided.code == 2
    assert json.loads(undecided.err)["errors"][0]["field"] == "uncertain"
    assert run("restored", "confirm", "--uncertain", "hold").code == 2
    assert run("restored", "confirm", "--uncertain", "maybe", "--yes").code == 2
    assert Job.objects.get(pk=job.pk).state == State.RUNNING
    done = run("restored", "confirm", "--uncertain", "hold", "--yes", "-o", "json")
    assert (done.code, done.json) == (0, {"decided": 1})
    assert Job.objects.get(pk=job.pk).is_held
    assert run("restored", "confirm", "--yes").code == 4


def test_each_job_may_go_by_its_own_word(run, job):
    Job.objects.filter(pk=job.pk).update(on_lost="fail")
    run("restored", "mark")
    assert run("restored", "confirm", "--uncertain", "own", "--yes").code == 0
    job.refresh_from_db()
    assert (job.state, job.is_held) == (State.FAILED, False)


def test_with_nothing_uncertain_a_yes_is_enough(run):
    run("restored", "mark")
    assert run("restored", "confirm", "--yes").code == 0


def test_a_cluster_that_waits_is_shown_as_such(run):
    assert run("clusters", "show", "alpha", "-o", "json").json["awaits_confirmation"] is False
    run("restored", "mark")
    assert run("clusters", "show", "alpha", "-o", "json").json["awaits_confirmation"] is True
    assert "restored" not in run("clusters", "show", "alpha", "-o", "json").json["settings"]


def test_the_doctor_fails_a_cluster_that_waits_and_says_only_that_of_it(job):
    make_node(version=settings.VERSION, started_at=timezone.now() - timedelta(days=1))
    Node.objects.filter(pk=job.node_id).update(status="dead", closed_at=job.started_at)
    before = {f.check: f for f in doctor.examine(settings.CLUSTERS["alpha"])}
    assert (before["restored"].status, before["lost_jobs"].status) == (OK, FAIL)
    ClusterSetting.objects.all().mark_restored(by="cli:ops")
    forget_policies()
    found = doctor.examine(settings.CLUSTERS["alpha"])
    (finding,) = [f for f in found if f.check == "restored"]
    assert finding.status == FAIL
    assert "cli:ops" in finding.found
    assert finding.details["uncertain"] == 1
    assert not [f for f in found if f.check == "lost_jobs"]
    late = {f.details["duty"] for f in found if f.check == "duties" and f.status == FAIL}
    assert "expire_due" in late
    assert "prune" not in late
