"""POST {cluster}/jobs"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jobs.models import Job, JobTag
from tests.api.conftest import Api, check_problem, fields

ID = "01a200ff-9c5c-73d6-ad09-c48ffda4fe2c"


def test_a_job_is_accepted_and_told_back(alpha: object, api: Api) -> None:
    response = api.post(
        "alpha/jobs",
        {
            "type": "demo:echo",
            "payload": {"a": [1, 2.5, None, True, "é\U0001f600"]},
            "priority": -5,
            "tags": ["b", "a", "b"],
            "max_attempts": 7,
            "timeout_seconds": 12,
            "on_lost": "hold",
        },
    )
    assert response.status_code == 201
    body = response.json()
    assert response["Location"] == f"/jm-api/alpha/jobs/{body['id']}"
    assert body["created"] is True
    assert body["state"] == "ready"
    assert body["enqueued_by"] == "key:operator-1"
    assert body["payload"] == {"a": [1, 2.5, None, True, "é\U0001f600"]}
    assert (body["priority"], body["tags"], body["max_attempts"]) == (-5, ["b", "a"], 7)
    assert (body["timeout_seconds"], body["on_lost"]) == (12.0, "hold")
    assert body["created_at"].endswith("Z")
    assert set(JobTag.objects.values_list("tag", flat=True)) == {"a", "b"}
    del body["created"]
    assert api.get(f"alpha/jobs/{body['id']}").json() == body


def test_what_is_left_out_is_as_the_cluster_says(alpha: object, api: Api) -> None:
    body = api.post("alpha/jobs/", {"type": "demo:noop"}).json()
    assert (body["queue"], body["kind"], body["priority"]) == ("default", "python", 0)
    assert (body["max_attempts"], body["timeout_seconds"], body["on_lost"]) == (3, 300, "retry")
    assert body["payload"] is None


def test_null_means_left_out_where_the_cluster_has_a_default(alpha: object, api: Api) -> None:
    nothing = dict.fromkeys(
        ("run_at", "delay_seconds", "max_attempts", "timeout_seconds", "id", "payload_base64")
    )
    assert api.post("alpha/jobs", {"type": "a", **nothing}).status_code == 201


def test_a_job_for_later_is_scheduled(alpha: object, api: Api) -> None:
    when = (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=5)
    local = when.astimezone(tz=None).isoformat()
    body = api.post("alpha/jobs", {"type": "a", "run_at": local}).json()
    assert body["state"] == "scheduled"
    assert body["run_at"] == when.strftime("%Y-%m-%dT%H:%M:%S.000005Z")
    assert (
        api.post("alpha/jobs", {"type": "a", "delay_seconds": 0.5}).json()["state"] == "scheduled"
    )


def test_bytes_travel_as_base64(alpha: object, api: Api) -> None:
    body = api.post("alpha/jobs", {"type": "a", "payload_base64": "AP8="}).json()
    assert body["payload_base64"] == "AP8="
    assert bytes(Job.objects.get().payload_bytes) == b"\x00\xff"


def test_the_same_id_again_is_the_same_job(alpha: object, api: Api) -> None:
    first = api.post("alpha/jobs", {"type": "a", "payload": 1, "id": ID})
    again = api.post("alpha/jobs", {"type": "a", "payload": 1, "id": ID.upper()})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["created"] is False
    assert again["Location"] == first["Location"]
    assert Job.objects.count() == 1


def test_the_same_id_for_another_job_is_409(alpha: object, api: Api) -> None:
    api.post("alpha/jobs", {"type": "a", "id": ID})
    problem = check_problem(api.post("alpha/jobs", {"type": "b", "id": ID}), 409, "duplicate_job")
    assert problem["errors"][0]["field"] == "id"


def test_an_unknown_queue_is_400_with_its_own_code(alpha: object, api: Api) -> None:
    problem = check_problem(
        api.post("alpha/jobs", {"type": "a", "queue": "nope"}), 400, "unknown_queue"
    )
    assert problem["errors"][0]["field"] == "queue"


def test_a_payload_above_the_limit_of_the_cluster_is_400(alpha: object, api: Api) -> None:
    response = api.post("alpha/jobs", {"type": "a", "payload": "x" * 300_000})
    assert check_problem(response, 400, "payload_too_large")["errors"][0]["field"] == "payload"


def test_all_mistakes_are_named_at_once(alpha: object, api: Api) -> None:
    response = api.post("alpha/jobs", {"type": 1, "priority": "0", "tags": [1], "nonsense": 1})
    assert fields(response) == ["type", "priority", "tags[0]", "nonsense"]


def test_the_payload_of_a_kind_is_checked_by_that_kind(alpha: object, api: Api) -> None:
    response = api.post("alpha/jobs", {"kind": "http", "payload": {"url": "file:///etc/passwd"}})
    assert fields(response) == ["payload.url"]
    good = {"kind": "http", "payload": {"url": "https://example.com/"}}
    assert api.post("alpha/jobs", good).json()["type"] == "http"


def test_a_query_string_has_no_place_here(alpha: object, api: Api) -> None:
    assert fields(api.post("alpha/jobs?dry_run=1", {"type": "a"})) == ["dry_run"]
    assert not Job.objects.exists()


@pytest.mark.parametrize("column", [f.attname for f in Job._meta.concrete_fields])
def test_no_column_can_be_set_that_is_not_a_field(column: str, alpha: object, api: Api) -> None:
    """Mass assignment: what the form does not name is refused, whatever the model has."""
    from jobs.api.serializers import NewJobInput

    if column in NewJobInput().fields:
        return
    assert fields(api.post("alpha/jobs", {"type": "a", column: None})) == [column]
