"""`manage.py jobs bulk`, `bulk-list` and `bulk-stop`."""

from __future__ import annotations

import threading

import pytest

from clusters.binding import cluster_bound
from clusters.policy import DEFAULTS
from jobs.engine import bulk
from jobs.management.bulk import BulkVerbs
from jobs.models import BulkOperation, Job
from jobs.states import State
from tests.factories import make_job, make_node, make_queue

pytestmark = pytest.mark.usefixtures("alpha")
CANCEL = ("jobs", "bulk", "--action", "cancel", "--filter", "queue=mail", "--reason", "off")


def test_it_asks_and_does_nothing_itself(run):
    make_node()
    job = make_job(State.READY, queue="mail")
    done = run(*CANCEL, "-o", "json")
    assert done.code == 0
    assert done.err == ""
    operation = BulkOperation.objects.get()
    assert done.json["id"] == str(operation.pk)
    assert (operation.filter, operation.reason) == ({"queue": "mail"}, "off")
    assert operation.requested_by.startswith("cli:")
    job.refresh_from_db()
    assert job.state == State.READY
    bulk.advance("cluster-alpha", DEFAULTS)
    job.refresh_from_db()
    assert job.state == State.CANCELLED


@pytest.mark.parametrize("status", ["closed", "dead", None])
def test_it_says_so_when_nobody_is_there_to_do_it(run, status):
    if status:
        make_node(status)
    done = run(*CANCEL)
    assert done.code == 0
    assert "No node is live" in done.err
    assert run(*CANCEL, "--wait").code == 1
    assert BulkOperation.objects.filter(status="pending").count() == 2


def test_a_node_that_has_not_been_heard_of_is_not_counted_on(run):
    from datetime import timedelta

    from django.utils import timezone

    make_node(lease_until=timezone.now() - timedelta(seconds=1))
    assert "No node is live" in run(*CANCEL).err


def test_a_dry_run_counts_samples_and_stores_nothing(run):
    job = make_job(State.READY, queue="mail")
    make_job(State.FAILED, queue="mail")
    words = ("jobs", "bulk", "--action", "cancel", "--filter", "queue=mail", "--dry-run")
    shown = run(*words)
    assert "2 jobs match" in shown.out and "1 ready" in shown.out
    assert "1 of them would be done" in shown.out
    assert str(job.pk) in shown.out
    assert run(*words, "-o", "json").json["by_state"] == {"ready": 1, "failed": 1}
    assert not BulkOperation.objects.exists()


def test_every_argument_can_be_said(run):
    make_queue("b")
    for words, arguments in (
        (("--action", "move", "--to-queue", "b"), {"queue": "b"}),
        (("--action", "set_priority", "--priority", "-5"), {"priority": -5}),
        (("--action", "retry", "--spread", "10m"), {"spread_seconds": 600}),
        (("--action", "cancel", "--limit", "10"), {"limit": 10}),
    ):
        done = run("jobs", "bulk", *words, "--all", "--reason", "r", "-o", "json")
        assert (done.json["arguments"], done.json["filter"]) == (arguments, {"all": True}), done.err


def test_conditions_of_one_word_are_a_list_where_the_word_has_one(run):
    words = ("--filter", "state=failed", "--filter", "state=cancelled", "--filter", "is_held=false")
    done = run("jobs", "bulk", "--action", "retry", *words, "--reason", "r", "-o", "json")
    assert done.json["filter"] == {"state": ["failed", "cancelled"], "is_held": False}


