"""Creating tasks: what is taken and how it comes out again."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.dialects.asyncjobs.wire.payloads import canonical_json
from jobs.engine.new_job import FARTHEST
from jobs.engine.repeat import is_same_json
from jobs.models import Job
from jobs.states import State
from tests.dialects.asyncjobs.conftest import MISSING, Caller, check_error
from tests.factories import make_queue

USING = "cluster-alpha"


def test_a_task_is_a_job_with_the_promises_of_this_api(api: Caller) -> None:
    task = api.make(payload={"to": "x@y"})
    job = Job.objects.get()
    assert (str(job.pk), job.kind, job.type, job.queue) == (
        task["id"], "python", "email:new", "default",
    )  # fmt: skip
    assert (job.payload, job.max_attempts, job.state) == ({"to": "x@y"}, 10, State.READY)
    assert job.retry_curve == "ramp:60,10.8,50,0.9"
    assert job.enqueued_by == "key:operator-1" and job.dialect_notes is None
    assert api.task(task["id"]) == task


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        ({"b": 1, "a": [True, None, "é"]}, '{"a":[true,null,"é"],"b":1}'),
        (2**53 + 1, "9007199254740993"),
        (10**400, "1" + "0" * 400),
        ("<a href='x'>&</a>", "\"\\u003ca href='x'\\u003e\\u0026\\u003c/a\\u003e\""),
        ("\u2028\u2029", '"\\u2028\\u2029"'),
        ([1.5, 2.0, -0.25, 1e20, "1.0"], '[1.5,2,-0.25,100000000000000000000,"1.0"]'),
        ([1e21, -1.5e300, 10**30, "1e21"], '[1e+21,-1.5e+300,1e+30,"1e21"]'),
        ([1e-6, -1e-7, 1.25e-10, 12e-6], "[0.000001,-1e-7,1.25e-10,0.000012]"),
        ([10**21 + 1, 10**30 + 1], "[1000000000000000000001,1000000000000000000000000000001]"),
        ('\\"1e5\\', '"\\\\\\"1e5\\\\"'),
        (False, "false"),
        (0, "0"),
        ("", '""'),
        ([], "[]"),
        ({}, "{}"),
    ],
)
def test_a_json_payload_comes_back_as_its_one_text(payload: Any, text: str, api: Caller) -> None:
    task = api.make(payload=payload)
    assert base64.b64decode(task["payload"]).decode() == text
    assert api.task(task["id"])["payload"] == task["payload"]
    again = api.make(payload_base64=task["payload"])
    assert again["payload"] == task["payload"]
    assert bytes(Job.objects.get(pk=again["id"]).payload_bytes or b"") == text.encode()


@pytest.mark.parametrize("data", [b"", b"hello", bytes(range(256)), b"\xff\xfe\x00"])
def test_bytes_come_back_as_they_were(data: bytes, api: Caller) -> None:
    text = base64.b64encode(data).decode()
    task = api.make(payload_base64=text)
    assert task["payload"] == text == api.task(task["id"])["payload"]


def test_no_payload_is_an_empty_one(api: Caller) -> None:
    for body in ({}, {"payload": None}, {"payload": None, "payload_base64": None}):
        task = api.make(**body)
        assert task["payload"] == "" == api.task(task["id"])["payload"]
    assert api.make(payload=None, payload_base64="aGk=")["payload"] == "aGk="


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.text(max_size=20)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def exactly(text: str) -> Any:
    """A value whose numbers are neither rounded nor of two types."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


def test_floats_do_not_become_long(api: Caller) -> None:
    task = api.make(payload=[1e308] * 1000)
    text = base64.b64decode(api.task(task["id"])["payload"])
    assert text == f"[{','.join(['1e+308'] * 1000)}]".encode()


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(JSON)
def test_the_one_text_of_a_value_means_the_value(value: Any) -> None:
    text = canonical_json(value)
    assert is_same_json(exactly(text), exactly(json.dumps(value)))
    assert canonical_json(json.loads(text)) == text
    assert not set("<>&\u2028\u2029") & set(text)


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain", "x/y; charset=latin-1", ""]
)
def test_the_type_of_the_body_is_not_looked_at(content_type: str, api: Caller) -> None:
    response = api.post(
        "v1/tasks", raw=b' {"TYPE": "a", "Max_Tries": 3} ', content_type=content_type
    )
    assert response.status_code == 201
    assert (response.json()["type"], response.json()["max_tries"]) == ("a", 3)


