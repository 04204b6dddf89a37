"""Whatever is sent: 400 with the field, nothing stored, and never a mistake of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest

from jobs.models import Job, Schedule, Workflow
from tests.dialects.scheduler.conftest import CRON_JOB, Caller, check_problem

FULL: dict[str, Any] = {
    **CRON_JOB,
    "description": "d",
    "retryPolicy": {"maxAttempts": 3, "delaySeconds": 30, "backoffType": "Fixed"},
    "timeoutSeconds": 120,
    "timezone": "UTC",
    "isEnabled": True,
    "tags": ["a"],
    "createdBy": "c",
    "misfireHandling": "Relaxed",
    "concurrencyPolicy": "Skip",
}
HTTP: dict[str, Any] = {
    "url": "https://example.com/",
    "method": "POST",
    "headers": {"Accept": "text/plain"},
    "body": "x",
    "timeoutSeconds": 5,
    "successStatusCodes": [200],
    "retryOnStatusCodes": [500],
}
WRONG: list[Any] = [
    7, -1, 1.5, 1e300, 10**30, True, "", " ", "nonsense", "\ud7ff", "x" * 3000, [], [7], [[]], {},
    {"a": 1}, [{"a": [None]}], "2026-02-30T00:00:00Z", "'; DROP TABLE job; --", "{{Today}}",
]  # fmt: skip

BAD = "validation_failed"


def wrong_for(name: str, value: Any) -> bool:
    """Whether this value is wrong in this member."""
    is_text = isinstance(value, str)
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    if name == "name":
        return not is_text or not value.strip() or len(value) > 200 or not value.isprintable()
    if name == "description":
        return not is_text or len(value) > 2000
    if name == "createdBy":
        return not is_text or len(value) > 200
    if name == "isEnabled":
        return not isinstance(value, bool)
    if name == "timeoutSeconds":
        return not is_whole or not 1 <= value <= 7 * 86400
    if name == "tags":
        return not isinstance(value, list) or value != []
    if name == "jobType":
        return True  # another type needs another configuration
    if name == "retryPolicy":
        return not isinstance(value, dict)
    return True


def each(names: Iterable[str], is_fine: Callable[[str, Any], bool]) -> Any:
    """Each member with each value; what is refused comes to no database, so one of them will do."""
    return pytest.mark.parametrize(
        ("name", "value"),
        [
            pytest.param(
                *(name, value),
                id=f"{name}-{repr(value)[:20]}",
                marks=[] if is_fine(name, value) else [pytest.mark.once],
            )
            for name in names
            for value in WRONG
        ],
    )


@each(FULL, lambda name, value: not wrong_for(name, value))
def test_a_wrong_value_is_refused_by_its_name(name: str, value: Any, api: Caller) -> None:
    response = api.post("jobs", {**FULL, name: value})
    if wrong_for(name, value):
        body = response.json()
        assert response.status_code == 400, body
        assert any(field.split(".")[0].split("[")[0] in (name, "jobConfiguration")
                   for field in body["errors"]), body  # fmt: skip
        assert not Schedule.objects.exists()
    else:
        assert response.status_code == 201, response.content


@pytest.mark.parametrize("name", ["name", "jobType", "scheduleType", "jobConfiguration",
                                  "scheduleExpression"])  # fmt: skip
def test_what_is_needed_is_asked_for(name: str, api: Caller) -> None:
    body = {key: value for key, value in FULL.items() if key != name}
    for given in (body, {**body, name: None}):
        check_problem(api.post("jobs", given), 400, "validation_failed", name)
    assert not Schedule.objects.exists()


def test_all_mistakes_are_told_at_once(api: Caller) -> None:
    body = {"jobType": "X", "timeoutSeconds": 0, "tags": [1, 2], "retryPolicy": {"maxAttempts": -1}}
    problem = check_problem(api.post("jobs", body), 400, "validation_failed")
    assert set(problem["errors"]) == {
        "name", "jobType", "scheduleType", "jobConfiguration", "timeoutSeconds", "tags[0]",
        "tags[1]", "retryPolicy.maxAttempts",
    }  # fmt: skip
    assert problem["title"] == "Validation failed"
    assert problem["type"].endswith("rfc9110#section-15.5.1")


@pytest.mark.once
@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"scheduleExpression": "0 7 * *"}, "invalid_cron", "scheduleExpression"),
        ({"scheduleExpression": "0 0 7 * * *"}, "invalid_cron", "scheduleExpression"),
        ({"scheduleExpression": "@reboot"}, "invalid_cron", "scheduleExpression"),
        ({"scheduleExpression": "1--100000000 * * * *"}, "invalid_cron", "scheduleExpression"),
        ({"timezone": "Mars/Olympus"}, "invalid_timezone", "timezone"),
        ({"timezone": "../../etc/passwd"}, "invalid_timezone", "timezone"),
        ({"retryPolicy": {"maxAttempts": 100}}, BAD, "retryPolicy.maxAttempts"),
        ({"retryPolicy": {"delaySeconds": 86401}}, BAD, "retryPolicy.delaySeconds"),
        ({"retryPolicy": {"backoffType": "None"}}, BAD, "retryPolicy.backoffType"),
        ({"retryPolicy": {"backoffType": 4}}, BAD, "retryPolicy.backoffType"),
        ({"retryPolicy": {"retryOnExceptions": ["E"]}}, BAD, "retryPolicy.retryOnExceptions"),
        ({"retryPolicy": {"delaySeconds": 9, "maxDelaySeconds": 5}}, BAD, "retryPolicy.maxDelaySeconds"),
        ({"tags": [str(n) for n in range(21)]}, BAD, "tags"),
        ({"tags": ["x" * 61]}, BAD, "tags"),
        ({"jobType": 5}, BAD, "jobType"),
        ({"jobType": 0}, BAD, "jobType"),
        ({"scheduleType": "OneTime", "runAt": "2001-01-01T00:00:00Z"}, BAD, "runAt"),
    ],
)  # fmt: skip
def test_rules_of_the_domain_name_the_field_and_the_code(
    change: dict[str, Any], code: str, field: str, api: Caller
) -> None:
    response = api.post("jobs", {**FULL, **change})
    if field == "scheduleExpression":
        assert response.status_code == 400 and field in response.json()["errors"]
    else:
        check_problem(response, 400, code, field)
    made = api.make()
    assert Schedule.objects.count() == 1
    response = api.put(f"jobs/{made['id']}", change)
    assert response.status_code == 400
    assert field in response.json()["errors"]
    assert api.job(made["id"]) == made


def fits(name: str, value: Any) -> bool:
    """Whether this value may stand in this member of a request."""
    return {
        "body": True,
        "headers": value == {},
        "timeoutSeconds": type(value) is int and 0 < value < 10**6,
        "successStatusCodes": value == [],
        "retryOnStatusCodes": value == [],
    }.get(name, False)


@each(HTTP, fits)
def test_members_of_a_request_have_their_types(name: str, value: Any, api: Caller) -> None:
    body = {**FULL, "jobType": "HttpCall", "jobConfiguration": {**HTTP, name: value}}
    response = api.post("jobs", body)
    assert response.status_code in (201, 400), response.content
    is_fine = fits(name, value)
    assert (response.status_code == 201) == is_fine, response.content
    if not is_fine:
        assert any(f.startswith(f"jobConfiguration.{name}") for f in response.json()["errors"])
        assert not Schedule.objects.exists()


@pytest.mark.parametrize("value", WRONG, ids=[repr(value)[:20] for value in WRONG])
def test_no_body_is_a_mistake_of_ours(value: Any, admin: Caller) -> None:
    job_id = admin.make()["id"]
    for method, path in (
        ("PUT", f"jobs/{job_id}"),
        ("PATCH", f"jobs/{job_id}/reschedule"),
        ("POST", f"jobs/{job_id}/exclusions"),
        ("POST", f"jobs/{job_id}/dependencies"),
        ("POST", "workflows"),
        ("POST", "schedules/preview"),
        ("POST", "admin/import"),
        ("DELETE", "admin/clear-logs"),
    ):
        response = admin(method, path, value)
        is_object = isinstance(value, dict)
        if not (is_object and method == "PUT") and not (path.endswith("import") and value):
            assert response.status_code == 400, (method, path, response.content)
        assert response.status_code < 500
    assert Schedule.objects.count() == 1
    assert not Workflow.objects.exists() and not Job.objects.exists()


@pytest.mark.parametrize("value", WRONG, ids=[repr(value)[:20] for value in WRONG])
def test_no_parameter_is_a_mistake_of_ours(value: Any, admin: Caller) -> None:
    from urllib.parse import quote

    text = quote(str(value), errors="replace")
    job_id = admin.make()["id"]
    for path, names in (
        ("jobs", "pageNumber pageSize jobType status tag search sortBy sortDirection createdBy"),
        (f"jobs/{job_id}/executions", "pageNumber pageSize status fromDate toDate"),
        ("executions", "jobId status"),
        ("executions/timeline", "hours bucketMinutes jobId"),
        (f"jobs/{job_id}/next-runs", "count"),
        ("jobs/failed", "threshold"),
    ):
        for name in names.split():
            response = admin.get(f"{path}?{name}={text}")
            assert response.status_code in (200, 400), (path, name, response.content)
