"""Kind `http`: what a payload says about time, about trying again, and about the type of its body."""

from __future__ import annotations

import time

import pytest

from jobs.errors import InvalidJob
from jobs.executors.http_request import validate
from tests.jobs.executors.attempts import in_loop
from tests.jobs.executors.servers import Server, answer, ask, attempt


@pytest.mark.parametrize(
    ("status", "retry_status", "is_permanent"),
    [
        (500, None, False),
        (500, [503], True),
        (503, [503], False),
        (404, None, True),
        (404, [404], False),
        (429, None, False),
        (429, [500], True),
    ],
)
def test_a_payload_may_say_which_answers_are_tried_again(status, retry_status, is_permanent):
    server = Server(answer(status))
    payload = {} if retry_status is None else {"retry_status": retry_status}
    outcome = in_loop(ask(server, **payload))
    assert not outcome.ok
    assert outcome.is_permanent is is_permanent
    if is_permanent:
        assert not outcome.is_throttled


def test_a_request_may_have_less_time_than_its_job():
    async def silent(reader, writer):
        await reader.read()

    server = Server(silent)

    async def work():
        async with server.on():
            began_at = time.monotonic()
            outcome = await attempt(
                {"url": server.url(), "timeout_seconds": 0.2}, timeout_seconds=60
            )
            return outcome, time.monotonic() - began_at

    outcome, seconds = in_loop(work())
    assert (outcome.ok, outcome.error_type, outcome.is_permanent) == (False, "Timeout", False)
    assert seconds < 10


def sent(payload):
    server = Server(answer(200))

    async def work():
        async with server.on():
            assert (await attempt({"url": server.url(), "method": "POST", **payload})).ok

    in_loop(work())
    return server.requests[0]


def test_the_type_of_a_body_may_be_said_and_a_header_says_it_better():
    typed = {"body": "{}", "content_type": "application/json"}
    assert b"content-type: application/json\r\n" in sent(typed).lower()
    headers = {"headers": {"Content-Type": "text/csv"}}
    request = sent({**typed, **headers}).lower()
    assert b"content-type: text/csv\r\n" in request and b"application/json" not in request


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        ({"retry_status": []}, "payload.retry_status"),
        ({"retry_status": 500}, "payload.retry_status"),
        ({"retry_status": ["9xx"]}, "payload.retry_status"),
        ({"timeout_seconds": 0}, "payload.timeout_seconds"),
        ({"timeout_seconds": "5"}, "payload.timeout_seconds"),
        ({"timeout_seconds": True}, "payload.timeout_seconds"),
        ({"timeout_seconds": 10**30}, "payload.timeout_seconds"),
        ({"content_type": "text/csv"}, "payload.content_type"),
        ({"content_type": "text/csv", "json": 1}, "payload.content_type"),
        ({"content_type": "a\r\nb: c", "body": ""}, "payload.content_type"),
        ({"content_type": 7, "body": ""}, "payload.content_type"),
    ],
)
def test_a_wrong_value_is_refused_by_its_field(payload, field):
    with pytest.raises(InvalidJob) as caught:
        validate({"url": "https://example.com/", **payload})
    assert caught.value.field == field