def test_a_queue_is_honoured_and_must_be_there(api: Caller) -> None:
    make_queue("EMAIL")
    assert api.make(queue="EMAIL")["queue"] == "EMAIL"
    response = api.post("v1/tasks", {"type": "a", "queue": "nope"})
    check_error(response, 404, "not_found", "queue_not_found", "queue")
    check_error(
        api.post("v1/tasks", {"type": "a", "queue": "no such\x01"}),
        404, "not_found", "queue_not_found", "queue",
    )  # fmt: skip
    assert Job.objects.count() == 1


def test_the_queue_of_tasks_that_name_none_can_be_chosen(api: Caller, settings: Any) -> None:
    make_queue("DEFAULT")
    make_queue("mail")
    settings.ASYNCJOBS_ALLOW_DEFAULT = True
    assert api.make()["queue"] == "DEFAULT"
    settings.ASYNCJOBS_QUEUE = "mail"
    assert api.make()["queue"] == "mail"
    settings.ASYNCJOBS_QUEUE = "gone"
    check_error(api.post("v1/tasks", {"type": "a"}), 404, "not_found", "queue_not_found", "queue")


@pytest.mark.parametrize(
    ("of_queue", "asked", "found"),
    [(None, None, 10), (None, 50, 50), (3, None, 3), (3, 50, 3), (3, 2, 2), (100, None, 10)],
)
def test_the_queue_limits_the_tries(
    of_queue: int | None, asked: int | None, found: int, api: Caller
) -> None:
    make_queue("q", default_max_attempts=of_queue)
    make_queue("counted", default_max_attempts=of_queue, max_entries=10)
    for name in ("q", "counted"):
        task = api.make(queue=name, max_tries=asked)
        assert task["max_tries"] == found == api.task(task["id"])["max_tries"]


def test_a_deadline_keeps_the_words_it_was_given_in(api: Caller) -> None:
    text = "2033-05-06T07:08:09.123456789+02:00"
    task = api.make(deadline=text)
    assert task["deadline"] == text == api.task(task["id"])["deadline"]
    assert Job.objects.get().expires_at == datetime(2033, 5, 6, 5, 8, 9, 123456, UTC)


def test_a_deadline_in_the_past_is_taken_and_expires(api: Caller) -> None:
    task = api.make(deadline="2001-01-01T00:00:00Z")
    assert (task["state"], task["deadline"]) == ("new", "2001-01-01T00:00:00Z")
    assert Job.objects.all().expire() == 1
    found = api.task(task["id"])
    assert found["state"] == "expired" and "last_err" in found


def test_a_deadline_beyond_all_times_is_taken(api: Caller) -> None:
    task = api.make(deadline="9999-12-31T23:59:59Z")
    assert task["deadline"] == "9999-12-31T23:59:59Z" == api.task(task["id"])["deadline"]
    expires_at = Job.objects.get().expires_at
    assert expires_at and expires_at - Job.objects.get().created_at < FARTHEST


def test_a_full_queue_refuses_and_keeps_nothing(api: Caller) -> None:
    make_queue("full", max_entries=1)
    api.make(queue="full")
    response = api.post("v1/tasks", {"type": "a", "queue": "full"})
    check_error(response, 429, "rate_limited", "queue_full", "queue")
    assert int(response["Retry-After"]) > 0
    assert Job.objects.count() == 1


def test_creating_is_as_few_statements_as_enqueueing_natively(
    api: Caller, is_postgresql: bool
) -> None:
    from tests.api.conftest import Api

    native = Api(api.headers["x-api-key"])

    def statements(call: Any) -> int:
        call()
        with CaptureQueriesContext(connections[USING]) as found:
            assert call().status_code == 201
        return len(found)

    here = statements(lambda: api.post("v1/tasks", {"type": "a", "payload": 1}))
    there = statements(lambda: native.post("alpha/jobs", {"type": "a", "payload": 1}))
    assert here == there
    assert not is_postgresql or here <= 3


