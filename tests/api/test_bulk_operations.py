"""alpha/bulk-operations"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import ANY

import pytest

from clusters.policy import DEFAULTS
from jobs.api import bulk_wire as wire
from jobs.engine import bulk, bulk_asking
from jobs.models import BulkOperation, Job
from jobs.states import State
from tests.api.conftest import Api, check_problem, fields
from tests.api.routes import MISSING_ID
from tests.factories import make_job

PATH = "alpha/bulk-operations"
CANCEL = {"action": "cancel", "filter": {"queue": "mail"}, "reason": "the campaign is off"}
pytestmark = pytest.mark.usefixtures("alpha")


def carry_out() -> None:
    while bulk.advance("cluster-alpha", DEFAULTS):
        pass


def test_an_operation_is_asked_for_followed_and_found_again(api: Api) -> None:
    make_job(State.READY, queue="mail")
    make_job(State.READY)
    response = api.post(PATH, CANCEL)
    assert response.status_code == 202
    asked = response.json()
    assert asked == {
        **CANCEL,
        "id": ANY,
        "arguments": {},
        "requested_by": "key:operator-1",
        "status": "pending",
        "covers_until": ANY,
        "expected": None,
        "seen": 0,
        "percent": None,
        "outcomes": {},
        "error": None,
        "created_at": ANY,
        "started_at": None,
        "finished_at": None,
        "cancel_requested_at": None,
        "cancelled_by": None,
    }
    assert set(asked) == set(wire.BulkOperationItem().fields)
    assert response["Location"] == f"/jm-api/{PATH}/{asked['id']}"
    assert Job.objects.filter(state=State.READY).count() == 2
    carry_out()
    now = api.get(response["Location"]).json()
    assert (now["status"], now["percent"], now["expected"], now["seen"]) == ("finished", 100, 1, 1)
    assert now["outcomes"] == {"cancelled": 1}
    assert now["started_at"].endswith("Z") and now["finished_at"].endswith("Z")
    assert set(now["outcomes"]) <= set(bulk.OUTCOMES)
    assert api.get(PATH).json()["items"] == [now]
    assert api.get(f"{PATH}/count").json() == {"count": 1, "is_exact": True}


def test_a_dry_run_says_what_it_would_be_about_and_stores_nothing(api: Api) -> None:
    job = make_job(State.READY, queue="mail", type="email:new")
    make_job(State.SUCCEEDED, queue="mail")
    body = {"action": "cancel", "filter": {"queue": "mail"}, "dry_run": True}
    response = api.post(PATH, body, idempotency_key="k")
    assert response.status_code == 200
    found = response.json()
    assert set(found) == set(wire.BulkDryRun().fields)
    assert (found["count"], found["eligible"], found["is_exact"]) == (2, 1, True)
    assert found["by_state"] == {"ready": 1, "succeeded": 1}
    assert found["sample"][0] == {
        "id": str(job.pk),
        "type": "email:new",
        "queue": "mail",
        "state": "ready",
    }
    assert not BulkOperation.objects.exists()
    # the key was not used up
    assert api.post(PATH, CANCEL, idempotency_key="k").status_code == 202


def test_every_search_word_is_stored_as_it_was_meant(api: Api) -> None:
    words = {
        "state": ["failed"],
        "metadata": ['n:"1"', "eu:true"],
        "is_held": True,
        "copy_of": MISSING_ID,
        "created_after": "2026-01-31T12:00:00+02:00",
        "finished_before": "2026-02-01T12:00:00Z",
    }
    asked = api.post(PATH, {"action": "retry", "filter": words, "reason": "r"}).json()
    assert asked["filter"] == {
        **words,
        "created_after": "2026-01-31T10:00:00+00:00",
        "finished_before": "2026-02-01T12:00:00+00:00",
    }
    carry_out()
    assert api.get(f"{PATH}/{asked['id']}").json()["status"] == "finished"


def test_arguments_go_with_their_action(api: Api) -> None:
    job = make_job(State.FAILED)
    body = {"action": "retry", "filter": {"all": True}, "reason": "r"}
    asked = api.post(PATH, {**body, "arguments": {"spread_seconds": 600}}).json()
    assert asked["arguments"] == {"spread_seconds": 600}
    carry_out()
    job.refresh_from_db()
    assert job.state == State.SCHEDULED


def test_the_oldest_so_many_are_tried_first(api: Api) -> None:
    for _ in range(3):
        make_job(State.FAILED)
    body = {"action": "retry", "filter": {"state": ["failed"]}, "arguments": {"limit": 2}}
    found = api.post(PATH, {**body, "dry_run": True}).json()
    assert (found["count"], found["eligible"]) == (3, 2)
    asked = api.post(PATH, {**body, "reason": "r"}).json()
    carry_out()
    assert api.get(f"{PATH}/{asked['id']}").json()["outcomes"] == {"retried": 2}


@pytest.mark.once
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"action": "explode"}, "action"),
        ({"action": 1}, "action"),
        ({"filter": None}, "filter"),
        ({"filter": []}, "filter"),
        ({"filter": {}}, "filter"),
        ({"filter": {"all": False}}, "filter"),
        ({"filter": {"all": 1}}, "filter.all"),
        ({"filter": {"all": True, "queue": "x"}}, "filter.all"),
        ({"filter": {"color": "red"}}, "filter.color"),
        ({"filter": {"state__in": ["ready"]}}, "filter.state__in"),
        ({"filter": {"state": "ready"}}, "filter.state"),
        ({"filter": {"state": ["explode"]}}, "filter.state[0]"),
        ({"filter": {"state": []}}, "filter.state"),
        ({"filter": {"queue": 1}}, "filter.queue"),
        ({"filter": {"queue": "a\x00"}}, "filter.queue"),
        ({"filter": {"queue": ""}}, "filter.queue"),
        ({"filter": {"created_after": "yesterday"}}, "filter.created_after"),
        ({"filter": {"node": "x"}}, "filter.node"),
        ({"filter": {"metadata": ["x"]}}, "filter.metadata[0]"),
        ({"filter": {"limit": 3}}, "filter.limit"),
        ({"arguments": {"limit": 0}}, "arguments.limit"),
        ({"arguments": {"limit": "10"}}, "arguments.limit"),
        ({"arguments": []}, "arguments"),
        ({"arguments": None}, "arguments"),
        ({"arguments": {"queue": "default"}}, "arguments.queue"),
        ({"arguments": {"color": 1}}, "arguments.color"),
        ({"action": "move"}, "arguments.queue"),
        ({"action": "move", "arguments": {"queue": "a b"}}, "arguments.queue"),
        ({"action": "set_priority", "arguments": {"priority": 1000}}, "arguments.priority"),
        ({"action": "set_priority", "arguments": {"priority": "1"}}, "arguments.priority"),
        ({"action": "retry", "arguments": {"spread_seconds": 0}}, "arguments.spread_seconds"),
        ({"action": "retry", "arguments": {"spread_seconds": -1}}, "arguments.spread_seconds"),
        ({"reason": ""}, "reason"),
        ({"reason": "   "}, "reason"),
        ({"reason": "x" * 501}, "reason"),
        ({"reason": None}, "reason"),
        ({"dry_run": "maybe"}, "dry_run"),
        ({"status": "finished"}, "status"),
    ],
    ids=str,
)
def test_a_bad_body_is_refused_by_its_field_and_nothing_is_stored(
    change: dict[str, Any], field: str, api: Api
) -> None:
    response = api.post(PATH, {**CANCEL, **change})
    problem = check_problem(response, 400, response.json()["code"])
    assert field in [error["field"] for error in problem["errors"]]
    assert not BulkOperation.objects.exists()


@pytest.mark.parametrize("missing", ["action", "filter", "reason"])
def test_what_is_missing_is_named(missing: str, api: Api) -> None:
    body = {name: value for name, value in CANCEL.items() if name != missing}
    assert fields(api.post(PATH, body)) == [missing]
    assert not BulkOperation.objects.exists()


def test_a_queue_that_does_not_exist_is_nowhere_to_move_to(api: Api) -> None:
    body = {**CANCEL, "action": "move", "arguments": {"queue": "nope"}}
    problem = check_problem(api.post(PATH, body), 400, "unknown_queue")
    assert problem["errors"][0]["field"] == "arguments.queue"


def test_deleting_many_jobs_needs_the_role_that_deleting_one_does(api: Api, admin: Api) -> None:
    body = {**CANCEL, "action": "delete"}
    for dry_run in (True, False):
        check_problem(api.post(PATH, {**body, "dry_run": dry_run}), 403, "permission_denied")
    assert not BulkOperation.objects.exists()
    assert admin.post(PATH, body).status_code == 202


def test_a_repeat_gets_the_first_reply_and_has_no_effect(api: Api) -> None:
    first = api.post(PATH, CANCEL, idempotency_key="k")
    again = api.post(f"{PATH}/", CANCEL, idempotency_key="k")
    assert (first.status_code, again.status_code) == (202, 202)
    assert first.json() == again.json()
    assert again["Location"] == first["Location"]
    assert again["Idempotent-Replayed"] == "true"
    assert BulkOperation.objects.count() == 1
    other = api.post(PATH, {**CANCEL, "reason": "another"}, idempotency_key="k")
    check_problem(other, 422, "idempotency_key_reused")
    assert fields(api.post(PATH, CANCEL, idempotency_key="é")) == ["Idempotency-Key"]


def test_an_operation_is_stopped_and_says_by_whom(api: Api, make_key: Callable[..., str]) -> None:
    make_job(State.READY, queue="mail")
    path = f"{PATH}/{api.post(PATH, CANCEL).json()['id']}"
    other = Api(make_key("operator", name="otto"))
    stopped = other.post(f"{path}/cancel").json()
    assert (stopped["status"], stopped["cancelled_by"]) == ("cancelled", "key:otto")
    assert api.post(f"{path}/cancel").json() == stopped
    carry_out()
    assert api.get(path).json() == stopped
    assert Job.objects.get().state == State.READY


def test_what_is_over_cannot_be_stopped(api: Api) -> None:
    path = f"{PATH}/{api.post(PATH, CANCEL).json()['id']}"
    carry_out()
    check_problem(api.post(f"{path}/cancel"), 409, "invalid_transition")
    assert fields(api.post(f"{path}/cancel", {"force": True})) == ["force"]


@pytest.mark.parametrize("identifier", [MISSING_ID, "x", "1", "%00"])
def test_what_is_not_there_is_404(identifier: str, api: Api) -> None:
    check_problem(api.get(f"{PATH}/{identifier}"), 404, "not_found")
    check_problem(api.post(f"{PATH}/{identifier}/cancel"), 404, "not_found")


def test_too_many_at_once_are_refused(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk_asking, "MAX_OPEN", 1)
    api.post(PATH, CANCEL)
    check_problem(api.post(PATH, CANCEL), 409, "conflict")
    assert BulkOperation.objects.count() == 1


def test_the_list_is_paged_and_filtered(api: Api, admin: Api) -> None:
    ids = [api.post(PATH, CANCEL).json()["id"] for _ in range(3)]
    api.post(f"{PATH}/{ids[0]}/cancel")
    admin.post(PATH, {**CANCEL, "action": "delete"})
    page = api.get(f"{PATH}?limit=2&action=cancel").json()
    assert [item["id"] for item in page["items"]] == [ids[2], ids[1]]
    page = api.get(page["next"]).json()
    assert [item["id"] for item in page["items"]] == [ids[0]]
    assert page["next"] is None
    found = api.get(f"{PATH}?status=cancelled").json()["items"]
    assert [item["id"] for item in found] == [ids[0]]
    assert api.get(f"{PATH}/count?status=pending").json()["count"] == 3
    assert fields(api.get(f"{PATH}?status=x&color=red")) == ["status", "color"]


def test_operations_of_another_cluster_are_not_there(make_key: Callable[..., str]) -> None:
    everywhere = Api(make_key("admin", "alpha", "beta"))
    identifier = everywhere.post(PATH, CANCEL).json()["id"]
    assert everywhere.get("beta/bulk-operations").json()["items"] == []
    check_problem(everywhere.get(f"beta/bulk-operations/{identifier}"), 404, "not_found")
    check_problem(everywhere.post(f"beta/bulk-operations/{identifier}/cancel"), 404, "not_found")
    assert BulkOperation.objects.get().status == "pending"


def test_percent_goes_with_what_was_expected(api: Api) -> None:
    identifier = api.post(PATH, CANCEL).json()["id"]
    for expected, seen, percent in ((None, 5, None), (0, 0, 0), (200, 50, 25), (10, 20, 99)):
        BulkOperation.objects.update(
            status="running", started_at="2026-01-01T00:00:00Z", expected=expected, seen=seen
        )
        assert api.get(f"{PATH}/{identifier}").json()["percent"] == percent
