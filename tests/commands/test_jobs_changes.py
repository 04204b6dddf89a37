"""`manage.py jobs`: why, edit, requeue, move and set-priority."""

from __future__ import annotations

import pytest

from jobs.models import Job
from tests.factories import make_job, make_node, make_queue

pytestmark = pytest.mark.usefixtures("alpha")
MISSING = "018f0000-0000-7000-8000-000000000000"


def test_why_tells_a_sentence_for_each_reason(run):
    make_node()
    make_queue("mail", is_paused=True, paused_by="anna", pause_reason="upgrade")
    job = make_job(queue="mail")
    done = run("jobs", "why", str(job.pk))
    assert done.code == 0
    assert done.out.count("\n") == 1
    assert "paused by anna" in done.out
    assert "upgrade" in done.out
    document = run("jobs", "why", str(job.pk), "-o", "json").json
    assert [reason["code"] for reason in document["reasons"]] == ["queue_paused"]


def test_show_says_why_a_job_waits_and_nothing_of_one_that_has_ended(run):
    waiting = make_job("scheduled")
    shown = run("jobs", "show", str(waiting.pk), "-o", "json").json
    assert {reason["code"] for reason in shown["why"]} == {"not_due", "no_node"}
    assert "No node is running" in run("jobs", "show", str(waiting.pk)).out
    ended = make_job("succeeded")
    assert "why" not in run("jobs", "show", str(ended.pk), "-o", "json").json


def test_a_job_is_edited(run):
    make_queue("fast")
    job = make_job(payload=1)
    words = ("--queue", "fast", "--priority", "-3", "--payload", '{"a": 2}')
    shown = run("jobs", "edit", str(job.pk), *words, "-o", "json").json
    assert (shown["queue"], shown["priority"], shown["payload"]) == ("fast", -3, {"a": 2})
    assert run("jobs", "edit", str(job.pk), "--payload", "null").code == 0
    assert Job.objects.get().payload is None


def test_a_job_gets_other_bytes(run, tmp_path):
    (tmp_path / "data").write_bytes(b"\0\xff")
    job = make_job(payload=1)
    assert run("jobs", "edit", str(job.pk), "--bytes-file", str(tmp_path / "data")).code == 0
    assert bytes(Job.objects.get().payload_bytes) == b"\0\xff"


@pytest.mark.parametrize(
    ("state", "words", "code"),
    [
        ("ready", (), 2),
        ("ready", ("--priority", "101"), 2),
        ("ready", ("--queue", "nowhere"), 2),
        ("ready", ("--payload", "{"), 2),
        ("running", ("--priority", "1"), 4),
        ("succeeded", ("--priority", "1"), 4),
    ],
)
def test_a_bad_edit_changes_nothing(run, state, words, code):
    job = make_job(state)
    before = Job.objects.filter(pk=job.pk).values().get()
    assert run("jobs", "edit", str(job.pk), *words).code == code
    assert Job.objects.filter(pk=job.pk).values().get() == before


def test_a_requeue_prints_the_ids_of_the_copies(run):
    one, two = make_job("failed"), make_job("succeeded")
    done = run("jobs", "requeue", str(one.pk), str(two.pk))
    copies = [Job.objects.get(pk=line) for line in done.out.split()]
    assert [copy.copy_of for copy in copies] == [one.pk, two.pk]


@pytest.mark.parametrize("verb", ["why", "edit", "requeue"])
def test_a_missing_job_is_3(run, verb):
    words = ("--priority", "1") if verb == "edit" else ()
    assert run("jobs", verb, MISSING, *words).code == 3


def test_a_unique_key_that_is_held_is_4(run):
    failed = make_job("failed", unique_key="k")
    make_job(unique_key="k")
    assert run("jobs", "requeue", str(failed.pk)).code == 4
    assert run("jobs", "retry", str(failed.pk)).code == 4


def test_one_job_moves_to_another_queue(run):
    make_queue("fast")
    job = make_job()
    for _ in range(2):
        done = run("jobs", "move", str(job.pk), "--to", "fast", "-o", "json")
        assert (done.code, done.json["queue"]) == (0, "fast")
    assert run("jobs", "move", str(make_job("running").pk), "--to", "fast").code == 4


def test_many_move_and_the_count_is_told(run):
    make_queue("fast")
    for state in ("ready", "scheduled", "running", "failed"):
        make_job(state, queue="slow")
    done = run("jobs", "move", "--queue", "slow", "--to", "fast", "--yes", "-o", "json")
    assert done.json == {"matched": 2, "changed": 2, "outcomes": {"moved": 2}}
    assert Job.objects.filter(queue="fast").count() == 2


def test_nothing_moves_to_a_queue_that_does_not_exist(run):
    job = make_job()
    assert run("jobs", "move", str(job.pk), "--to", "nowhere").code == 2
    assert run("jobs", "move", "--all", "--to", "nowhere", "--yes").code == 2
    assert Job.objects.get().queue == "default"


def test_many_get_another_priority(run):
    make_job(tags=["eu"])
    make_job()
    done = run("jobs", "set-priority", "--tag", "eu", "--to", "-5", "--yes", "-o", "json")
    assert done.json["outcomes"] == {"changed": 1}
    assert sorted(Job.objects.values_list("priority", flat=True)) == [-5, 0]
    assert run("jobs", "set-priority", "--all", "--to", "500", "--yes").code == 2
