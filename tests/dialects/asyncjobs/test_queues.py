"""Queues: our policies in the words of this API, and what becomes of tasks in a queue that goes."""

from __future__ import annotations

from typing import Any

import pytest

from clusters.models import AuditEntry
from jobs.dialects.asyncjobs.start import prepare_queue, task_queue
from jobs.dialects.asyncjobs.views import queues
from jobs.models import BulkOperation, Job, Queue
from jobs.states import State
from tests.dialects.asyncjobs.conftest import Caller, check_error
from tests.factories import make_job, make_queue

SECOND = 10**9


def create(admin: Caller, **body: Any) -> dict[str, Any]:
    response = admin.post("v1/queues", {"name": "q", **body})
    assert response.status_code == 201, response.content
    assert "Location" not in response
    shown = response.json()
    again = admin.get("v1/queues/q").json()
    assert {**shown, "time": ""} == {**again, "time": ""}
    return shown


def test_a_queue_has_the_defaults_of_the_original(admin: Caller) -> None:
    shown = create(admin)
    del shown["time"]
    assert shown == {
        "name": "q", "max_age": 0, "max_entries": -1, "discard_old": False, "max_tries": -1,
        "max_runtime": 3600 * SECOND, "max_concurrent": 100,
    }  # fmt: skip
    queue = Queue.objects.get(name="q")
    assert (queue.default_timeout_seconds, queue.max_concurrency) == (3600, 100)
    assert queue.default_max_attempts is queue.max_entries is queue.max_age_seconds is None


def test_a_queue_has_what_was_asked_for(admin: Caller) -> None:
    shown = create(
        admin, max_age="36h", max_runtime="1m0.123456789s", max_entries=7, discard_old=True,
        max_tries=3, max_concurrent=1,
    )  # fmt: skip
    assert (shown["max_age"], shown["max_runtime"]) == (129_600 * SECOND, 60_123_456_789)
    assert (shown["max_entries"], shown["discard_old"]) == (7, True)
    assert (shown["max_tries"], shown["max_concurrent"]) == (3, 1)
    entry = AuditEntry.objects.get()
    assert (entry.verb, entry.target_type, entry.target_id) == ("queues.create", "queue", "q")
    assert entry.after and entry.after["max_entries"] == 7


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"max_age": "-5m"}, {"max_age": 0}),
        ({"max_age": "0"}, {"max_age": 0}),
        ({"max_age": ""}, {"max_age": 0}),
        ({"max_runtime": "0s"}, {"max_runtime": 3600 * SECOND}),
        ({"max_entries": 0, "discard_old": True}, {"max_entries": -1, "discard_old": False}),
        ({"discard_old": True}, {"discard_old": False}),
        ({"max_entries": None, "max_tries": None}, {"max_entries": -1, "max_tries": -1}),
    ],
)
def test_what_means_no_limit(body: Any, found: Any, admin: Caller) -> None:
    shown = create(admin, **body)
    assert {name: shown[name] for name in found} == found


@pytest.mark.once
@pytest.mark.parametrize(
    ("body", "reason", "field"),
    [
        ({"name": ""}, "queue_name_required", "name"),
        ({"name": None}, "queue_name_required", "name"),
        ({"name": "DEFAULT"}, "default_queue_disallowed", "name"),
        ({"name": "a b"}, "queue_invalid", "name"),
        ({"name": "a*"}, "queue_invalid", "name"),
        ({"name": "x" * 101}, "queue_invalid", "name"),
        ({"name": "count"}, "queue_invalid", "name"),
        ({"name": 7}, "invalid_json", "name"),
        ({"max_age": "soon"}, "invalid_duration", "max_age"),
        ({"max_age": "1ns"}, "queue_invalid", "max_age"),
        ({"max_age": "2562047h"}, "queue_invalid", "max_age"),
        ({"max_age": 5}, "invalid_json", "max_age"),
        ({"max_runtime": "1d"}, "invalid_duration", "max_runtime"),
        ({"max_runtime": "-1s"}, "invalid_duration", "max_runtime"),
        ({"max_runtime": "1ms"}, "queue_invalid", "max_runtime"),
        ({"max_runtime": "10000h"}, "queue_invalid", "max_runtime"),
        ({"max_entries": -1}, "queue_invalid", "max_entries"),
        ({"max_entries": 10**30}, "queue_invalid", "max_entries"),
        ({"max_entries": 1.0}, "invalid_json", "max_entries"),
        ({"max_tries": 0}, "queue_invalid", "max_tries"),
        ({"max_tries": 101}, "queue_invalid", "max_tries"),
        ({"max_tries": True}, "invalid_json", "max_tries"),
        ({"max_concurrent": 0}, "queue_invalid", "max_concurrent"),
        ({"max_concurrent": "5"}, "invalid_json", "max_concurrent"),
        ({"discard_old": 1}, "invalid_json", "discard_old"),
        ({"retries": 1}, "invalid_json", "retries"),
    ],
)
def test_bad_input_is_refused_by_its_name(
    body: Any, reason: str, field: str, admin: Caller
) -> None:
    response = admin.post("v1/queues", {"name": "q", **body})
    check_error(response, 400, "invalid_argument", reason, field)
    assert Queue.objects.count() == 1 and not AuditEntry.objects.exists()


