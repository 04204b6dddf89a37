"""Deliveries to webhooks: signed, guarded, and offered again where that may help."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

import pytest

from jobs.errors import InvalidJob
from jobs.executors import Outcome, webhook
from tests.jobs.executors.attempts import Recorder, in_loop, make_assignment
from tests.jobs.executors.servers import Server, answer, header

KEY = "k" * 40
BODY = {"state": "COMPLETED", "name": "ü"}


@pytest.fixture(autouse=True)
def _key(settings: Any) -> None:
    settings.WEBHOOK_KEY = KEY


def payload(server: Server, **more: Any) -> dict[str, Any]:
    return {
        "url": server.url("/hook"),
        "headers": {},
        "event": "job.StateChange",
        "body": BODY,
        **more,
    }


def deliver(server: Server, **more: Any) -> Outcome:
    async def go() -> Outcome:
        async with server.on():
            return await webhook.run(make_assignment(payload(server, **more)), Recorder())

    return in_loop(go())


def test_what_is_sent_can_be_told_from_what_others_send() -> None:
    server = Server()
    assert deliver(server, headers={"X-Mine": "a", "x-yardmaster-signature": "forged"}).ok
    (request,) = server.requests
    sent = request.partition(b"\r\n\r\n")[2]
    assert json.loads(sent) == BODY
    assert request.startswith(b"POST /hook ")
    assert header(request, "Content-Type") == "application/json; charset=UTF-8"
    assert header(request, "X-Yardmaster-Event") == "job.StateChange"
    assert header(request, "X-Mine") == "a"
    signature = header(request, "X-Yardmaster-Signature") or ""
    parts = dict(part.split("=") for part in signature.split(","))
    assert abs(int(parts["t"]) - time.time()) < 60
    signed = f"{parts['t']}.".encode() + sent
    assert parts["v1"] == hmac.new(KEY.encode(), signed, hashlib.sha256).hexdigest()
    assert request.lower().count(b"x-yardmaster-signature") == 1


def test_without_a_key_nothing_is_signed(settings: Any) -> None:
    settings.WEBHOOK_KEY = ""
    server = Server()
    assert deliver(server).ok
    assert header(server.requests[0], "X-Yardmaster-Signature") is None


@pytest.mark.parametrize(
    ("status", "is_permanent"),
    [(400, True), (404, True), (410, True), (429, False), (500, False), (503, False), (302, True)],
)
def test_only_what_may_pass_is_worth_another_attempt(status: int, is_permanent: bool) -> None:
    outcome = deliver(Server(answer(status, b"why", Retry_After="1")))
    assert not outcome.ok
    assert (outcome.is_permanent, outcome.is_throttled) == (is_permanent, False)


def test_an_address_that_is_not_public_is_refused() -> None:
    server = Server()
    server.port = 9
    outcome = in_loop(webhook.run(make_assignment(payload(server)), Recorder()))
    assert (outcome.error_type, outcome.is_permanent) == ("AddressRefused", True)


@pytest.mark.parametrize(
    "bad",
    [
        {"url": "ftp://x"},
        {"headers": {"X-Job-Id": "a"}},
        {"headers": {"X": "a\r\nb: c"}},
        {"more": 1},
    ],
)
def test_what_nobody_could_deliver_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob):
        webhook.validate(payload(Server(), **bad))
