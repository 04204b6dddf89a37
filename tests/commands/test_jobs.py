"""`manage.py jobs`."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.utils import timezone

from jobs.models import Job, LogLine, Step
from jobs.states import State
from tests.factories import make_attempt, make_job, make_queue
from tests.jobs.steps.cases import do
from tests.jobs.steps.cases import run as run_steps

pytestmark = pytest.mark.usefixtures("alpha")
MISSING = "018f0000-0000-7000-8000-000000000000"


# -- list, show, attempts, logs --------------------------------------------------------------------


def test_a_list_shows_the_newest_first_and_goes_on_where_it_ended(run):
    now = timezone.now()
    jobs = [make_job(created_at=now - timedelta(seconds=n // 2)) for n in range(5)]
    expected = [str(j.pk) for j in sorted(jobs, key=lambda j: (j.created_at, j.pk), reverse=True)]
    seen, after = [], []
    for _ in range(3):
        page = run("jobs", "list", "-o", "json", "--limit", "2", *after).json
        seen += [item["id"] for item in page["items"]]
        after = ["--after", page["next"]]
    assert seen == expected
    assert page["next"] is None


def test_filters_narrow_a_list(run):
    make_queue("mail")
    job = make_job("failed", queue="mail", type="email:new", tags=["eu"])
    make_job("succeeded", created_at=timezone.now() - timedelta(days=2))
    for words in (
        ("--state", "failed", "--state", "running"),
        ("--queue", "mail"),
        ("--type", "email:new"),
        ("--tag", "eu"),
        ("--since", "1d"),
        ("--kind", "python", "--state", "failed"),
    ):
        items = run("jobs", "list", "-o", "json", *words).json["items"]
        assert [item["id"] for item in items] == [str(job.pk)], words


def test_a_list_says_so_when_there_is_nothing(run):
    done = run("jobs", "list", "-o", "json")
    assert done.json == {"items": [], "next": None, "previous": None}
    assert run("jobs", "list").out.split() == [
        *("ID", "STATE", "TYPE", "QUEUE", "ATTEMPTS", "CREATED", "ERROR")
    ]


def test_show_has_all_that_is_known(run):
    job = make_job("failed", payload={"a": 1}, error="Boom\n  in detail")
    shown = run("jobs", "show", str(job.pk), "-o", "json").json
    assert (shown["payload"], shown["error"], shown["reason"]) == (
        {"a": 1},
        "Boom\n  in detail",
        "error",
    )
    assert "in detail" in run("jobs", "show", str(job.pk)).out


@pytest.mark.parametrize("verb", ["show", "attempts", "logs", "cancel", "retry", "run-now"])
def test_a_missing_job_is_3(run, verb):
    done = run("jobs", verb, MISSING)
    assert (done.code, done.out) == (3, "")
    assert MISSING in done.err


def test_attempts_are_listed_with_the_one_that_runs(run):
    job = make_job("running", fence=2, attempts=2)
    make_attempt(job, fence=1)
    items = run("jobs", "attempts", str(job.pk), "-o", "json").json["items"]
    assert [(item["number"], item["outcome"]) for item in items] == [(1, "failed"), (2, None)]
    assert "running" in run("jobs", "attempts", str(job.pk)).out


def test_logs_show_the_last_lines_in_order(run):
    job = make_job("succeeded")
    for number in range(5):
        LogLine.objects.create(job=job, fence=1, stream="stdout", message=f"line {number}\x1b")
    done = run("jobs", "logs", str(job.pk), "--limit", "2")
    assert [line.split()[-2:] for line in done.out.splitlines()] == [
        ["line", "3\\x1b"],
        ["line", "4\\x1b"],
    ]
    items = run("jobs", "logs", str(job.pk), "-o", "json").json["items"]
    assert len(items) == 5


def test_following_the_log_of_a_job_that_has_ended_ends(run):
    job = make_job("succeeded")
    LogLine.objects.create(job=job, fence=1, stream="log", level="info", message="hello")
    done = run("jobs", "logs", str(job.pk), "--follow", "-o", "json")
    assert [json.loads(line)["message"] for line in done.out.splitlines()] == ["hello"]


# -- enqueue ---------------------------------------------------------------------------------------


def test_enqueue_prints_the_id_and_nothing_else(run):
    done = run("jobs", "enqueue", "demo:echo", "--payload", '{"a": 1}', "--tag", "x")
    job = Job.objects.get()
    assert done.out == f"{job.pk}\n"
    assert (job.payload, job.tags, job.state) == ({"a": 1}, ["x"], "ready")
    assert job.enqueued_by.startswith("cli:")


def test_all_that_can_be_said_of_a_job_can_be_said_here(run, tmp_path):
    make_queue("mail")
    (tmp_path / "bytes").write_bytes(b"\x00\xff")
    done = run(
        *("jobs", "enqueue", "email:new", "--bytes-file", str(tmp_path / "bytes")),
        *("--queue", "mail", "--priority", "-5", "--delay", "2h", "--max-attempts", "7"),
        *("--timeout", "1.5m", "--on-lost", "hold", "--id", MISSING, "-o", "json"),
    )
    assert done.code == 0, done.err
    job = Job.objects.get(pk=MISSING)
    assert bytes(job.payload_bytes) == b"\x00\xff"
    assert (job.queue, job.priority, job.state) == ("mail", -5, "scheduled")
    assert (job.max_attempts, job.timeout_seconds, job.on_lost) == (7, 90, "hold")
    assert done.json["created"] is True
    assert done.json["payload_base64"] == "AP8="


def test_policies_of_a_job_have_options(run):
    parent = make_job()
    done = run(
        *("jobs", "enqueue", "email:new", "--expires-in", "1h", "--deadline", "2h"),
        *("--progress-timeout", "5s", "--retry-base", "0s", "--retry-cap", "1m"),
        *("-m", "tenant=acme", "-m", "size=5", "-m", "vip=true", "-m", 'code="7"', "-m", "odd=[1]"),
        *("--unique-key", "k", "--depends-on", str(parent.pk), "--needs", "any"),
        *("--on-dependency-failure", "skip"),
    )
    assert done.code == 0, done.err
    job = Job.objects.get(unique_key="k")
    assert (job.state, job.priority) == ("blocked", 0)
    assert job.expires_at - job.run_at == timedelta(hours=1)
    assert job.deadline_at - job.run_at == timedelta(hours=2)
    assert (job.progress_timeout_seconds, job.retry_base_seconds, job.retry_cap_seconds) == (
        5,
        0,
        60,
    )
    assert job.metadata == {"tenant": "acme", "size": 5, "vip": True, "code": "7", "odd": "[1]"}
    edge = job.dependencies.get()
    assert (edge.parent_id, edge.needs, edge.on_failure) == (parent.pk, "any", "skip")
    done = run("jobs", "enqueue", "email:new", "--unique-key", "k")
    assert (done.code, done.out) == (0, f"{job.pk}\n")
    assert "before" in done.err


def test_where_in_the_payload_a_mistake_is_stands_in_the_message(run):
    done = run("jobs", "enqueue", "--kind", "shell", "--payload", '{"argv": "ls"}')
    assert done.code == 2
    assert "payload.argv: a list" in done.err


def test_a_full_queue_is_4(run):
    make_queue("mail", max_entries=1)
    make_job(queue="mail")
    assert run("jobs", "enqueue", "demo:noop", "--queue", "mail").code == 4


def test_a_repeat_with_the_same_id_says_so_and_other_content_is_a_conflict(run):
    run("jobs", "enqueue", "demo:noop", "--id", MISSING)
    done = run("jobs", "enqueue", "demo:noop", "--id", MISSING)
    assert (done.code, done.out) == (0, f"{MISSING}\n")
    assert "before" in done.err
    assert run("jobs", "enqueue", "demo:echo", "--id", MISSING).code == 4
    assert Job.objects.count() == 1


@pytest.mark.once
@pytest.mark.parametrize(
    "words",
    [
        ("demo:noop", "--payload", "{"),
        ("demo:noop", "--payload", "NaN"),
        ("demo:noop", "--payload", "[" * 100_000),
        ("demo:noop", "--payload-file", "/nowhere"),
        ("demo:noop", "--queue", "nowhere"),
        ("demo:noop", "--priority", "1000"),
        ("demo:noop", "--priority", "high"),
        ("demo:noop", "--delay", "soon"),
        ("demo:noop", "--run-at", "2030-01-01"),
        ("demo:noop", "--delay", "1s", "--run-at", "2030-01-01T00:00:00Z"),
        ("demo:noop", "--kind", "pickle"),
        ("demo:noop", "--id", "7"),
        ("demo:noop", "-m", "tenant"),
        ("demo:noop", "-m", "a b=1"),
        ("demo:noop", "-m", "a=1e999"),
        ("demo:noop", "--depends-on", "7"),
        ("demo:noop", "--depends-on", MISSING),
        ("demo:noop", "--needs", "most"),
        ("demo:noop", "--expires-at", "2020-01-01T00:00:00Z"),
        ("demo:noop", "--expires-in", "1h", "--expires-at", "2031-01-01T00:00:00Z"),
        ("demo:noop", "--unique-key", ""),
        ("not a type",),
        (),
        ("--kind", "http", "--payload", '{"url": "gopher://x"}'),
    ],
)
def test_bad_input_is_2_with_a_sentence(run, words):
    done = run("jobs", "enqueue", *words)
    assert (done.code, done.out) == (2, "")
    assert done.err
    assert "Traceback" not in done.err
    assert Job.objects.count() == 0


# -- cancel, retry, run-now, delete ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "before", "after"),
    [
        ("cancel", "ready", "cancelled"),
        ("retry", "failed", "ready"),
        ("run-now", "scheduled", "ready"),
    ],
)
def test_one_job_is_moved_and_shown(run, verb, before, after):
    job = make_job(before)
    done = run("jobs", verb, str(job.pk), "-o", "json")
    assert (done.code, done.json["state"]) == (0, after)
    assert Job.objects.get().state == after


@pytest.mark.parametrize(
    ("verb", "state"),
    [("cancel", "succeeded"), ("retry", "ready"), ("run-now", "ready"), ("delete", "running")],
)
def test_a_move_the_state_does_not_allow_is_4(run, verb, state):
    job = make_job(state)
    words = ("--yes",) if verb == "delete" else ()
    done = run("jobs", verb, str(job.pk), *words)
    assert (done.code, done.out) == (4, "")
    assert Job.objects.get().state == state


def test_of_several_ids_each_is_told_and_a_part_that_failed_is_1(run):
    good, bad = make_job("failed"), make_job("succeeded")
    done = run("jobs", "retry", str(good.pk), str(bad.pk), MISSING, "-o", "json")
    assert done.code == 1
    by_id = {item["id"]: item for item in done.json["items"]}
    assert by_id[str(good.pk)] == {"id": str(good.pk), "ok": True, "state": "ready"}
    assert by_id[str(bad.pk)]["problem"]["code"] == "invalid_transition"
    assert by_id[MISSING]["problem"]["code"] == "not_found"


def test_many_by_filter_need_a_yes_where_nobody_can_answer(run):
    make_queue("mail")
    for _ in range(3):
        make_job(queue="mail")
    other = make_job()
    done = run("jobs", "cancel", "--queue", "mail")
    assert done.code == 2
    assert "--yes" in done.err
    assert not Job.objects.filter(state="cancelled").exists()
    done = run("jobs", "cancel", "--queue", "mail", "--yes", "-o", "json")
    assert done.json == {"matched": 3, "changed": 3, "outcomes": {"cancelled": 3}}
    assert Job.objects.filter(state="cancelled", queue="mail").count() == 3
    assert Job.objects.get(pk=other.pk).state == "ready"


def test_many_that_wait_for_their_steps_are_cancelled_too(run):
    for _ in range(2):
        make_job("waiting", kind="steps", type="steps", has_dependants=True)
    make_job("running", cancel_requested_at=timezone.now())
    done = run("jobs", "cancel", "--all", "--yes", "-o", "json")
    assert (done.json["matched"], done.json["changed"]) == (2, 2)
    assert Job.objects.filter(kind="steps", cancel_requested_at__isnull=False).count() == 2


def test_one_that_waits_for_its_steps_is_asked_to_stop(run):
    jobs = [make_job("waiting", kind="steps", type="steps", has_dependants=True) for _ in range(2)]
    done = run("jobs", "cancel", *(str(job.pk) for job in jobs), "-o", "json")
    assert [item["state"] for item in done.json["items"]] == ["asked to stop"] * 2


def test_a_dry_run_counts_and_changes_nothing(run):
    for _ in range(7):
        make_job("failed")
    done = run("jobs", "retry", "--all", "--dry-run", "-o", "json")
    assert (done.json["matched"], done.json["changed"], len(done.json["sample"])) == (7, 0, 5)
    assert Job.objects.filter(state="failed").count() == 7


def test_many_are_moved_portion_by_portion(run, monkeypatch):
    monkeypatch.setattr("jobs.management.job_actions.PORTION", 2)
    for _ in range(5):
        make_job("failed")
    assert run("jobs", "retry", "--all", "--yes", "-o", "json").json["changed"] == 5
    for _ in range(5):
        make_job("succeeded")
    done = run("jobs", "delete", "--state", "succeeded", "--yes", "-o", "json")
    assert done.json["changed"] == 5
    assert Job.objects.count() == 5


def test_retry_of_all_leaves_held_jobs_to_a_person(run):
    held = make_job("failed", is_held=True)
    make_job("failed")
    run("jobs", "retry", "--all", "--yes")
    assert [*Job.objects.filter(state="failed")] == [held]
    assert run("jobs", "retry", str(held.pk)).code == 0


@pytest.mark.parametrize("words", [(), (MISSING, "--all"), (MISSING, "--state", "failed")])
def test_it_must_be_clear_which_jobs_are_meant(run, words):
    assert run("jobs", "cancel", *words).code == 2


def test_a_running_job_is_asked_to_stop(run):
    job = make_job("running")
    assert "asked to stop" in run("jobs", "cancel", str(job.pk)).out
    job.refresh_from_db()
    assert (job.state, job.cancel_requested_at is None) == (State.RUNNING, False)


def test_steps_are_shown_as_a_tree_and_logs_with_their_names(run):
    inner = {"steps": [do("deep")]}
    job = run_steps(
        do("first"),
        {"name": "both", "parallel": [do("left", {"fail": "no luck"}, continue_on_error=True)]},
        {"name": "sub", "subjob": inner},
    )
    rows = [line.split(maxsplit=3) for line in run("jobs", "steps", str(job.pk)).out.splitlines()]
    assert [row[0] for row in rows] == [
        "succeeded",
        "succeeded",
        "failed",
        "succeeded",
        "succeeded",
    ]
    shown = run("jobs", "steps", str(job.pk)).out
    at = [shown.index(name) for name in ("first", "both", "  left  no luck", "sub", "  deep")]
    assert at == sorted(at)
    items = run("jobs", "steps", str(job.pk), "-o", "json").json["items"]
    assert [item["name"] for item in items] == ["first", "both", "left", "sub", "deep"]
    step = Step.objects.get(name="deep")
    LogLine.objects.create(job_id=step.job_id, fence=1, stream="stdout", message="from below")
    for flags in ((), ("--follow",)):
        assert "[deep] from below" in run("jobs", "logs", str(job.pk), *flags).out
    assert "from below" not in run("jobs", "logs", str(job.pk), "--own").out