def test_the_guard_of_the_implicit_queue_can_be_lifted(admin: Caller, settings: Any) -> None:
    settings.ASYNCJOBS_ALLOW_DEFAULT = True
    assert admin.post("v1/queues", {"name": "DEFAULT"}).status_code == 201
    assert admin.make()["queue"] == "DEFAULT"


def test_the_implicit_queue_is_made_at_the_start_if_it_may(alpha: object, settings: Any) -> None:
    assert task_queue() == "default" and prepare_queue() is None
    settings.ASYNCJOBS_QUEUE = "DEFAULT"
    assert "DEFAULT" in (prepare_queue() or "")
    settings.ASYNCJOBS_QUEUE, settings.ASYNCJOBS_ALLOW_DEFAULT = "", True
    assert prepare_queue() is None is prepare_queue()
    queue = Queue.objects.get(name="DEFAULT")
    found = (queue.default_timeout_seconds, queue.default_max_attempts, queue.max_concurrency)
    assert found == (60, 100, 100)
    settings.ASYNCJOBS_QUEUE = "other"
    assert "other" in (prepare_queue() or "")


def test_queues_of_other_surfaces_are_shown(viewer: Caller) -> None:
    make_queue("b", max_concurrency=None, max_age_seconds=0.1)
    names = [queue["name"] for queue in viewer.get("v1/queues").json()["queues"]]
    assert names == ["b", "default"]
    shown = viewer.get("v1/queues/b").json()
    assert (shown["max_concurrent"], shown["max_age"]) == (-1, SECOND // 10)
    # As the cluster's settings say.
    assert shown["max_runtime"] == 300 * SECOND


# -- Delete, purge ---------------------------------------------------------------------------------


def test_a_queue_takes_what_waits_in_it_along(admin: Caller) -> None:
    create(admin)
    waiting = [
        make_job(state, queue="q") for state in (State.READY, State.SCHEDULED, State.BLOCKED)
    ]
    done = make_job(State.SUCCEEDED, queue="q")
    other = make_job(State.READY)
    assert admin.delete("v1/queues/q").status_code == 204
    check_error(admin.get("v1/queues/q"), 404, "not_found", "queue_not_found")
    assert {admin.task(str(job.pk))["state"] for job in waiting} == {"terminated"}
    assert admin.task(str(done.pk))["state"] == "complete"
    assert admin.task(str(other.pk))["state"] == "new"
    assert [entry.verb for entry in AuditEntry.objects.all()][-1:] != []
    assert AuditEntry.objects.filter(verb="queues.delete", target_id="q").count() == 1


@pytest.mark.parametrize("state", [State.RUNNING, State.WAITING])
def test_a_queue_with_active_tasks_is_kept(state: State, admin: Caller) -> None:
    create(admin)
    make_job(state, queue="q")
    waiting = make_job(State.READY, queue="q")
    check_error(admin.delete("v1/queues/q"), 409, "conflict", "queue_in_use", "name")
    waiting.refresh_from_db()
    assert waiting.state == State.READY and Queue.objects.filter(name="q").exists()


def test_a_queue_with_too_much_waiting_is_kept(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(admin)
    for _ in range(3):
        make_job(State.READY, queue="q")
    monkeypatch.setattr(queues, "MOST_WAITING", 2)
    check_error(admin.delete("v1/queues/q"), 409, "conflict", "queue_in_use", "name")
    assert Job.objects.filter(state=State.READY).count() == 3
    monkeypatch.setattr(queues, "MOST_WAITING", 3)
    assert admin.delete("v1/queues/q").status_code == 204


def test_the_default_queue_stays(admin: Caller) -> None:
    check_error(admin.delete("v1/queues/default"), 409, "conflict", "queue_in_use", "name")
    assert Queue.objects.filter(name="default").exists()


def test_a_purge_is_done_in_the_background(admin: Caller) -> None:
    create(admin)
    job = make_job(State.READY, queue="q")
    response = admin.post("v1/queues/q/purge")
    assert (response.status_code, response.content) == (202, b"")
    operation = BulkOperation.objects.get()
    assert operation.action == "cancel" and operation.requested_by == "key:admin-1"
    from clusters.models import current_policy
    from jobs.engine import bulk

    while bulk.advance("cluster-alpha", current_policy()):
        pass
    assert admin.task(str(job.pk))["state"] == "terminated"
    assert AuditEntry.objects.filter(verb="queues.purge").count() == 1


@pytest.mark.parametrize("name", ["none", "a%20b", "%00", "x" * 200, "é"])
def test_a_name_that_is_none_is_a_missing_one(name: str, admin: Caller) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/purge")):
        response = admin(method, f"v1/queues/{name}{path}")
        check_error(response, 404, "not_found", "queue_not_found")
