"""The header Idempotency-Key, on requests that make jobs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jobs.models import IdempotencyKey, Job
from tests.api.conftest import Api, check_problem, fields


def test_a_repeat_gets_the_first_reply_and_has_no_effect(alpha: object, api: Api) -> None:
    first = api.post("alpha/jobs", {"type": "a", "payload": "é"}, idempotency_key="k 1")
    again = api.post("alpha/jobs/", {"type": "a", "payload": "é"}, idempotency_key="k 1")
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    assert again["Location"].endswith(again.json()["id"])
    assert "Idempotent-Replayed" not in first
    assert again["Idempotent-Replayed"] == "true"
    assert Job.objects.count() == 1


def test_a_repeat_of_many_jobs_has_no_effect(alpha: object, api: Api) -> None:
    jobs = {"jobs": [{"type": "a"}] * 30}
    first = api.post("alpha/jobs/bulk", jobs, idempotency_key="k")
    again = api.post("alpha/jobs/bulk", jobs, idempotency_key="k")
    assert first.json() == again.json()
    assert Job.objects.count() == 30


def test_the_key_for_another_request_is_422(alpha: object, api: Api) -> None:
    api.post("alpha/jobs", {"type": "a"}, idempotency_key="k")
    response = api.post("alpha/jobs", {"type": "b"}, idempotency_key="k")
    problem = check_problem(response, 422, "idempotency_key_reused")
    assert problem["errors"][0]["field"] == "Idempotency-Key"
    response = api.post("alpha/jobs/bulk", {"jobs": [{"type": "a"}]}, idempotency_key="k")
    check_problem(response, 422, "idempotency_key_reused")
    assert Job.objects.count() == 1


def test_keys_of_two_callers_are_two_keys(
    alpha: object, api: Api, make_key: Callable[..., str]
) -> None:
    other = Api(make_key("operator"))
    for caller in (api, other):
        caller.post("alpha/jobs", {"type": "a"}, idempotency_key="k")
    assert Job.objects.count() == 2


def test_a_refused_request_leaves_its_key_unused(alpha: object, api: Api) -> None:
    bad = api.post("alpha/jobs", {"type": "a", "queue": "nope"}, idempotency_key="k")
    check_problem(bad, 400, "unknown_queue")
    assert not IdempotencyKey.objects.exists()
    assert api.post("alpha/jobs", {"type": "a"}, idempotency_key="k").status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "a\tb", "a\x7f"])
def test_a_key_that_is_none_is_400(key: str, alpha: object, api: Api) -> None:
    response = api.post("alpha/jobs", {"type": "a"}, idempotency_key=key)
    assert fields(response) == ["Idempotency-Key"]
    assert not Job.objects.exists()
