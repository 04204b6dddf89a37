"""`manage.py queues`."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from jobs.models import BulkOperation, Queue
from jobs.models.queue_policies import POLICIES
from tests.factories import make_job, make_queue

pytestmark = pytest.mark.usefixtures("alpha")

# An option for each policy, and what it sets.
OPTIONS = {
    "description": ("--description", "Letters", "Letters"),
    "max_concurrency": ("--max-concurrency", "4", 4),
    "rate_limit": ("--rate-limit", "100", 100),
    "rate_period_seconds": ("--rate-period", "1m", 60.0),
    "default_priority": ("--default-priority", "-5", -5),
    "default_timeout_seconds": ("--default-timeout", "12.5", 12.5),
    "default_max_attempts": ("--default-max-attempts", "7", 7),
    "is_backoff_enabled": ("--backoff", "no", False),
    "retry_base_seconds": ("--retry-base", "2s", 2.0),
    "retry_cap_seconds": ("--retry-cap", "2m", 120.0),
    "max_age_seconds": ("--max-age", "1h", 3600.0),
    "max_entries": ("--max-entries", "1000", 1000),
    "overflow": ("--overflow", "drop_oldest", "drop_oldest"),
    "retain_succeeded_seconds": ("--retain-succeeded", "7d", 7 * 86400.0),
    "retain_failed_seconds": ("--retain-failed", "1w", 7 * 86400.0),
}


def test_queues_are_listed_and_shown(run):
    make_queue("mail", description="letters", rate_limit=5, rate_period_seconds=60)
    make_job("ready", queue="mail")
    items = run("queues", "list", "-o", "json").json["items"]
    assert [item["name"] for item in items] == ["default", "mail"]
    shown = run("queues", "show", "mail", "-o", "json").json
    assert (shown["description"], shown["load"]["jobs"]["ready"]) == ("letters", 1)
    assert "oldest_ready_seconds" in run("queues", "show", "mail").out
    assert "5 / 60 s" in run("queues", "list").out
    assert run("queues", "show", "nowhere").code == 3
    assert run("queues", "show", "no such name").code == 3


def test_a_queue_is_created_once(run):
    assert run("queues", "create", "mail", "--description", "letters").code == 0
    assert Queue.objects.get(name="mail").description == "letters"
    assert run("queues", "create", "mail").code == 4


@pytest.mark.parametrize("name", ["", "a b", "-a", "x" * 101, "ü", "a/b", "count"])
def test_a_queue_has_a_sound_name(run, name):
    assert run("queues", "create", "--", name).code == 2
    assert Queue.objects.count() == 1


def test_there_is_an_option_for_every_policy(run):
    assert set(OPTIONS) == set(POLICIES)
    words = [word for option, text, _ in OPTIONS.values() for word in (option, text)]
    made = run("queues", "create", "mail", *words, "-o", "json")
    assert made.code == 0, made.err
    assert made.json.items() >= {name: value for name, (_, _, value) in OPTIONS.items()}.items()


def test_only_what_is_said_is_changed_and_none_takes_a_limit_away(run):
    make_queue("mail", max_entries=10, max_concurrency=3, description="letters")
    changed = run("queues", "change", "mail", "--max-entries", "none", "--max-age", "2h")
    assert changed.code == 0, changed.err
    mail = Queue.objects.get(name="mail")
    assert (mail.max_entries, mail.max_age_seconds, mail.max_concurrency) == (None, 7200, 3)
    assert mail.description == "letters"


@pytest.mark.once
@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--max-concurrency", "0"),
        ("--max-concurrency", "1.5"),
        ("--max-concurrency", "9" * 40),
        ("--rate-period", "none"),
        ("--rate-period", "0"),
        ("--max-age", "soon"),
        ("--backoff", "true"),
        ("--overflow", "explode"),
        ("--overflow", "drop_oldest"),
        ("--retry-base", "25h"),
        ("--retry-base", "60", "--retry-cap", "30"),
        ("--description", "x" * 501),
        ("--rate-grants", "1"),
    ],
)
def test_a_change_that_cannot_be_is_2_and_changes_nothing(run, words):
    assert run("queues", "change", "default", *words).code == 2
    assert Queue.objects.get().version == 1


def test_a_refusal_names_the_policy(run):
    done = run("queues", "change", "default", "--max-entries", "0", "-o", "json")
    assert '"field": "max_entries"' in done.err


def test_a_queue_that_is_not_there_is_3(run):
    assert run("queues", "change", "nowhere", "--max-entries", "1").code == 3
    assert run("queues", "pause", "nowhere").code == 3
    assert run("queues", "pause", "nowhere", "--for", "1h").code == 3
    assert run("queues", "resume", "nowhere").code == 3
    assert run("queues", "delete", "nowhere", "--yes").code == 3


def test_pause_and_resume_say_who_and_why_and_may_be_said_twice(run):
    shown = run("queues", "pause", "default", "--reason", "deploy", "-o", "json").json
    assert (shown["is_paused"], shown["pause_reason"]) == (True, "deploy")
    assert shown["paused_by"].startswith("cli:")
    again = run("queues", "pause", "default", "--reason", "again", "-o", "json")
    assert (again.code, again.json["pause_reason"]) == (0, "again")
    assert run("queues", "resume", "default", "-o", "json").json["is_paused"] is False
    once_more = run("queues", "resume", "default")
    assert (once_more.code, "not paused" in once_more.err) == (0, True)
    assert run("queues", "pause", "default", "--reason", "x" * 501).code == 2


def test_a_pause_lasts_until_a_time_or_so_long(run):
    until = timezone.now() + timedelta(hours=3)
    assert run("queues", "pause", "default", "--until", until.isoformat()).code == 0
    assert Queue.objects.get().resume_at == until
    assert run("queues", "pause", "default", "--for", "30m").code == 0
    paused = Queue.objects.get()
    left = paused.resume_at - timezone.now()
    assert timedelta(minutes=29) < left <= timedelta(minutes=30, seconds=5)


@pytest.mark.parametrize(
    "words",
    [
        ("--until", "2020-01-01T00:00:00Z"),
        ("--until", "2030-01-01"),
        ("--until", "tomorrow"),
        ("--for", "0"),
        ("--for", "11000d"),
        ("--for", "1h", "--until", "2030-01-01T00:00:00Z"),
    ],
)
def test_a_pause_that_cannot_be_is_2_and_nothing_is_paused(run, words):
    assert run("queues", "pause", "default", *words).code == 2
    assert not Queue.objects.get().is_paused


def test_a_queue_is_deleted_when_its_jobs_have_ended_and_somebody_says_yes(run):
    make_job("succeeded", queue="mail")
    assert run("queues", "delete", "mail").code == 2
    assert run("queues", "delete", "mail", "--yes", "-o", "json").json == {"deleted": 1}
    assert not Queue.objects.filter(name="mail").exists()
    make_job("ready", queue="used")
    refused = run("queues", "delete", "used", "--yes")
    assert (refused.code, "1 ready" in refused.err) == (4, True)
    assert run("queues", "delete", "default", "--yes").code == 4
    assert {queue.name for queue in Queue.objects.all()} == {"default", "used"}


def test_what_waits_is_purged_by_a_bulk_operation_when_somebody_says_yes_and_why(run):
    make_job("ready", queue="mail")
    make_job("scheduled", queue="mail")
    assert "2 jobs match" in run("queues", "purge", "mail", "--dry-run").out
    found = run("queues", "purge", "mail", "--dry-run", "--state", "ready", "-o", "json").json
    assert found["count"] == 1
    assert run("queues", "purge", "mail", "--reason", "x").code == 2
    assert run("queues", "purge", "mail", "--yes").code == 2
    assert run("queues", "purge", "mail", "--yes", "--reason", "x", "--state", "running").code == 2
    assert run("queues", "purge", "nowhere", "--dry-run").code == 3
    assert run("queues", "purge", "nowhere", "--yes", "--reason", "x").code == 3
    assert not BulkOperation.objects.exists()
    asked = run("queues", "purge", "mail", "--yes", "--reason", "sent twice", "-o", "json")
    assert asked.json["filter"] == {"queue": "mail", "state": ["blocked", "scheduled", "ready"]}
    assert BulkOperation.objects.get().reason == "sent twice"
