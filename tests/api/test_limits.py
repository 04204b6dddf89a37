"""What one caller may ask, on every surface."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction

from clusters.databases import STATEMENT_SECONDS
from clusters.statements import statements_limited
from config.limits import Limits
from jobs.models import Job
from tests.api.conftest import Api, check_problem
from tests.factories import make_job

_numbers = itertools.count()
COUNTING = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {})
SELECT count(*) FROM n
"""


@pytest.fixture
def limited(settings: Any, make_key: Callable[..., str]) -> Callable[..., Api]:
    """A caller with limits of its own; nobody else has any."""

    def make(role: str = "operator", **limits: Any) -> Api:
        # The counts outlive a test, so nobody has had this name before.
        name = f"limited-{next(_numbers)}-{time.monotonic_ns()}"
        own = replace(Limits(requests_per_second=0), **limits)
        settings.LIMITS_OF_CALLERS = {**settings.LIMITS_OF_CALLERS, f"key:{name}": own}
        return Api(make_key(role, name=name))

    return make


def refused(api: Api, path: str, times: int = 4) -> Any:
    """The first answer that refuses, of so many requests in a row."""
    answers = [api.get(path) for _ in range(times)]
    assert answers[0].status_code < 400
    return next(answer for answer in answers if answer.status_code >= 400)


def test_who_asks_too_often_is_told_when_to_go_on(alpha: object, limited: Any, viewer: Api) -> None:
    api = limited(requests_per_second=0.02)
    response = refused(api, "whoami")
    body = check_problem(response, 429, "too_many_requests")
    assert "too often" in body["detail"]
    assert 1 <= int(response["Retry-After"]) <= 50
    # Whatever it asks for, and before anything is looked at.
    check_problem(api.get("beta/jobs"), 429, "too_many_requests")
    check_problem(api.post("alpha/jobs", {"type": "a"}), 429, "too_many_requests")
    assert not Job.objects.exists()
    # Others have nothing to do with it.
    assert viewer.get("whoami").status_code == 200


def test_without_a_number_nobody_counts(alpha: object, limited: Any) -> None:
    api = limited(requests_per_second=0)
    assert {api.get("whoami").status_code for _ in range(20)} == {200}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/v1/queues", lambda body: body["error"]["code"] == "rate_limited"),
        ("/queue/overview", lambda body: body["kind"] == "rate_limited"),
        ("/scheduler/jobs", lambda body: body["code"] == "too_many_requests"),
        ("/tork/jobs", lambda body: set(body) == {"message"}),
    ],
)
def test_every_dialect_says_so_in_its_own_words(
    path: str, told: Callable[[Any], bool], alpha: object, limited: Any
) -> None:
    api = limited(requests_per_second=0.02)
    answers = [api.client.get(path, headers=api.headers) for _ in range(3)]
    assert answers[0].status_code == 200, answers[0].content
    assert answers[-1].status_code == 429
    assert int(answers[-1]["Retry-After"]) >= 1
    assert told(answers[-1].json()), answers[-1].content


def test_those_without_a_name_share_what_their_address_may_ask(
    alpha: object, settings: Any, client: Any
) -> None:
    settings.ANONYMOUS_ROLES = {"asyncjobs": "viewer"}
    settings.LIMITS_OF_CALLERS = {"anonymous:asyncjobs": Limits(requests_per_second=0.02)}
    address = f"203.0.113.{time.monotonic_ns() % 250}"

    def ask(where: str) -> int:
        status: int = client.get("/v1/queues", REMOTE_ADDR=where).status_code
        return status

    assert [ask(address) for _ in range(2)] == [200, 429]
    assert ask("2001:db8::" + str(time.monotonic_ns() % 10_000)) == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/jm-api/alpha/jobs", {"type": "a", "payload": "x" * 3000}),
        ("/jm-api/alpha/jobs/bulk", {"jobs": [{"type": "a", "payload": "x" * 3000}]}),
        ("/v1/tasks", {"type": "a", "payload": "x" * 3000}),
        ("/tork/jobs", {"name": "x" * 3000, "tasks": []}),
        ("/jobs/list", {"kind": "x" * 3000}),
    ],
)
def test_a_body_is_no_larger_than_its_caller_may_send(
    path: str, body: Any, alpha: object, limited: Any
) -> None:
    raw = json.dumps(body).encode()
    for limit, is_refused in ((2048, True), (8192, False)):
        api = limited(max_body_bytes=limit)
        response = api.client.generic("POST", path, raw, "application/json", headers=api.headers)
        assert (response.status_code == 413) is is_refused, response.content


def endless(using: str) -> str:
    if connections[using].vendor == "postgresql":
        return "SELECT pg_sleep(60)"
    return (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) "
        "SELECT count(*) FROM n"
    )


def test_a_statement_takes_no_longer_than_its_caller_may_let_it(
    alpha: object, limited: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs.api.views import JobViewSet

    def handler(self: Any, request: Any, cluster_id: str) -> None:
        with transaction.atomic(using="cluster-alpha"), connections["cluster-alpha"].cursor() as c:
            c.execute(endless("cluster-alpha"))

    monkeypatch.setattr(JobViewSet, "list", handler)
    begun = time.monotonic()
    response = limited(statement_seconds=0.2).get("alpha/jobs")
    assert time.monotonic() - begun < 30
    check_problem(response, 503, "timeout")


def test_a_limit_is_gone_with_its_request(alpha: object) -> None:
    connection = connections["cluster-alpha"]
    with (
        pytest.raises(OperationalError),
        transaction.atomic(using="cluster-alpha"),
        statements_limited("cluster-alpha", 0.1),
        connection.cursor() as cursor,
    ):
        cursor.execute(endless("cluster-alpha"))
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SHOW statement_timeout")
            assert cursor.fetchone() == (f"{STATEMENT_SECONDS}s",)
        else:
            # Longer than the limit that was, on any machine.
            cursor.execute(endless("cluster-alpha").replace("1000000000", "3000000"))
            assert cursor.fetchone() == (3_000_000,)


@pytest.mark.parametrize("path", ["alpha/jobs/{job}/logs/stream", "alpha/audit/export"])
def test_how_many_answers_one_has_streamed_is_a_matter_of_the_caller(
    alpha: object, limited: Any, path: str
) -> None:
    streaming = limited(streams=3).get(path.format(job=make_job().pk))
    assert streaming.of_a_caller == 3
    streaming.close()


def test_the_limit_is_of_each_statement_and_not_of_all_together(alpha: object) -> None:
    with statements_limited("cluster-alpha", 0.5), connections["cluster-alpha"].cursor() as cursor:
        for _ in range(8):
            time.sleep(0.1)
            cursor.execute(COUNTING.format(100_000))
            assert cursor.fetchone() == (100_000,)
        with pytest.raises(OperationalError, match=r"interrupted|statement timeout"):
            cursor.execute(COUNTING.format(10**9))
