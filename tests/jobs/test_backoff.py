from __future__ import annotations

from jobs.engine.backoff import full_jitter


def test_the_wait_is_random_up_to_a_bound_that_doubles():
    for attempts, bound in ((1, 5), (2, 10), (3, 20), (4, 40)):
        waits = [full_jitter(attempts, 5, 3600) for _ in range(2000)]
        assert 0 <= min(waits) < bound * 0.05
        assert bound * 0.95 < max(waits) <= bound


def test_the_cap_holds_for_any_number_of_attempts():
    assert all(full_jitter(10_000, 5, 60) <= 60 for _ in range(100))


def test_no_base_means_no_wait():
    assert full_jitter(7, 0, 3600) == 0
