"""What it costs to know a caller, and what those pay who are not the ones that guess."""

from __future__ import annotations

import gc
import http.client
import json
import math
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pytest

from authn import keys
from authn.keys import _is_secret_of, _Row, create_key, digest_of, find_principal
from tests.processes import free_port, started, worker_environment

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.long]
SAMPLES = 20_000


# -- Guessing by time ------------------------------------------------------------------------------


def row_of(secret: str) -> _Row:
    return _Row("x", digest_of(secret), None, None, "[]", datetime.now(UTC), 1, None, "", "[]")


def z_of_ranks(first: list[int], second: list[int]) -> float:
    """How far apart two samples are, by the ranks of their values, in standard deviations."""
    values = sorted((value, who) for who, sample in enumerate((first, second)) for value in sample)
    ranks, at = 0.0, 0
    while at < len(values):
        end = at
        while end < len(values) and values[end][0] == values[at][0]:
            end += 1
        middle = (at + 1 + end) / 2
        ranks += middle * sum(1 for _, who in values[at:end] if who == 0)
        at = end
    n, m = len(first), len(second)
    mean, deviation = n * (n + m + 1) / 2, math.sqrt(n * m * (n + m + 1) / 12)
    return (ranks - mean) / deviation


def is_told_apart(call: Callable[[str], object], one: str, other: str) -> bool:
    """Whether time tells the two apart at p = 0.01; three times in a row, which chance never is."""
    for _ in range(3):
        samples: tuple[list[int], list[int]] = ([], [])
        gc.disable()
        for _ in range(SAMPLES):
            for who in random.sample((0, 1), 2):
                # Made at that moment: what lies where in memory must not count.
                text = "".join(list((one, other)[who]))
                begun = time.perf_counter_ns()
                call(text)
                samples[who].append(time.perf_counter_ns() - begun)
        gc.enable()
        z = z_of_ranks(*samples)
        print(f"\nz = {z:.2f}, medians {[statistics.median(sample) for sample in samples]} ns")
        if abs(z) < 2.576:
            return False
    return True


def test_time_does_not_tell_how_much_of_a_key_is_right(monkeypatch: Any) -> None:
    row = row_of("a" * 64)
    # As if somebody could choose what a guess is hashed to, which is better than anybody can.
    monkeypatch.setattr(keys, "digest_of", bytes.fromhex)
    first, last = (
        bytes(b ^ (1 if at == position else 0) for at, b in enumerate(row.digest)).hex()
        for position in (0, 31)
    )
    assert not is_told_apart(lambda text: _is_secret_of(row, text), first, last)


def test_the_test_would_notice() -> None:
    kept = "a" * 4096
    first, last = "b" + kept[1:], kept[:-1] + "b"
    assert is_told_apart(kept.__eq__, first, last)


# -- A good key ------------------------------------------------------------------------------------


def test_a_good_key_costs_little() -> None:
    _, plain = create_key("ci", "operator", ["alpha", "beta"])
    find_principal(plain, "127.0.0.1")
    rounds = []
    for _ in range(20):
        begun = time.perf_counter()
        for _ in range(200):
            find_principal(plain, "127.0.0.1")
        rounds.append((time.perf_counter() - begun) / 200 * 1000)
    print(f"\na good key: best {min(rounds):.3f} ms, median {statistics.median(rounds):.3f} ms")
    # The best: what else the machine does costs no key anything.
    assert min(rounds) <= 0.3


# -- A flood of passwords --------------------------------------------------------------------------


def p99_of(port: int, key: str, seconds: float) -> float:
    taken, until = [], time.monotonic() + seconds
    while time.monotonic() < until:
        begun = time.perf_counter()
        status, _ = ask(port, {"x-api-key": key})
        taken.append(time.perf_counter() - begun)
        assert status == 200
        time.sleep(0.01)
    return statistics.quantiles(taken, n=100)[98] * 1000


def ask(port: int, headers: dict[str, str]) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/jm-api/whoami", headers=headers)
        response = connection.getresponse()
        response.read()
        return response.status, response.headers.get("Retry-After", "")
    finally:
        connection.close()


FLOOD = """
import base64, collections, http.client, json, random, sys, threading, time
port, origin, told, is_over = int(sys.argv[1]), sys.argv[2], collections.Counter(), threading.Event()

def flood(number):
    while not is_over.wait(0.2):
        everywhere = origin == "everywhere"
        name = f"user-{random.random()}" if everywhere else "ann"
        pair = base64.b64encode(f"{name}:wrong-{random.random()}".encode()).decode()
        address = f"198.51.{number}.{random.randrange(1, 255)}" if everywhere else "198.51.100.1"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"Authorization": f"Basic {pair}", "X-Forwarded-For": address}
        connection.request("GET", "/jm-api/whoami", headers=headers)
        response = connection.getresponse()
        response.read()
        connection.close()
        wait = int(response.headers.get("Retry-After", 0))
        told[str(response.status) if wait or response.status == 401 else "odd"] += 1

threads = [threading.Thread(target=flood, args=(number,)) for number in range(10)]
for thread in threads:
    thread.start()
sys.stdin.read()
is_over.set()
for thread in threads:
    thread.join()
print(json.dumps(told))
"""


@contextmanager
def flooding(port: int, origin: str) -> Iterator[dict[str, int]]:
    """Fifty wrong passwords a second during the block; afterwards what they were told."""
    told: dict[str, int] = {}
    flood = subprocess.Popen(
        [sys.executable, "-c", FLOOD, str(port), origin],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield told
        told.update(json.loads(flood.communicate("", timeout=120)[0]))
    finally:
        flood.kill()
        flood.wait()


@pytest.mark.parametrize("origin", ["one address", "everywhere"])
def test_fifty_wrong_passwords_a_second_leave_others_alone(
    origin: str, eventually: Any, django_user_model: Any
) -> None:
    _, key = create_key("ci", "viewer", ["alpha"])
    django_user_model.objects.create_user("ann", password="x")
    port = free_port()
    env = worker_environment(YARDMASTER_TRUSTED_PROXIES="127.0.0.0/8")
    arguments = ("serve", "--bind", f"127.0.0.1:{port}", "--workers", "2")
    with started(*arguments, env=env):
        eventually(lambda: _answers(port), seconds=60)
        p99_of(port, key, 2)
        alone = p99_of(port, key, 15)
        # From a process of its own: threads of this one would hold up who measures.
        with flooding(port, origin) as told:
            beside = p99_of(port, key, 30)
    figures = {"origin": origin, "p99_alone_ms": alone, "p99_beside_ms": beside, "flood": told}
    print("\n" + json.dumps(figures))
    assert {*told} == {"401", "429"}
    # One is hashed at a time, so how many are depends on how fast that is here.
    assert told["429"] > 5 * told["401"]
    assert beside <= 2 * alone + 20, figures


def _answers(port: int) -> bool:
    try:
        return ask(port, {})[0] == 401
    except OSError:
        return False
