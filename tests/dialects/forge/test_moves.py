"""What is done to jobs: retry, run now, delete, one by one and many."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connections
from django.utils import timezone

from clusters.models import AuditEntry
from jobs.dialects.forge.views import moves
from jobs.engine import bounded, prune
from jobs.models import Job
from tests.api.routes import MISSING_ID
from tests.dialects.forge.conftest import Caller, check_envelope
from tests.factories import make_job, make_queue, make_step_beside_a_program
from tests.refusals import the_refusal

ALIAS = "cluster-alpha"


def states() -> dict[str, int]:
    found: dict[str, int] = {}
    for state in Job.objects.values_list("state", flat=True):
        found[state] = found.get(state, 0) + 1
    return found


def one_of_each() -> dict[str, Job]:
    made = {
        state: make_job(state)
        for state in (
            "blocked", "scheduled", "ready", "running", "succeeded", "failed", "cancelled", "skipped",
        )
    }  # fmt: skip
    return {**made, "retrying": make_job("scheduled", attempts=1)}


# -- Run now ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("scheduled", True),
        ("ready", True),
        ("blocked", False),
        ("retrying", False),
        ("running", False),
        ("succeeded", False),
        ("failed", False),
        ("cancelled", False),
    ],
)
def test_run_now_is_for_what_is_pending(name: str, answer: bool, api: Caller) -> None:
    job = one_of_each()[name]
    assert api.do(f"jobs/run-now/{job.pk}") is answer
    job.refresh_from_db()
    assert job.state == ("ready" if answer else {"retrying": "scheduled"}.get(name, name))
    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.target_id) == ("jobs.run_now", str(job.pk))


# -- Retry -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["jobs/retry", "jobs/requeue"])
def test_retry_is_for_what_failed_and_what_is_dead(path: str, api: Caller) -> None:
    made = one_of_each()
    ids = [str(job.pk) for job in made.values()]
    assert api.do(path, {"ids": [*ids, ids[0], "01J", MISSING_ID]}) == 4
    for name in ("retrying", "failed", "cancelled", "skipped"):
        row = api.row(made[name])
        assert row["status"] == "pending", name
        assert row["attempts"] < row["max_attempts"]
    for name in ("blocked", "scheduled", "running", "succeeded"):
        assert Job.objects.get(pk=made[name].pk).state == name
    assert api.do(path, {"ids": ids}) == 0
    assert api.do(path, {"ids": []}) == 0
    assert AuditEntry.objects.filter(verb="jobs.retry").count() == 3


def test_a_key_that_another_job_has_is_left_out(api: Caller) -> None:
    job = make_job("failed", unique_key="k")
    make_job("ready", unique_key="k")
    assert api.do("jobs/retry", {"ids": [str(job.pk)]}) == 0


def test_retry_all_failed_lets_them_have_their_attempt_now(api: Caller) -> None:
    made = one_of_each()
    assert api.do("jobs/retry-all-failed") == 1
    assert api.row(made["retrying"])["status"] == "pending"
    assert Job.objects.get(pk=made["retrying"].pk).run_at <= timezone.now()
    assert Job.objects.get(pk=made["scheduled"].pk).state == "scheduled"
    assert api.do("jobs/retry-all-failed") == 0


def test_retry_all_by_status(api: Caller) -> None:
    made = one_of_each()
    held = make_job("failed", is_held=True)
    assert api.do("jobs/retry-all-by-status", {"status": "dead"}) == 3
    assert api.do("jobs/retry-all-by-status", {"status": "failed"}) == 1
    assert states() == {"ready": 5, "blocked": 1, "scheduled": 1, "running": 1, "succeeded": 1,
                        "failed": 1}  # fmt: skip
    held.refresh_from_db()
    assert held.is_held
    assert Job.objects.get(pk=made["succeeded"].pk).state == "succeeded"


def test_a_flood_of_retries_is_spread(api: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "BATCH", 3)
    for _ in range(8):
        make_job("failed", attempts=1)
    assert api.do("jobs/retry-all-by-status", {"status": "dead"}) == 8
    assert states() == {"ready": 3, "scheduled": 5}
    due = list(Job.objects.filter(state="scheduled").values_list("run_at", flat=True))
    assert len(set(due)) == 5
    assert max(due) <= timezone.now() + timedelta(seconds=moves.SPREAD_SECONDS)


@pytest.mark.parametrize("status", ["done", "in_progress", "pending", "cancelled", "", None, 5])
def test_what_is_done_is_not_done_again(status: Any, api: Caller) -> None:
    one_of_each()
    before = states()
    response = api.post("jobs/retry-all-by-status", {"status": status})
    check_envelope(response, 400, "validation", "status")
    assert states() == before
    assert not AuditEntry.objects.exists()


def test_kinds_that_need_a_grant_are_not_started_without(
    make_key: Callable[..., str], alpha: object
) -> None:
    shell = make_job("failed", kind="shell", type="shell")
    make_job("failed")
    api = Caller(make_key("operator"))
    check_envelope(api.post("jobs/retry", {"ids": [str(shell.pk)]}), 403, "validation", "kind")
    check_envelope(api.post(f"jobs/run-now/{shell.pk}"), 403, "validation", "kind")
    assert api.do("jobs/retry-all-by-status", {"status": "dead"}) == 1
    shell.refresh_from_db()
    assert shell.state == "failed"
    granted = Caller(make_key("operator", grants=("shell",)))
    assert granted.do("jobs/retry-all-by-status", {"status": "dead"}) == 1


@pytest.mark.parametrize(
    ("path", "body", "job"),
    [
        ("retry-all-failed", None, {"state": "scheduled", "attempts": 1}),
        ("retry-all-by-status", {"status": "dead"}, {"state": "failed"}),
    ],
)
def test_what_is_left_out_for_want_of_a_grant_is_told_in_the_audit(
    path: str, body: Any, job: Any, make_key: Callable[..., str], alpha: object
) -> None:
    """The answer is a number, and says nothing of it."""
    make_job(**job, kind="shell", type="shell")
    make_job(**job)
    answer = Caller(make_key("operator")).post(f"jobs/{path}", body)
    assert answer.json() == 1
    the_refusal(answer, "jobs.retry", "key:operator-1", kind="shell")


def test_steps_need_the_grants_of_those_beside_them(
    make_key: Callable[..., str], alpha: object
) -> None:
    step = make_step_beside_a_program()
    api = Caller(make_key("operator"))
    check_envelope(api.post("jobs/retry", {"ids": [str(step.pk)]}), 403, "validation", "kind")
    check_envelope(api.post(f"jobs/run-now/{step.pk}"), 403, "validation", "kind")
    assert api.do("jobs/retry-all-by-status", {"status": "dead"}) == 0
    step.refresh_from_db()
    assert step.state == "failed"
    granted = Caller(make_key("operator", grants=("shell",)))
    # With the two that it is a part of.
    assert granted.do("jobs/retry", {"ids": [str(step.pk)]}) == 3


# -- Delete ----------------------------------------------------------------------------------------


def test_delete_deletes_what_ended_and_stops_the_rest(admin: Caller) -> None:
    made = one_of_each()
    ids = [str(job.pk) for job in made.values()]
    assert admin.do("jobs/delete", {"ids": [*ids, MISSING_ID, "x"]}) == len(made)
    assert states() == {"cancelled": 4, "running": 1}
    assert Job.objects.get(state="running").cancel_requested_at is not None
    # Asked to stop twice is asked once; what was open is deleted now.
    assert admin.do("jobs/delete", {"ids": ids}) == 4
    assert states() == {"running": 1}


def test_what_others_wait_for_is_kept(admin: Caller) -> None:
    from jobs.models import JobDependency

    parent, child = make_job("failed", has_dependants=True), make_job("blocked")
    JobDependency.objects.create(parent=parent, child=child)
    assert admin.do("jobs/delete", {"ids": [str(parent.pk)]}) == 0


@pytest.mark.parametrize(
    ("status", "count", "left"),
    [
        ("done", 1, {"failed": 1, "cancelled": 1, "skipped": 1}),
        ("dead", 3, {"succeeded": 1}),
        ("pending", 3, {"succeeded": 1, "failed": 1, "cancelled": 4, "skipped": 1}),
        ("failed", 1, {"succeeded": 1, "failed": 1, "cancelled": 2, "skipped": 1}),
        ("in_progress", 1, {"succeeded": 1, "failed": 1, "cancelled": 1, "skipped": 1}),
    ],
)
def test_delete_by_status(status: str, count: int, left: dict[str, int], admin: Caller) -> None:
    one_of_each()
    assert admin.do("jobs/delete-by-status", {"status": status}) == count
    ended = {
        s: n for s, n in states().items() if s in ("succeeded", "failed", "cancelled", "skipped")
    }
    assert ended == left
    asked = Job.objects.filter(state="running", cancel_requested_at__isnull=False).count()
    assert asked == (status == "in_progress")
    # Asked again there is nothing to do.
    if status not in ("pending", "failed"):
        assert admin.do("jobs/delete-by-status", {"status": status}) == 0


def test_delete_by_status_of_one_queue(admin: Caller) -> None:
    for queue in ("a", "b"):
        make_job("succeeded", queue=queue)
    body = {"status": "done", "queue_name": "a"}
    assert admin.do("jobs/delete-by-status", body) == 1
    assert Job.objects.get().queue == "b"
    body["queue_name"] = "c"
    check_envelope(admin.post("jobs/delete-by-status", body), 404, "not_found")
    for status in ("cancelled", "", None):
        response = admin.post("jobs/delete-by-status", {"status": status})
        check_envelope(response, 400, "validation", "status")


def test_delete_done_older_than(admin: Caller) -> None:
    now = timezone.now()
    for days in (0, 6, 8):
        for state in ("succeeded", "failed"):
            then = now - timedelta(days=days)
            make_job(state, queue="a", created_at=then, finished_at=then)
    assert admin.do("jobs/delete-done-older-than", {"days": 7}) == 1
    assert states() == {"succeeded": 2, "failed": 3}
    make_queue("b")
    assert admin.do("jobs/delete-done-older-than", {"days": 0, "queue_name": "b"}) == 0
    assert admin.do("jobs/delete-done-older-than", {"days": 0, "queue_name": "a"}) == 2
    for body, field in (({}, "days"), ({"days": -1}, "days"), ({"days": 10**6}, "days")):
        response = admin.post("jobs/delete-done-older-than", body)
        check_envelope(response, 400, "validation", field)
    body = {"days": 1, "queue_name": "nothing"}
    check_envelope(admin.post("jobs/delete-done-older-than", body), 404, "not_found")


# -- Many ------------------------------------------------------------------------------------------


def test_one_request_does_so_many_and_the_next_goes_on(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "BATCH", 3)
    monkeypatch.setattr(bounded, "MOST", 7)
    now = timezone.now()
    for index in range(10):
        make_job("succeeded", queue=f"q{index % 2}", created_at=now - timedelta(seconds=index))
    counts = [admin.do("jobs/delete-by-status", {"status": "done"}) for _ in range(3)]
    assert counts == [7, 3, 0]


@pytest.fixture
def second_trace_fails() -> Iterator[None]:
    told: list[str] = []

    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith(f'INSERT INTO "{AuditEntry._meta.db_table}"'):
            told.append(sql)
            if len(told) == 2:
                raise IntegrityError("the disk is full")
        return execute(sql, params, many, context)

    with connections[ALIAS].execute_wrapper(fail):
        yield


@pytest.mark.usefixtures("second_trace_fails")
@pytest.mark.parametrize("path", ["delete-by-status", "delete-done-older-than", "delete"])
def test_no_batch_is_without_its_trace(
    path: str, admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "BATCH", 2)
    then = timezone.now() - timedelta(days=1)
    made = [make_job("succeeded", created_at=then, finished_at=then) for _ in range(5)]
    body = {"status": "done", "days": 0, "ids": [str(job.pk) for job in made]}
    check_envelope(admin.post(f"jobs/{path}", body), 500, "internal")
    assert Job.objects.count() == 3
    assert AuditEntry.objects.get().after["count"] == 2


@pytest.mark.usefixtures("second_trace_fails")
def test_no_batch_of_a_cleanup_is_without_its_trace(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prune, "BATCH", 2)
    then = timezone.now() - timedelta(days=60)
    for _ in range(5):
        make_job("succeeded", created_at=then, finished_at=then)
    check_envelope(admin.post("queue/cleanup"), 500, "internal")
    assert Job.objects.count() == 3
    assert AuditEntry.objects.get().after == {"done_deleted": 2, "dead_deleted": 0}


def test_what_cannot_be_changed_does_not_hold_up_the_rest(
    api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "BATCH", 2)
    now = timezone.now()
    make_job("ready", unique_key="k")
    for index in range(7):
        # The oldest ones cannot be retried: another job has their key.
        key = "k" if index > 3 else None
        make_job("failed", unique_key=key, created_at=now - timedelta(seconds=index))
    assert api.do("jobs/retry-all-by-status", {"status": "dead"}) == 4


def test_a_request_ends_in_time(admin: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "BATCH", 1)
    monkeypatch.setattr(bounded, "SECONDS", 5.0)
    clock = iter(range(0, 1000, 2))
    monkeypatch.setattr(bounded, "countdown", lambda: float(next(clock)))
    for _ in range(6):
        make_job("succeeded")
    assert 1 <= admin.do("jobs/delete-by-status", {"status": "done"}) < 6


@pytest.mark.parametrize(
    ("ids", "field"),
    [
        (None, "ids"),
        ("x", "ids"),
        ([1], "ids[0]"),
        (["x", "y" * 201], "ids[1]"),
        (["x"] * 10_001, "ids"),
    ],
)
def test_ids_are_a_list_of_strings(ids: Any, field: str, admin: Caller) -> None:
    for path in ("jobs/retry", "jobs/requeue", "jobs/delete"):
        check_envelope(admin.post(path, {"ids": ids}), 400, "validation", field)


def test_the_trace_tells_what_was_asked_and_done(admin: Caller) -> None:
    make_job("succeeded")
    admin.do("jobs/delete-by-status", {"status": "done", "queue_name": "default"})
    entry = AuditEntry.objects.get()
    assert entry.verb == "jobs.delete"
    assert entry.after == {"status": "done", "queue_name": "default", "count": 1}
    assert moves.MoveView.verbs["delete_by_status"] == entry.verb
