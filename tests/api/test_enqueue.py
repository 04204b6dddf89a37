"""POST {cluster}/jobs"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from jobs.models import Job, JobTag
from tests.api.conftest import Api, check_problem, fields
from tests.factories import make_queue

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


@pytest.mark.once
@pytest.mark.parametrize("column", [f.attname for f in Job._meta.concrete_fields])
def test_no_column_can_be_set_that_is_not_a_field(column: str, alpha: object, api: Api) -> None:
    """Mass assignment: what the form does not name is refused, whatever the model has."""
    from jobs.api.job_forms import NewJobInput

    if column in NewJobInput().fields:
        return
    assert fields(api.post("alpha/jobs", {"type": "a", column: None})) == [column]


# -- Policies --------------------------------------------------------------------------------------

UNKNOWN = "01a200ff-9c5c-73d6-ad09-000000000000"


def test_all_policies_of_a_job_can_be_asked_for(alpha: object, api: Api) -> None:
    parent = api.post("alpha/jobs", {"type": "a"}).json()["id"]
    asked = {
        "type": "a",
        "delay_seconds": 60,
        "expires_in_seconds": 30.5,
        "deadline_seconds": 3600,
        "progress_timeout_seconds": 5,
        "retry_base_seconds": 0,
        "retry_cap_seconds": 9,
        "metadata": {"tenant": "acme", "size": 3, "share": 0.5, "vip": True},
        "unique_key": "nightly report",
        "depends_on": [parent],
        "needs": "any",
        "on_dependency_failure": "run",
    }
    body = api.post("alpha/jobs", asked).json()
    job = Job.objects.get(pk=body["id"])
    assert body["state"] == job.state == "blocked"
    assert job.expires_at - job.run_at == timedelta(seconds=30.5)
    assert job.deadline_at - job.run_at == timedelta(hours=1)
    assert (job.progress_timeout_seconds, job.retry_base_seconds, job.retry_cap_seconds) == (
        5,
        0,
        9,
    )
    assert (job.metadata, job.unique_key) == (asked["metadata"], "nightly report")
    edge = job.dependencies.get()
    assert (str(edge.parent_id), edge.needs, edge.on_failure) == (parent, "any", "run")


def test_a_unique_key_answers_with_the_job_that_has_it(alpha: object, api: Api) -> None:
    first = api.post("alpha/jobs", {"type": "a", "unique_key": "k"})
    again = api.post("alpha/jobs", {"type": "b", "payload": 1, "unique_key": "k"})
    assert (first.status_code, again.status_code) == (201, 200)
    assert (again.json()["id"], again.json()["created"]) == (first.json()["id"], False)
    assert again["Location"] == first["Location"]
    jobs = [{"type": "a", "unique_key": "k"}, {"type": "a"}]
    items = api.post("alpha/jobs/bulk", {"jobs": jobs}).json()["items"]
    assert [item["created"] for item in items] == [False, True]
    assert items[0]["id"] == first.json()["id"]


def test_a_full_queue_is_429_and_says_when_to_try_again(alpha: object, api: Api) -> None:
    make_queue("mail", max_entries=1)
    new = {"type": "a", "queue": "mail"}
    assert api.post("alpha/jobs", new).status_code == 201
    for path, body in (("alpha/jobs", new), ("alpha/jobs/bulk", {"jobs": [new]})):
        response = api.post(path, body)
        problem = check_problem(response, 429, "queue_full")
        assert problem["errors"][0]["field"] == "queue"
        assert int(response["Retry-After"]) > 0
    assert Job.objects.count() == 1


PAST, FUTURE = "2020-01-01T00:00:00Z", "2031-01-01T00:00:00Z"
BAD_VALUES = {
    **{
        field: [True, "1", [], {}, -1, 1e99, "", 10**400]
        for field in (
            *("expires_in_seconds", "deadline_seconds", "progress_timeout_seconds"),
            *("retry_base_seconds", "retry_cap_seconds"),
        )
    },
    **{
        field: [
            1,
            True,
            "",
            "soon",
            "2031-01-01",
            "2031-01-01T00:00:00",
            PAST,
            "9999-01-01T00:00:00Z",
        ]
        for field in ("expires_at", "deadline_at")
    },
    "metadata": [1, "a", [], {"": 1}, {"a b": 1}, {"x" * 61: 1}, {str(n): 1 for n in range(21)}],
    "unique_key": [1, True, [], "", "x" * 201, "a\0b", "a\nb"],
    "depends_on": [None, "x", {}, [1], ["x"], [UNKNOWN], [UNKNOWN] * 2, [UNKNOWN] * 101],
    "needs": [None, 1, "", "most", "ALL"],
    "on_dependency_failure": [None, 1, "", "ignore"],
    "priority": ["1", 1.5, True, 101, -101, 10**30],
}


@pytest.mark.once
@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in BAD_VALUES.items() for value in values],
)
def test_a_bad_value_is_400_and_its_field_is_named(
    field: str, value: object, alpha: object, api: Api
) -> None:
    response = api.post("alpha/jobs", {"type": "a", field: value})
    named = fields(response)
    assert named, response.content
    assert all(name == field or name.startswith((f"{field}.", f"{field}[")) for name in named)
    bulk = api.post("alpha/jobs/bulk", {"jobs": [{"type": "a"}, {"type": "a", field: value}]})
    assert all(name.startswith(f"jobs[1].{field}") for name in fields(bulk))
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    "value",
    [None, [], {}, "x" * 257, "\0", 10**30, [1], {"a": 1}],
    ids=lambda value: repr(value)[:20],
)
def test_bad_metadata_is_named_by_its_key(value: object, alpha: object, api: Api) -> None:
    named = fields(api.post("alpha/jobs", {"type": "a", "metadata": {"good": 1, "bad": value}}))
    assert named in (["metadata.bad"], ["metadata"])
    assert not Job.objects.exists()


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"expires_at": FUTURE, "expires_in_seconds": 1}, "expires_in_seconds"),
        ({"deadline_at": FUTURE, "deadline_seconds": 1}, "deadline_seconds"),
        ({"run_at": FUTURE, "expires_at": FUTURE}, "expires_at"),
        ({"delay_seconds": 1e8, "deadline_at": "2028-01-01T00:00:00Z"}, "deadline_at"),
        ({"retry_base_seconds": 9, "retry_cap_seconds": 8}, "retry_cap_seconds"),
        ({"id": UNKNOWN, "depends_on": [UNKNOWN]}, "depends_on"),
    ],
)
def test_two_values_that_do_not_go_together_are_400(
    asked: dict[str, object], field: str, alpha: object, api: Api
) -> None:
    assert fields(api.post("alpha/jobs", {"type": "a", **asked})) == [field]
    assert not Job.objects.exists()


def test_null_means_left_out_for_policies_too(alpha: object, api: Api) -> None:
    nothing = dict.fromkeys(
        (
            *("priority", "expires_at", "expires_in_seconds", "deadline_at", "deadline_seconds"),
            *("progress_timeout_seconds", "retry_base_seconds", "retry_cap_seconds", "metadata"),
            "unique_key",
        )
    )
    assert api.post("alpha/jobs", {"type": "a", **nothing}).status_code == 201
