"""{cluster}/queues"""

from __future__ import annotations

import pytest

from jobs.api.serializers import QueueItem
from jobs.models import Queue
from tests.api.conftest import Api, check_problem, fields
from tests.factories import make_queue


def test_a_queue_is_created_and_shown(alpha: object, admin: Api) -> None:
    response = admin.post("alpha/queues", {"name": "mail", "description": "Letters"})
    assert response.status_code == 201
    assert response["Location"] == "/jm-api/alpha/queues/mail"
    assert response["ETag"] == '"1"'
    assert list(response.json()) == list(QueueItem().fields)
    shown = admin.get("alpha/queues/mail")
    assert shown.json() == response.json()
    assert shown["ETag"] == '"1"'
    assert admin.get("alpha/queues/count").json() == {"count": 2, "is_exact": True}


def test_a_second_queue_of_that_name_is_409(alpha: object, admin: Api) -> None:
    problem = check_problem(admin.post("alpha/queues", {"name": "default"}), 409, "duplicate_queue")
    assert problem["errors"][0]["field"] == "name"


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
    again = api.post("alpha/queues/default/pause", {"reason": "other"}).json()
    assert again == paused
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


def test_paused_queues_are_listed_as_such(alpha: object, viewer: Api) -> None:
    make_queue("zzz", is_paused=True)
    assert [q["is_paused"] for q in viewer.get("alpha/queues").json()["items"]] == [False, True]
