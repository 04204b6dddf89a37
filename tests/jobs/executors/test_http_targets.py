"""Hosts that are left alone for a while: circuits, the share of retries, answers that ask for time."""

from __future__ import annotations

import asyncio

import pytest

from jobs.executors import http, http_targets
from jobs.executors.http_targets import FAILURES, OPEN_SECONDS, RETRY_RESERVE, Targets
from tests.jobs.executors.attempts import in_loop
from tests.jobs.executors.servers import OK, Server, answer, ask, attempt

HOST = ("api.test", 443)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(http_targets, "time", clock)
    return clock


def refused(targets: Targets, *, is_retry: bool = False) -> bool:
    return targets.refuse(*HOST, is_retry=is_retry, seconds=30.0) is not None


def failing(times: int) -> Targets:
    targets = Targets()
    for _ in range(times):
        assert not refused(targets)
        targets.note(*HOST, answered=False)
    return targets


def test_a_target_is_left_alone_when_the_last_calls_have_all_failed(clock):
    targets = failing(FAILURES - 1)
    targets.note(*HOST, answered=True)
    assert not refused(targets)
    targets = failing(FAILURES)
    refusal = targets.refuse(*HOST, is_retry=False, seconds=30.0)
    assert refusal is not None and OPEN_SECONDS <= refusal.seconds <= 2 * OPEN_SECONDS
    # Nobody else suffers.
    assert targets.refuse("api.test", 80, is_retry=False, seconds=30.0) is None


def test_one_at_a_time_tries_whether_it_answers_again(clock):
    targets = failing(FAILURES)
    clock.now += OPEN_SECONDS + 0.1
    assert not refused(targets)
    assert refused(targets)
    targets.note(*HOST, answered=False)
    # For longer each time.
    clock.now += OPEN_SECONDS + 0.1
    assert refused(targets)
    clock.now += OPEN_SECONDS
    assert not refused(targets)
    targets.note(*HOST, answered=True)
    assert not refused(targets) and not refused(targets)


def test_a_try_that_was_stopped_makes_room_for_another(clock):
    targets = failing(FAILURES)
    clock.now += OPEN_SECONDS + 0.1
    assert not refused(targets)
    targets.forget_probe(*HOST)
    assert not refused(targets)
    # One that is never heard of again does so when its time is over.
    assert refused(targets)
    clock.now += 31
    assert not refused(targets)


def test_a_tenth_of_the_calls_may_be_retries(clock):
    targets = Targets()
    while not refused(targets, is_retry=True):
        pass
    made = 0
    for _ in range(1000):
        assert not refused(targets)
        made += not refused(targets, is_retry=True)
    assert 90 <= made <= 120
    clock.now += 3600
    made = 0
    while not refused(targets, is_retry=True):
        made += 1
    assert made <= RETRY_RESERVE * 1.2


def test_only_so_many_targets_are_remembered(clock):
    targets = failing(FAILURES)
    for number in range(http_targets.MOST_TARGETS):
        targets.note(f"host-{number}", 80, answered=True)
    assert not refused(targets)


@pytest.mark.parametrize(
    ("status", "headers", "is_throttled"),
    [
        (429, {}, True),
        (429, {"Retry_After": "3"}, True),
        (503, {"Retry_After": "3"}, True),
        (503, {}, False),
        (500, {"Retry_After": "3"}, False),
    ],
)
def test_answers_that_ask_for_time_spend_no_attempt(status, headers, is_throttled):
    assert in_loop(ask(Server(answer(status, **headers)))).is_throttled is is_throttled


def test_a_dead_host_does_not_get_every_job(monkeypatch):
    """Calls fail until it is known; then jobs come back later without a connection."""
    server = Server(answer(502))

    async def work():
        async with server.on():
            for _ in range(FAILURES + 5):
                outcome = await attempt({"url": server.url()}, attempt=1)
            assert len(server.requests) == FAILURES
            assert (outcome.is_throttled, outcome.error_type) == (True, "LeftAlone")
            assert outcome.retry_after_seconds > 0
            monkeypatch.setattr(http.TARGETS._targets["127.0.0.1", server.port], "open_until", 0.0)
            server.answer = OK
            assert (await attempt({"url": server.url()}, attempt=1)).ok
            assert (await attempt({"url": server.url()}, attempt=1)).ok

    in_loop(work())


def test_a_host_that_lets_time_run_out_counts_as_dead_and_a_cancelled_job_does_not():
    async def silent(reader, writer):
        await reader.read()

    server = Server(silent)

    async def run_for(seconds: float, timeout: float) -> None:
        task = asyncio.ensure_future(
            attempt({"url": server.url()}, attempt=1, timeout_seconds=timeout)
        )
        await asyncio.sleep(seconds)
        task.cancel()
        await asyncio.wait([task])

    async def work():
        async with server.on():
            target = ("127.0.0.1", server.port)
            await asyncio.gather(*(run_for(0.1, 60) for _ in range(3)))
            assert http.TARGETS._targets[target].failures == 0
            await asyncio.gather(*(run_for(0.3, 0.3) for _ in range(3)))
            assert http.TARGETS._targets[target].failures == 3

    in_loop(work())
