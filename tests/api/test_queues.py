"""{cluster}/queues"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from clusters.api.fields import format_time
from clusters.policy import DEFAULTS
from jobs.api.queue_wire import (
    NewQueueInput,
    OpenJobs,
    QueueChangeInput,
    QueueDetail,
    QueueItem,
    QueueLoad,
)
from jobs.engine import bulk
from jobs.models import BulkOperation, Job, Queue
from jobs.models.queue_policies import POLICIES
from tests.api.conftest import Api, check_problem, fields
from tests.factories import make_job, make_node, make_queue

PATH = "alpha/queues/default"
# Something else than the default for each policy.
EVERY_POLICY = {
    "description": "Letters",
    "max_concurrency": 4,
    "rate_limit": 100,
    "rate_period_seconds": 60.0,
    "default_priority": -5,
    "default_timeout_seconds": 12.5,
    "default_max_attempts": 7,
    "is_backoff_enabled": False,
    "retry_base_seconds": 2.0,
    "retry_cap_seconds": 120.0,
    "max_age_seconds": 3600.0,
    "max_entries": 1000,
    "overflow": "drop_oldest",
    "retain_succeeded_seconds": 3600.0,
    "retain_failed_seconds": 7200.0,
}


def test_a_queue_is_created_and_shown(alpha: object, admin: Api) -> None:
    response = admin.post("alpha/queues", {"name": "mail", "description": "Letters"})
    assert response.status_code == 201
    assert response["Location"] == "/jm-api/alpha/queues/mail"
    assert response["ETag"] == '"1"'
    assert list(response.json()) == list(QueueItem().fields)
    shown = admin.get("alpha/queues/mail")
    assert list(shown.json()) == list(QueueDetail().fields)
    assert shown.json().items() >= response.json().items()
    assert shown["ETag"] == '"1"'
    assert admin.get("alpha/queues/count").json() == {"count": 2, "is_exact": True}


def test_a_second_queue_of_that_name_is_409(alpha: object, admin: Api) -> None:
    problem = check_problem(admin.post("alpha/queues", {"name": "default"}), 409, "duplicate_queue")
    assert problem["errors"][0]["field"] == "name"


@pytest.mark.once
@pytest.mark.parametrize(
    "name", ["", "a b", "-a", "ä", "a/b", "a" * 101, "a\n", "count", 1, None, ["a"]]
)
def test_a_name_that_cannot_be_is_400(name: object, alpha: object, admin: Api) -> None:
    assert fields(admin.post("alpha/queues", {"name": name})) == ["name"]
    assert Queue.objects.count() == 1


def test_fields_of_a_queue_that_are_not_given_by_people_are_refused(
    alpha: object, admin: Api
) -> None:
    body = {"name": "a", "is_paused": True, "version": 7, "id": "x"}
    assert fields(admin.post("alpha/queues", body)) == ["is_paused", "version", "id"]
    assert fields(admin.patch("alpha/queues/default", {"name": "b"})) == ["name"]


def test_a_change_goes_by_the_version_that_was_read(alpha: object, admin: Api) -> None:
    path = "alpha/queues/default"
    etag = admin.get(path)["ETag"]
    changed = admin.patch(path, {"description": "one"}, if_match=etag)
    assert changed.status_code == 200
    assert changed["ETag"] == '"2"'
    check_problem(
        admin.patch(path, {"description": "two"}, if_match=etag), 412, "precondition_failed"
    )
    assert Queue.objects.get().description == "one"


@pytest.mark.parametrize("etag", ['"7"', "1", 'W/"1"', '"x"', '"1', "", '"99999999999999999999"'])
def test_a_tag_that_does_not_match_is_412(etag: str, alpha: object, admin: Api) -> None:
    response = admin.patch("alpha/queues/default", {"description": "x"}, if_match=etag)
    check_problem(response, 412, "precondition_failed")
    assert Queue.objects.get().description == ""


@pytest.mark.parametrize("headers", [{}, {"if_match": "*"}, {"if_match": '"7", "1"'}])
def test_without_a_tag_or_with_one_of_several_a_change_is_made(
    headers: dict[str, str], alpha: object, admin: Api
) -> None:
    response = admin.patch("alpha/queues/default", {"description": "x"}, **headers)
    assert response.json()["description"] == "x"


def test_a_change_of_nothing_is_400(alpha: object, admin: Api) -> None:
    assert fields(admin.patch("alpha/queues/default", {})) == ["body"]


def test_a_queue_is_paused_with_a_reason_and_resumed(alpha: object, api: Api) -> None:
    paused = api.post("alpha/queues/default/pause", {"reason": "mail server is down"}).json()
    assert paused["is_paused"] is True
    assert paused["paused_by"] == "key:operator-1"
    assert paused["pause_reason"] == "mail server is down"
    resumed = api.post("alpha/queues/default/resume").json()
    assert resumed["is_paused"] is False
    assert resumed["paused_by"] is resumed["paused_at"] is resumed["pause_reason"] is None
    assert api.post("alpha/queues/default/resume").json() == resumed


def test_a_pause_needs_no_body(alpha: object, api: Api) -> None:
    assert api.post("alpha/queues/default/pause").json()["pause_reason"] == ""


def test_a_reason_has_a_length(alpha: object, api: Api) -> None:
    response = api.post("alpha/queues/default/pause", {"reason": "x" * 501})
    assert fields(response) == ["reason"]
    assert not Queue.objects.get().is_paused


@pytest.mark.parametrize("name", ["nope", "%00", "a%20b", "x" * 300])
def test_an_unknown_queue_is_404(name: str, alpha: object, admin: Api) -> None:
    check_problem(admin.get(f"alpha/queues/{name}"), 404, "not_found")
    check_problem(admin.patch(f"alpha/queues/{name}", {"description": ""}), 404, "not_found")
    check_problem(admin.post(f"alpha/queues/{name}/pause"), 404, "not_found")
    check_problem(admin.post(f"alpha/queues/{name}/resume"), 404, "not_found")
    check_problem(admin.delete(f"alpha/queues/{name}"), 404, "not_found")
    for body in ({"dry_run": True}, {"reason": "x"}):
        check_problem(admin.post(f"alpha/queues/{name}/purge", body), 404, "not_found")


def test_paused_queues_are_listed_as_such(alpha: object, viewer: Api) -> None:
    make_queue("zzz", is_paused=True)
    assert [q["is_paused"] for q in viewer.get("alpha/queues").json()["items"]] == [False, True]


# -- Policies --------------------------------------------------------------------------------------


def test_the_api_takes_and_shows_every_policy_and_its_range_is_that_of_the_model() -> None:
    assert set(QueueChangeInput().fields) == set(POLICIES) == set(EVERY_POLICY)
    assert set(NewQueueInput().fields) == {*POLICIES, "name"}
    assert set(POLICIES) < set(QueueItem().fields)
    for name, field in QueueChangeInput().fields.items():
        assert getattr(field, "min_value", None) == POLICIES[name].minimum, name
        assert getattr(field, "max_value", None) == POLICIES[name].maximum, name
        assert field.allow_null == POLICIES[name].is_nullable, name


def test_a_queue_is_made_with_all_of_its_policies(alpha: object, admin: Api) -> None:
    made = admin.post("alpha/queues", {"name": "mail", **EVERY_POLICY})
    assert made.status_code == 201, made.content
    assert made.json().items() >= EVERY_POLICY.items()
    assert admin.get("alpha/queues/mail").json().items() >= EVERY_POLICY.items()


def test_every_policy_is_changed_alone_and_the_others_stay(alpha: object, admin: Api) -> None:
    make_queue("mail", max_entries=10)
    for version, (name, value) in enumerate(EVERY_POLICY.items(), start=2):
        before = admin.get("alpha/queues/mail").json()
        after = admin.patch("alpha/queues/mail", {name: value}).json()
        assert after[name] == value
        assert after["version"] == version
        others = {key for key in after if key not in (name, "version")}
        assert all(after[key] == before[key] for key in others), name


def test_null_takes_a_limit_away(alpha: object, admin: Api) -> None:
    make_queue("mail", **EVERY_POLICY)
    nullable = {name: None for name, policy in POLICIES.items() if policy.is_nullable}
    changed = admin.patch("alpha/queues/mail", {**nullable, "overflow": "refuse"})
    assert changed.json().items() >= nullable.items()


BAD: dict[type, list[bytes]] = {
    int: [b'"1"', b"1.5", b"true", b"[]", b"{}", b"NaN", b"1e400", b"-1000", b"9" * 30],
    float: [b'"1"', b"true", b"[1]", b"{}", b"NaN", b"Infinity", b"-1", b"1e300", b"9" * 400],
    bool: [b"1", b"0", b'"true"', b"null", b"[]"],
    str: [b"1", b"null", b"[]", b"true", b'"\\u0000"', b'"' + b"x" * 501 + b'"'],
}


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name, policy in POLICIES.items() for value in BAD[policy.kind]]
    + [("rate_period_seconds", b"null"), ("rate_period_seconds", b"0"), ("overflow", b'""')]
    + [(name, b"0") for name in ("max_concurrency", "rate_limit", "max_entries")]
    + [("max_age_seconds", b"0"), ("default_max_attempts", b"0"), ("retry_cap_seconds", b"0")],
    ids=lambda value: repr(value)[:40],
)
def test_a_bad_value_is_400_by_its_name_and_nothing_is_stored(
    name: str, value: bytes, alpha: object, admin: Api
) -> None:
    before = admin.get(PATH).json()
    body = b'{"name": "new", "%s": %s}' % (name.encode(), value)
    for response in (
        admin("PATCH", PATH, raw=b'{"%s": %s}' % (name.encode(), value)),
        admin("POST", "alpha/queues", raw=body),
    ):
        problem = check_problem(response, 400, response.json()["code"])
        assert name in {error["field"] for error in problem["errors"]} or (
            # What is no JSON at all is refused as such.
            {"body"} == {error["field"] for error in problem["errors"]}
            and value in (b"NaN", b"Infinity")
        ), problem
    assert admin.get(PATH).json() == before
    assert Queue.objects.count() == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"retry_base_seconds": 60, "retry_cap_seconds": 30}, "retry_cap_seconds"),
        ({"overflow": "drop_oldest"}, "overflow"),
        ({"overflow": "drop_oldest", "max_entries": None}, "overflow"),
    ],
)
def test_policies_that_do_not_go_together_are_400(
    body: dict[str, Any], field: str, alpha: object, admin: Api
) -> None:
    assert fields(admin.patch(PATH, body)) == [field]
    assert fields(admin.post("alpha/queues", {"name": "new", **body})) == [field]
    assert Queue.objects.get().version == 1


def test_a_tag_that_is_out_of_date_comes_before_what_does_not_go_together(
    alpha: object, admin: Api
) -> None:
    make_queue("mail", retry_cap_seconds=10, version=3)
    response = admin.patch("alpha/queues/mail", {"retry_base_seconds": 60}, if_match='"2"')
    check_problem(response, 412, "precondition_failed")


def test_of_two_changes_of_one_version_one_is_made(
    transactional_db: None, make_key: Callable[..., str]
) -> None:
    key = make_key("admin")
    barrier = threading.Barrier(2)

    def change(description: str) -> int:
        api = Api(key)
        barrier.wait()
        try:
            return api.patch(PATH, {"description": description}, if_match=etag).status_code
        finally:
            connections.close_all()

    for number in range(10):
        etag = Api(key).get(PATH)["ETag"]
        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(change, ("one", "two"))) == [200, 412], number
    assert Queue.objects.using("cluster-alpha").get().version == 11


def test_only_admins_change_and_delete_queues(alpha: object, api: Api, viewer: Api) -> None:
    make_queue("mail")
    for caller in (api, viewer):
        check_problem(
            caller.patch("alpha/queues/mail", {"max_entries": 1}), 403, "permission_denied"
        )
        check_problem(caller.post("alpha/queues", {"name": "new"}), 403, "permission_denied")
        check_problem(caller.delete("alpha/queues/mail"), 403, "permission_denied")
        purged = caller.post("alpha/queues/mail/purge", {"dry_run": True})
        check_problem(purged, 403, "permission_denied")
    check_problem(viewer.post("alpha/queues/mail/pause"), 403, "permission_denied")
    check_problem(viewer.post("alpha/queues/mail/resume"), 403, "permission_denied")
    mail = Queue.objects.get(name="mail")
    assert (mail.version, mail.max_entries, mail.is_paused) == (1, None, False)


# -- Load ------------------------------------------------------------------------------------------


def test_the_load_of_a_queue_is_shown_with_it(alpha: object, viewer: Api) -> None:
    Queue.objects.update(rate_limit=5)
    make_node(queues=["default"])
    make_job("ready", run_at=timezone.now() - timedelta(minutes=1))
    make_job("scheduled")
    load = viewer.get(PATH).json()["load"]
    assert list(load) == list(QueueLoad().fields)
    assert list(load["jobs"]) == list(OpenJobs().fields)
    assert load["jobs"] == {"blocked": 0, "scheduled": 1, "ready": 1, "running": 0, "waiting": 0}
    assert 60 <= load["oldest_ready_seconds"] < 80
    assert (load["is_exact"], load["nodes"], load["rate_room"]) == (True, 1, 5)


def test_a_list_costs_the_same_for_one_queue_and_for_many(alpha: object, viewer: Api) -> None:
    viewer.get("alpha/queues")
    with CaptureQueriesContext(connections["cluster-alpha"]) as few:
        viewer.get("alpha/queues")
    for _ in range(30):
        make_queue(max_concurrency=3)
    with CaptureQueriesContext(connections["cluster-alpha"]) as many:
        assert len(viewer.get("alpha/queues").json()["items"]) == 31
    assert len(many) == len(few) == 1


# -- Pauses that end -------------------------------------------------------------------------------


def test_a_pause_may_end_by_itself(alpha: object, api: Api) -> None:
    until = format_time(timezone.now() + timedelta(hours=2))
    paused = api.post(f"{PATH}/pause", {"resume_at": until}).json()
    assert paused["resume_at"] == until
    again = api.post(f"{PATH}/pause", {"reason": "fire", "resume_in_seconds": 90}).json()
    assert again["resume_at"] < until
    assert (again["pause_reason"], again["paused_at"]) == ("fire", paused["paused_at"])
    for_good = api.post(f"{PATH}/pause", {"resume_at": None, "resume_in_seconds": None}).json()
    assert (for_good["is_paused"], for_good["resume_at"]) == (True, None)


@pytest.mark.once
@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"resume_at": "2020-01-01T00:00:00Z"}', "resume_at"),
        (b'{"resume_at": "9999-12-31T23:59:59Z"}', "resume_at"),
        (b'{"resume_at": "2030-01-01T00:00:00"}', "resume_at"),
        (b'{"resume_at": "tomorrow"}', "resume_at"),
        (b'{"resume_at": 1900000000}', "resume_at"),
        (b'{"resume_in_seconds": 0}', "resume_in_seconds"),
        (b'{"resume_in_seconds": -5}', "resume_in_seconds"),
        (b'{"resume_in_seconds": 1e12}', "resume_in_seconds"),
        (b'{"resume_in_seconds": "5"}', "resume_in_seconds"),
        (b'{"resume_in_seconds": true}', "resume_in_seconds"),
        (b'{"resume_in_seconds": 1e999}', "resume_in_seconds"),
        (b'{"resume_in_seconds": 5, "resume_at": "2030-01-01T00:00:00Z"}', "resume_in_seconds"),
        (b'{"until": "2030-01-01T00:00:00Z"}', "until"),
        (b'{"reason": null}', "reason"),
    ],
)
def test_a_pause_that_cannot_be_is_400_and_nothing_is_paused(
    body: bytes, field: str, alpha: object, api: Api
) -> None:
    response = api.post(f"{PATH}/pause", raw=body)
    problem = check_problem(response, 400, response.json()["code"])
    assert [error["field"] for error in problem["errors"]] == [field]
    assert not Queue.objects.get().is_paused


# -- Delete ----------------------------------------------------------------------------------------


def test_a_queue_whose_jobs_have_ended_is_deleted(alpha: object, admin: Api) -> None:
    job = make_job("succeeded", queue="mail")
    response = admin.delete("alpha/queues/mail")
    assert (response.status_code, response.content) == (204, b"")
    check_problem(admin.get("alpha/queues/mail"), 404, "not_found")
    assert admin.get(f"alpha/jobs/{job.pk}").json()["queue"] == "mail"


def test_a_queue_with_open_jobs_is_409_and_says_what_is_left(alpha: object, admin: Api) -> None:
    make_job("ready", queue="mail")
    make_job("scheduled", queue="mail")
    problem = check_problem(admin.delete("alpha/queues/mail"), 409, "queue_in_use")
    assert "1 scheduled, 1 ready" in problem["detail"]
    assert Queue.objects.filter(name="mail").exists()
    assert Job.objects.count() == 2


def test_the_default_queue_is_409(alpha: object, admin: Api) -> None:
    problem = check_problem(admin.delete(PATH), 409, "queue_in_use")
    assert "default" in problem["detail"]
    assert Queue.objects.exists()


def test_a_delete_goes_by_the_version_that_was_read(alpha: object, admin: Api) -> None:
    make_queue("mail", version=2)
    response = admin.delete("alpha/queues/mail", if_match='"1"')
    check_problem(response, 412, "precondition_failed")
    assert Queue.objects.filter(name="mail").exists()
    assert admin.delete("alpha/queues/mail", if_match='"2"').status_code == 204


def test_a_delete_has_no_body(alpha: object, admin: Api) -> None:
    make_queue("mail")
    response = admin("DELETE", "alpha/queues/mail", {"force": True})
    assert fields(response) == ["force"]
    assert Queue.objects.filter(name="mail").exists()


# -- Purge -----------------------------------------------------------------------------------------


def test_a_purge_cancels_what_waits_in_this_queue_and_nothing_else(
    alpha: object, admin: Api
) -> None:
    states = ("ready", "scheduled", "running", "succeeded")
    jobs = {state: make_job(state, queue="mail") for state in states}
    other = make_job("ready", queue="other")
    response = admin.post("alpha/queues/mail/purge", {"reason": "sent twice"})
    assert response.status_code == 202, response.content
    operation = response.json()
    assert (operation["action"], operation["reason"]) == ("cancel", "sent twice")
    assert response["Location"] == f"/jm-api/alpha/bulk-operations/{operation['id']}"
    later = make_job("ready", queue="mail")
    while bulk.advance("cluster-alpha", DEFAULTS):
        pass
    done = admin.get(response["Location"]).json()
    assert (done["status"], done["outcomes"]) == ("finished", {"cancelled": 2})
    now = {state: Job.objects.get(pk=job.pk).state for state, job in jobs.items()}
    assert now == {
        "ready": "cancelled",
        "scheduled": "cancelled",
        "running": "running",
        "succeeded": "succeeded",
    }
    assert Job.objects.get(pk=jobs["running"].pk).cancel_requested_at is None
    for job in (other, later):
        assert Job.objects.get(pk=job.pk).state == "ready"


def test_a_dry_run_of_a_purge_counts_and_stores_nothing(alpha: object, admin: Api) -> None:
    make_job("ready", queue="mail")
    make_job("scheduled", queue="mail")
    make_job("running", queue="mail")
    found = admin.post("alpha/queues/mail/purge", {"dry_run": True}).json()
    assert (found["count"], found["is_exact"]) == (2, True)
    assert found["by_state"] == {"ready": 1, "scheduled": 1}
    only = admin.post("alpha/queues/mail/purge", {"dry_run": True, "states": ["scheduled"]})
    assert only.json()["count"] == 1
    assert not BulkOperation.objects.exists()


def test_a_purge_of_some_states_leaves_the_others(alpha: object, admin: Api) -> None:
    ready, scheduled = make_job("ready"), make_job("scheduled")
    admin.post(f"{PATH}/purge", {"reason": "x", "states": ["scheduled", "scheduled"]})
    while bulk.advance("cluster-alpha", DEFAULTS):
        pass
    assert Job.objects.get(pk=ready.pk).state == "ready"
    assert Job.objects.get(pk=scheduled.pk).state == "cancelled"


def test_a_purge_may_be_asked_for_again_under_its_key(alpha: object, admin: Api) -> None:
    make_job("ready")
    one = admin.post(f"{PATH}/purge", {"reason": "x"}, idempotency_key="k")
    two = admin.post(f"{PATH}/purge", {"reason": "x"}, idempotency_key="k")
    assert one.json() == two.json()
    assert two["Location"] == one["Location"]
    assert BulkOperation.objects.count() == 1


@pytest.mark.once
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "reason"),
        ({"reason": ""}, "reason"),
        ({"reason": "  "}, "reason"),
        ({"reason": "x" * 501}, "reason"),
        ({"reason": None}, "reason"),
        ({"reason": "x", "states": []}, "states"),
        ({"reason": "x", "states": None}, "states"),
        ({"reason": "x", "states": "ready"}, "states"),
        ({"reason": "x", "states": ["ready"] * 4}, "states"),
        ({"reason": "x", "states": ["running"]}, "states[0]"),
        ({"reason": "x", "states": ["ready", "succeeded"]}, "states[1]"),
        ({"reason": "x", "dry_run": "true"}, "dry_run"),
        ({"reason": "x", "dry_run": 1}, "dry_run"),
        ({"reason": "x", "filter": {}}, "filter"),
    ],
)
def test_a_purge_that_cannot_be_is_400_and_nothing_is_stored(
    body: dict[str, Any], field: str, alpha: object, admin: Api
) -> None:
    response = admin.post(f"{PATH}/purge", body)
    problem = check_problem(response, 400, response.json()["code"])
    assert [error["field"] for error in problem["errors"]] == [field]
    assert not BulkOperation.objects.exists()