def test_a_payload_may_not_be_larger_than_the_cluster_allows(api: Caller) -> None:
    for body in ({"payload": "x" * 300_000}, {"payload_base64": "QUFB" * 90_000}):
        response = api.post("v1/tasks", {"type": "a", **body})
        check_error(response, 413, "payload_too_large", "payload_too_large", "payload")
    response = api.post("v1/tasks", raw=b'{"type": "a", "payload": "' + b"x" * 524_288 + b'"}')
    check_error(response, 413, "payload_too_large")
    response = api.post("v1/tasks/x/retry", raw=b"x" * 524_289)
    check_error(response, 413, "payload_too_large")
    assert not Job.objects.exists()


# -- Ids -------------------------------------------------------------------------------------------


def test_a_task_may_bring_its_id(api: Caller) -> None:
    body = {"type": "a", "id": MISSING, "payload": [1], "deadline": "2033-01-01T00:00:00Z"}
    first, again = api.post("v1/tasks", body), api.post("v1/tasks", body)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json() and first.json()["id"] == MISSING
    assert first["Location"] == again["Location"] == f"/v1/tasks/{MISSING}"
    for other in ({"payload": [2]}, {"deadline": "2034-01-01T00:00:00Z"}, {"dependencies": ["x"]}):
        response = api.post("v1/tasks", {**body, **other})
        check_error(response, 409, "duplicate", "duplicate_item", "id")
    assert Job.objects.count() == 1


def test_a_task_with_lost_dependencies_may_be_asked_for_twice(api: Caller) -> None:
    parent = api.make()["id"]
    body = {"type": "a", "id": MISSING, "dependencies": [parent, "gone"]}
    assert [api.post("v1/tasks", body).status_code for _ in "ab"] == [201, 200]


# -- Dependencies ----------------------------------------------------------------------------------


def test_a_task_waits_until_what_it_depends_on_is_complete(api: Caller) -> None:
    first, second = api.make()["id"], api.make()["id"]
    task = api.make(dependencies=[second, first, second], load_dependencies=True)
    assert task["state"] == "blocked"
    assert task["dependencies"] == [second, first] == api.task(task["id"])["dependencies"]
    assert "dependency_results" not in task
    end(first, {"any": "json"})
    found = api.task(task["id"])
    assert found["state"] == "blocked"
    (result,) = found["dependency_results"].items()
    assert result[0] == first and result[1]["payload"] == {"any": "json"}
    end(second, None)
    found = api.task(task["id"])
    assert found["state"] == "new"
    assert found["dependency_results"][second]["payload"] is None
    assert api.listed("?state=new") == [found]


def end(task_id: str, result: Any) -> None:
    """Let a task succeed, as a node would."""
    from django.db import transaction
    from django.db.models.functions import Now

    from jobs.models.release import release

    with transaction.atomic(using=USING):
        Job.objects.filter(pk=task_id).update(
            state=State.SUCCEEDED, finished_at=Now(), result=result, attempts=1, started_at=Now()
        )
        release(USING, [task_id])


def test_results_are_loaded_only_where_they_were_asked_for(api: Caller) -> None:
    parent = api.make()["id"]
    task = api.make(dependencies=[parent])
    end(parent, 1)
    assert "dependency_results" not in api.task(task["id"])
    assert api.task(parent)["result"]["payload"] == 1


@pytest.mark.parametrize("lost", [["no uuid"], [MISSING], [MISSING, "no uuid"]])
@pytest.mark.parametrize("has_parent", [True, False])
def test_a_task_whose_dependencies_are_not_there_is_unreachable(
    has_parent: bool, lost: list[str], api: Caller
) -> None:
    parents = [api.make()["id"]] if has_parent else []
    task = api.make(dependencies=parents + lost)
    assert task["state"] == "unreachable"
    assert all(name in task["last_err"] for name in lost)
    assert task["dependencies"] == parents + lost
    assert api.task(task["id"]) == task
    child = api.make(dependencies=[task["id"]])
    grandchild = api.make(dependencies=[child["id"]])
    assert child["state"] == grandchild["state"] == "unreachable"
    assert Job.objects.filter(state=State.BLOCKED).count() == 0


