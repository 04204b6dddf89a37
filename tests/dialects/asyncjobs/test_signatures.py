"""Signed tasks: checked when they are made, shown as they were signed."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from jobs.models import Job, Schedule
from tests.dialects.asyncjobs.conftest import MISSING, Caller, check_error
from tests.factories import make_queue

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = KEY.public_key().public_bytes_raw().hex()
CREATED, CREATED_NS = "2026-04-20T10:00:00.123456789Z", 1_776_679_200_123_456_789
DEADLINE, DEADLINE_NS = "2033-05-06T07:08:09+02:00", 1_998_968_889_000_000_000
BODY: dict[str, Any] = {
    "id": MISSING,
    "type": "email:new",
    "queue": "EMAIL",
    "max_tries": 4,
    "created": CREATED,
    "deadline": DEADLINE,
    "payload": {"b": "<&>", "a": 2**60},
}
# Sorted, without white space, escaped as the original escapes it.
PAYLOAD = b'{"a":1152921504606846976,"b":"\\u003c\\u0026\\u003e"}'


def text(*, payload: bytes = PAYLOAD, **parts: Any) -> bytes:
    whole = {
        "id": MISSING, "queue": "EMAIL", "type": "email:new", "max_tries": 4,
        "created": CREATED_NS, "deadline": DEADLINE_NS, **parts,
    }  # fmt: skip
    return ":".join([*map(str, whole.values()), base64.b64encode(payload).decode()]).encode()


def signed(signed_text: bytes, key: Ed25519PrivateKey = KEY) -> str:
    return key.sign(signed_text).hex()


@pytest.fixture
def required(alpha: object, settings: Any) -> None:
    make_queue("EMAIL")
    settings.ASYNCJOBS_VERIFICATION_KEY = PUBLIC


def test_a_signed_task_is_shown_as_it_was_signed(required: None, api: Caller) -> None:
    signature = signed(text())
    response = api.post("v1/tasks", {**BODY, "signature": signature})
    assert response.status_code == 201, response.content
    task = response.json()
    assert task == api.task(MISSING)
    assert (task["signature"], task["created"], task["deadline"]) == (signature, CREATED, DEADLINE)
    # Whoever reads it can check it by what he reads.
    again = text(payload=base64.b64decode(task["payload"]), max_tries=task["max_tries"])
    KEY.public_key().verify(bytes.fromhex(task["signature"]), again)
    assert api.post("v1/tasks", {**BODY, "signature": signature}).status_code == 200
    assert Job.objects.count() == 1


def test_what_is_covered_stays_as_it_was_signed(required: None, api: Caller) -> None:
    from jobs.models import Queue

    Queue.objects.filter(name="EMAIL").change(default_max_attempts=2)
    parts = {**BODY, "max_tries": 4, "signature": signed(text())}
    assert api.post("v1/tasks", parts).json()["max_tries"] == 4
    assert Job.objects.get().max_attempts == 2
    assert api.post(f"v1/tasks/{MISSING}/retry").json()["deadline"] == DEADLINE


def test_what_is_left_out_is_signed_as_nothing(required: None, api: Caller, settings: Any) -> None:
    settings.ASYNCJOBS_QUEUE = "EMAIL"
    plain = text(payload=b"", id="", max_tries=10, created=0, deadline=0)
    body = {"type": "email:new", "signature": signed(plain)}
    assert api.post("v1/tasks", body).status_code == 201
    data = text(payload=b"\xff\x00", id="", max_tries=10, created=0, deadline=0)
    body = {"type": "email:new", "payload_base64": "/wA=", "signature": signed(data)}
    assert api.post("v1/tasks", body).status_code == 201
    assert api.listed()[0]["created"] != "0"


def test_a_schedule_is_refused_where_nobody_signs_its_tasks(
    required: None, api: Caller, settings: Any
) -> None:
    body = {"name": "n", "schedule": "@every 1h", "queue": "default", "task_type": "email:new"}
    response = api.post("v1/schedules", body)
    check_error(response, 400, "signature_required", "task_not_signed", "schedule")
    assert not Schedule.objects.exists()
    settings.ASYNCJOBS_SIGNATURES = "optional"
    assert api.post("v1/schedules", body).status_code == 201


@pytest.mark.parametrize("signature", [None, ""])
def test_an_unsigned_task_is_refused(signature: Any, required: None, api: Caller) -> None:
    response = api.post("v1/tasks", {**BODY, "created": None, "signature": signature})
    check_error(response, 400, "signature_required", "task_not_signed", "signature")
    assert not Job.objects.exists()


def wrong() -> dict[str, tuple[dict[str, Any], str]]:
    good = signed(text())
    changed: dict[str, dict[str, Any]] = {
        "id": {"id": MISSING.replace("0190", "0191")},
        "type": {"type": "email:old"},
        "queue": {"queue": "default"},
        "max_tries": {"max_tries": 5},
        "created": {"created": "2026-04-20T10:00:00.123456788Z"},
        "deadline": {"deadline": "2033-05-06T07:08:10+02:00"},
        "payload": {"payload": {"b": "<&>", "a": 2**60 + 1}},
        "no id": {"id": None},
    }
    found = {name: (members, good) for name, members in changed.items()}
    return found | {
        "another key": ({}, signed(text(), OTHER)),
        "half": ({}, good[:64]),
        "no hex": ({}, "x" * 128),
        "zeros": ({}, "0" * 128),
        "more": ({}, good + "00"),
        "base64": ({}, base64.b64encode(bytes.fromhex(good)).decode()),
    }


@pytest.mark.once
@pytest.mark.parametrize("case", wrong())
@pytest.mark.parametrize("mode", ["required", "optional"])
def test_a_signature_of_something_else_is_refused(
    mode: str, case: str, required: None, api: Caller, settings: Any
) -> None:
    settings.ASYNCJOBS_SIGNATURES = mode
    members, signature = wrong()[case]
    response = api.post("v1/tasks", {**BODY, **members, "signature": signature})
    check_error(response, 400, "signature_invalid", "task_signature_invalid", "signature")
    assert not Job.objects.exists()


def test_signatures_may_be_optional(required: None, api: Caller, settings: Any) -> None:
    settings.ASYNCJOBS_SIGNATURES = "optional"
    body = {**BODY, "created": None}
    assert api.post("v1/tasks", body).status_code == 201


def test_without_a_key_a_signature_is_kept_and_not_checked(api: Caller) -> None:
    make_queue("EMAIL")
    task = api.post("v1/tasks", {**BODY, "signature": "whatever"}).json()
    assert (task["signature"], task["created"]) == ("whatever", CREATED)
    response = api.post("v1/tasks", {"type": "a", "signature": "x" * 1025})
    check_error(response, 400, "invalid_argument", "task_invalid", "signature")
    response = api.post("v1/tasks", {"type": "a", "created": CREATED})
    check_error(response, 400, "invalid_argument", "task_invalid", "created")


def test_a_copy_of_a_signed_task_is_not_signed(api: Caller) -> None:
    from jobs.engine.requeue import requeue

    api.make(signature="whatever", created=CREATED)
    copy = requeue(Job.objects.get(), by="test")
    assert "signature" not in api.task(str(copy.pk))


def test_the_log_has_neither_bodies_nor_credentials(
    api: Caller, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    for body in ({"type": "a", "payload": "canary-1"}, {"type": "bad type", "payload": "canary-1"}):
        api.post("v1/tasks?q=canary-2", raw=json.dumps(body).encode(), authorization="canary-3")
    written = caplog.text + "".join(capfd.readouterr())
    # Statements, which nobody logs in production, are told of by the logger of the database.
    lines = [line for line in written.splitlines() if "django.db.backends" not in line]
    assert not [line for line in lines if "canary" in line]
