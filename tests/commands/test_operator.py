"""What all operator commands have in common: exit codes, streams, the choice of the cluster."""

from __future__ import annotations

import argparse
import json
import os
import pty
import subprocess
import sys

import pytest
from django.db import DatabaseError, OperationalError

from clusters.binding import cluster_bound
from clusters.csv_text import printable
from clusters.management.base import database_failure, duration, moment
from jobs.models import Job
from tests.factories import make_job
from tests.processes import ROOT, manage, worker_environment

DEAD = "postgresql://nobody:hush@127.0.0.1:1/gone"


def test_a_usage_error_is_2_and_on_stderr(transactional_db):
    done = manage("jobs", "list", "--limit", "none", "--cluster", "alpha")
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: manage.py jobs list" in done.stderr


def test_under_json_every_error_is_a_problem_object(transactional_db):
    for words, code, status in (
        (("jobs", "list", "--limit", "none"), 2, 400),
        (("jobs", "show", "018f0000-0000-7000-8000-000000000000"), 3, 404),
        (("queues", "create", "default"), 4, 409),
        (("jobs", "list", "--cluster", "gamma"), 3, 404),
    ):
        env = worker_environment(YARDMASTER_CLUSTER="alpha")
        done = manage(*words, "-o", "json", env=env)
        assert (done.returncode, done.stdout) == (code, ""), done.stderr
        problem = json.loads(done.stderr)
        assert problem["status"] == status
        assert {"type", "title", "code", "detail", "errors"} <= problem.keys()


def test_a_cluster_must_be_named_where_there_are_several(run, monkeypatch):
    monkeypatch.delenv("YARDMASTER_CLUSTER")
    done = run("jobs", "list")
    assert done.code == 2
    assert "alpha, beta" in done.err


def test_a_flag_beats_the_environment(run):
    with cluster_bound("beta"):
        job = make_job()
    assert str(job.pk) in run("jobs", "list", "--cluster", "beta").out
    assert str(job.pk) not in run("jobs", "list").out


def test_the_only_cluster_need_not_be_named(transactional_db):
    env = worker_environment()
    env["YARDMASTER_CLUSTERS"] = env["YARDMASTER_CLUSTERS"].split(",beta=")[0]
    done = manage("queues", "list", env=env)
    assert done.returncode == 0, done.stderr
    assert "default" in done.stdout


def test_an_unreachable_cluster_is_5_without_a_traceback_or_a_password(transactional_db):
    done = manage("jobs", "list", env=worker_environment(YARDMASTER_CLUSTERS=f"dead={DEAD}"))
    assert (done.returncode, done.stdout) == (5, "")
    assert "unreachable" in done.stderr
    assert "Traceback" not in done.stderr
    assert "hush" not in done.stderr


def test_a_missing_file_is_5_and_is_not_created(transactional_db, tmp_path):
    path = tmp_path / "none.sqlite3"
    env = worker_environment(YARDMASTER_CLUSTERS=f"none=sqlite:///{path}")
    done = manage("jobs", "list", env=env)
    assert done.returncode == 5
    assert "migrate" in done.stderr
    assert not path.exists()


def test_a_database_that_was_never_migrated_says_so(transactional_db, tmp_path):
    path = tmp_path / "empty.sqlite3"
    path.touch()
    env = worker_environment(YARDMASTER_CLUSTERS=f"empty=sqlite:///{path}")
    done = manage("jobs", "list", env=env)
    assert done.returncode == 1
    assert "manage.py migrate" in done.stderr
    assert "Traceback" not in done.stderr


def test_arguments_that_are_no_utf_8_are_refused(transactional_db):
    done = subprocess.run(
        [sys.executable, "manage.py", "queues", "show", b"\xff", "--cluster", "alpha"],
        cwd=ROOT,
        env=worker_environment(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough_is_no_error(transactional_db):
    with cluster_bound("alpha"):
        for _ in range(300):
            make_job(type="x" * 200)
    process = subprocess.Popen(
        [sys.executable, "manage.py", "jobs", "list", "--cluster", "alpha", "--limit", "300"],
        cwd=ROOT,
        env=worker_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout and process.stderr
    process.stdout.read(10)
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    process.wait(30)
    assert errors == b""


def on_terminal(*words: str, answer: bytes = b"", **env: str) -> tuple[int, bytes]:
    """Run with a terminal as stdin, stdout and stderr; all that it shows comes back."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "manage.py", *words],
        cwd=ROOT,
        env={**worker_environment(YARDMASTER_CLUSTER="alpha"), "TERM": "xterm", **env},
        stdin=child,
        stdout=child,
        stderr=child,
    )
    os.close(child)
    os.write(parent, answer)
    shown = b""
    while True:
        try:
            part = os.read(parent, 4096)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(parent)
    return process.wait(30), shown


@pytest.mark.parametrize(("answer", "left"), [(b"n\n", 1), (b"\n", 1), (b"y\n", 0)])
def test_deleting_asks_on_a_terminal(transactional_db, answer, left):
    with cluster_bound("alpha"):
        job = make_job("succeeded")
    code, shown = on_terminal("jobs", "delete", str(job.pk), answer=answer)
    assert b"Delete 1 job" in shown
    assert code == left
    with cluster_bound("alpha"):
        assert Job.objects.count() == left


def test_colour_is_for_terminals_that_want_it(transactional_db):
    with cluster_bound("alpha"):
        make_job("failed")
    wide = {"COLUMNS": "300"}
    assert b"\x1b[31m" in on_terminal("jobs", "list", **wide)[1]
    assert b"\x1b" not in on_terminal("jobs", "list", NO_COLOR="1", **wide)[1]
    done = manage("jobs", "list", env=worker_environment(YARDMASTER_CLUSTER="alpha"))
    assert "\x1b" not in done.stdout


def test_data_cannot_steer_the_terminal(run, alpha):
    job = make_job("failed", error="\x1b]0;owned\x07\x9b31m [bold]x[/bold] \u202e")
    for words in (("jobs", "list"), ("jobs", "show", str(job.pk))):
        done = run(*words)
        assert not set(done.out) & set("\x1b\x07\x9b\u202e")
        assert "[bold]x[/bold]" in done.out


# -- Words -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30s", 30), ("1.5m", 90), ("2h", 7200), ("7d", 604800)]
)
def test_durations(text, seconds):
    assert duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "h", "-5", "5y", "1e9", "9" * 400, "9" * 400 + "d", "\u0661s"]
)
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        duration(text)


@pytest.mark.parametrize("text", ["", "tomorrow", "2030-01-01T00:00:00", "2030-13-01T00:00:00Z"])
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        moment(text)


def test_control_characters_are_written_out():
    assert printable("a\x1b[0m\nb\x00\u202e\t") == "a\\x1b[0m\nb\\x00\\x202e\t"


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (OperationalError("no such table: job"), 1),
        (OperationalError("database is locked"), 1),
        (OperationalError("unable to open database file"), 5),
        (OperationalError("connection refused"), 5),
        (DatabaseError("anything else"), 1),
    ],
)
def test_database_errors_have_their_exit_codes(error, exit_code):
    assert database_failure(error).exit_code == exit_code