def test_a_failure_goes_down_all_levels_at_once(api: Caller) -> None:
    parent = api.make()["id"]
    child = api.make(dependencies=[parent])["id"]
    grandchild = api.make(dependencies=[child])["id"]
    Job.objects.get(pk=parent).cancel()
    for task_id in (child, grandchild):
        found = api.task(task_id)
        assert found["state"] == "unreachable" and found["last_err"]


def test_dependencies_have_a_limit(api: Caller) -> None:
    for parents in (["x"] * 50 + [f"y{n}" for n in range(100)], ["x" * 201]):
        response = api.post("v1/tasks", {"type": "a", "dependencies": parents})
        check_error(response, 400, "invalid_argument", "task_invalid", "dependencies")
    response = api.post("v1/tasks", {"type": "a", "id": MISSING, "dependencies": [MISSING]})
    check_error(response, 400, "invalid_argument", "task_invalid", "dependencies")
    assert not Job.objects.exists()


# -- Idempotency-Key -------------------------------------------------------------------------------


def keyed(api: Caller, key: str, **members: Any) -> Any:
    return api.post("v1/tasks", {"type": "a", **members}, **{"Idempotency-Key": key})


@pytest.mark.parametrize("key", ["", "k 1", "é", "x" * 128])
def test_the_same_key_is_the_same_task_as_it_is_now(key: str, api: Caller) -> None:
    first = keyed(api, key, payload={"a": 1, "b": 2})
    Job.objects.all().cancel()
    again = api.post(
        "v1/tasks", raw=b'{"payload":{"b":2, "a":1},"type":"a"}', **{"Idempotency-Key": key}
    )
    assert (first.status_code, again.status_code) == (201, 200)
    assert (first.json()["state"], again.json()["state"]) == ("new", "terminated")
    assert first["Location"] == again["Location"]
    assert Job.objects.count() == 1


def test_another_body_under_a_key_is_a_conflict(api: Caller) -> None:
    keyed(api, "k", payload=1)
    response = keyed(api, "k", payload=2)
    check_error(response, 409, "conflict", "idempotency_key_reused", "Idempotency-Key")
    assert Job.objects.count() == 1


@pytest.mark.parametrize("key", ["x" * 129, "a\tb", "a\x7f"])
def test_a_key_that_is_none_is_refused(key: str, api: Caller) -> None:
    response = keyed(api, key)
    check_error(response, 400, "invalid_argument", "idempotency_key_invalid", "Idempotency-Key")
    assert not Job.objects.exists()


def test_a_key_holds_for_ten_minutes(api: Caller) -> None:
    from jobs.models import IdempotencyKey

    keyed(api, "k")
    for minutes, status in ((9, 200), (11, 201)):
        made = Job.objects.latest("created_at").created_at
        IdempotencyKey.objects.update(created_at=made - timedelta(minutes=minutes))
        assert keyed(api, "k").status_code == status
    assert Job.objects.count() == 2


def test_a_key_whose_task_is_gone_is_free(admin: Caller) -> None:
    first = keyed(admin, "k")
    admin.delete(f"v1/tasks/{first.json()['id']}")
    again = keyed(admin, "k", payload=2)
    assert again.status_code == 201
    assert keyed(admin, "k", payload=2).json()["id"] == again.json()["id"] != first.json()["id"]


def test_keys_of_other_surfaces_and_callers_are_other_keys(api: Caller, make_key: Any) -> None:
    from tests.api.conftest import Api

    native = Api(api.headers["x-api-key"])
    assert native.post("alpha/jobs", {"type": "a"}, idempotency_key="k").status_code == 201
    assert keyed(api, "k").status_code == 201
    assert keyed(Caller(make_key("operator")), "k").status_code == 201
    assert native.post("alpha/jobs", {"type": "a"}, idempotency_key="k").status_code == 201
    assert Job.objects.count() == 3


def test_a_refused_request_leaves_its_key_unused(api: Caller) -> None:
    assert keyed(api, "k", queue="nope").status_code == 404
    assert keyed(api, "k").status_code == 201