@pytest.mark.once
@pytest.mark.parametrize(
    "words",
    [
        ("--action", "explode", "--all", "--reason", "r"),
        ("--action", "cancel", "--reason", "r"),
        ("--action", "cancel", "--all"),
        ("--action", "cancel", "--all", "--filter", "queue=a", "--reason", "r"),
        ("--action", "cancel", "--filter", "queue", "--reason", "r"),
        ("--action", "cancel", "--filter", "color=red", "--reason", "r"),
        ("--action", "cancel", "--filter", "state=explode", "--reason", "r"),
        ("--action", "cancel", "--filter", "queue=a", "--filter", "queue=b", "--reason", "r"),
        ("--action", "cancel", "--filter", "queue=", "--reason", "r"),
        ("--action", "move", "--all", "--reason", "r"),
        ("--action", "move", "--all", "--reason", "r", "--to-queue", "nope"),
        ("--action", "set_priority", "--all", "--reason", "r", "--priority", "1000"),
        ("--action", "cancel", "--all", "--reason", "r", "--spread", "1m"),
        ("--action", "cancel", "--all", "--reason", "r", "--limit", "0"),
    ],
)
def test_what_makes_no_sense_is_2_and_nothing_is_stored(run, words):
    done = run("jobs", "bulk", *words)
    assert (done.code, done.out) == (2, ""), done.err
    assert done.err
    assert not BulkOperation.objects.exists()


def test_the_operations_are_listed_and_one_is_stopped(run):
    first = run(*CANCEL, "-o", "json").json["id"]
    second = run(*CANCEL, "-o", "json").json["id"]
    items = run("jobs", "bulk-list", "-o", "json").json["items"]
    assert [item["id"] for item in items] == [second, first]
    assert first in run("jobs", "bulk-list").out
    stopped = run("jobs", "bulk-stop", first, "-o", "json")
    assert (stopped.code, stopped.json["status"]) == (0, "cancelled")
    while bulk.advance("cluster-alpha", DEFAULTS):
        pass
    assert run("jobs", "bulk-stop", second).code == 4
    assert run("jobs", "bulk-stop", "018f0000-0000-7000-8000-000000000000").code == 3


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("ends", ["finished", "cancelled"])
def test_waiting_ends_with_the_operation_and_says_how(run, transactional_db, monkeypatch, ends):
    make_node()
    for _ in range(3):
        make_job(State.READY, queue="mail")
    drawn = []
    begun = threading.Event()

    def follow_with_a_node(self, operation):
        """The node is a thread beside the command."""

        def node():
            begun.wait(60)
            with cluster_bound("alpha"):
                if ends == "cancelled":
                    bulk.cancel(operation.pk, by="anna")
                while bulk.advance("cluster-alpha", DEFAULTS):
                    pass
            from django.db import connections

            connections.close_all()

        thread = threading.Thread(target=node)
        thread.start()
        try:
            return follow(self, operation)
        finally:
            thread.join()

    follow = BulkVerbs._follow
    monkeypatch.setattr(BulkVerbs, "_follow", follow_with_a_node)
    sleep = bulk.time.sleep
    monkeypatch.setattr(
        "jobs.management.bulk.time.sleep",
        lambda seconds: (drawn.append(seconds), begun.set(), sleep(seconds)),
    )
    done = run(*CANCEL, "--wait", "-o", "json")
    assert drawn
    assert done.json["status"] == ends
    assert done.code == (0 if ends == "finished" else 1)
    cancelled = Job.objects.filter(state=State.CANCELLED).count()
    assert cancelled == (3 if ends == "finished" else 0)


def test_a_condition_may_be_a_line_of_the_screen(run):
    make_job(State.FAILED, error="timed out", queue="mail")
    make_job(State.FAILED, error="no route", queue="mail")
    line = ("--filter", 'state:failed queue:mail error:"timed out"')
    done = run("jobs", "bulk", "--action", "retry", *line, "--dry-run", "-o", "json")
    assert done.json["count"] == 1, done.err
    listed = run("jobs", "list", *line, "-o", "json")
    assert [job["error"] for job in listed.json["items"]] == ["timed out"], listed.err
    for wrong in ("state:lost", "colour:red", "queue", 'error:"x', " "):
        for words in (("list",), ("bulk", "--action", "retry", "--reason", "r")):
            done = run("jobs", *words, "--filter", wrong)
            assert (done.code, done.out) == (2, ""), wrong
            assert not BulkOperation.objects.exists()
