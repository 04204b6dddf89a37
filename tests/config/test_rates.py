"""How often a caller may ask, over threads and processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from config.rates import GROUP, Rates

pytestmark = pytest.mark.once


@pytest.fixture
def rates() -> Iterator[Rates]:
    with closing(Rates()) as made:
        yield made


def test_a_caller_may_ask_so_many_times_at_once_and_then_at_its_rate(rates):
    granted = [rates.wait("key:a", 10, 20, now=100.0) for _ in range(25)]
    assert granted[:20] == [0.0] * 20
    assert granted[20:] == pytest.approx([0.1] * 5)
    assert rates.wait("key:a", 10, 20, now=100.05) == pytest.approx(0.05)
    assert rates.wait("key:a", 10, 20, now=100.1) == 0
    # Whoever was refused has not used anything up.
    assert rates.wait("key:a", 10, 20, now=100.2) == 0
    # And nobody saves up more than he may ask for at once.
    later = [rates.wait("key:a", 10, 20, now=9000.0) for _ in range(21)]
    assert later[:20] == [0.0] * 20
    assert later[20] > 0


def test_callers_do_not_share_what_they_have(rates):
    for _ in range(2):
        rates.wait("key:a", 1, 2, now=1.0)
    assert rates.wait("key:a", 1, 2, now=1.0) > 0
    assert rates.wait("key:b", 1, 2, now=1.0) == 0


def test_where_all_places_are_taken_who_owes_least_is_forgiven(rates, monkeypatch):
    monkeypatch.setattr(rates, "_groups", 1)
    for number in range(GROUP):
        for _ in range(number + 1):
            assert rates.wait(f"key:{number}", 1, 100, now=1.0) == 0
    assert rates.wait("key:new", 1, 100, now=1.0) == 0
    owed = rates.wait(f"key:{GROUP - 1}", 1, GROUP, now=1.0)
    assert owed == pytest.approx(1.0)


def test_threads_and_forked_processes_count_together(rates):

    def ask(times: int) -> int:
        return sum(rates.wait("key:a", 0.001, 300, now=5.0) == 0 for _ in range(times))

    pipes = []
    for _ in range(3):
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.write(writing, str(ask(200)).encode())
            os._exit(0)
        os.close(writing)
        pipes.append(reading)
    granted = ask(100)
    for reading in pipes:
        with os.fdopen(reading) as pipe:
            granted += int(pipe.read())
        os.wait()
    with ThreadPoolExecutor(4) as threads:
        granted += sum(threads.map(ask, [50] * 4))
    assert granted == 300


def test_to_count_takes_next_to_no_time(rates):
    begun = time.perf_counter()
    for number in range(2000):
        rates.wait(f"key:{number % 50}", 500, 1000)
    assert (time.perf_counter() - begun) / 2000 < 0.001
