from __future__ import annotations

import math

import pytest
from django.db import connections
from hypothesis import given
from hypothesis import strategies as st

from jobs.histogram import (
    LARGEST,
    POSTGRES_BUCKET,
    SMALLEST,
    SQLITE_BUCKET,
    bucket_of,
    mean,
    merge,
    percentile,
    upper_bound,
)

EDGES = [0.0, -1.0, 1e-9, 1e-6, 1e-3, 0.002, 0.004, 1.024, 0.0011, 1.0, 3600.0, 1e9, 1e12]


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_a_duration_lies_within_its_bucket(seconds):
    bucket = bucket_of(seconds)
    assert upper_bound(bucket - 1) * (1 - 1e-8) < seconds <= upper_bound(bucket) * (1 + 1e-8)


@pytest.mark.parametrize("doublings", range(-9, 40))
def test_an_upper_bound_belongs_to_its_own_bucket(doublings):
    assert bucket_of(0.001 * 2.0**doublings) == 4 * doublings


@given(st.floats())
def test_every_number_has_a_bucket_of_the_layout(seconds):
    assert SMALLEST <= bucket_of(seconds) <= LARGEST


def test_the_database_finds_the_same_buckets(alpha, is_postgresql):
    durations = EDGES + [1.37**n / 1000 for n in range(-20, 90)]
    durations += [upper_bound(bucket) for bucket in range(-36, 100)]
    template, value = (
        (POSTGRES_BUCKET, "%s::float8") if is_postgresql else (SQLITE_BUCKET, "CAST(%s AS REAL)")
    )
    with connections["cluster-alpha"].cursor() as cursor:
        for seconds in durations:
            cursor.execute("SELECT " + template.format(seconds=value), [seconds])
            assert cursor.fetchone()[0] == bucket_of(seconds), seconds


counts = st.dictionaries(st.integers(SMALLEST, 120), st.integers(1, 10**6), max_size=30)


@given(st.lists(counts, max_size=5))
def test_merging_adds_and_knows_the_keys_of_json(histograms):
    merged = merge([{str(key): n for key, n in one.items()} for one in histograms])
    assert sum(merged.values()) == sum(sum(one.values()) for one in histograms)
    assert all(merged[key] == sum(one.get(key, 0) for one in histograms) for key in merged)
    assert merge(reversed(histograms)) == merged


@given(st.lists(st.floats(min_value=1e-5, max_value=1e5), min_size=1, max_size=200))
def test_a_percentile_is_off_by_less_than_one_bucket(durations):
    histogram = merge([{bucket_of(seconds): 1} for seconds in durations])
    ordered = sorted(durations)
    for q in (0.5, 0.9, 0.99, 1.0):
        exact = ordered[max(math.ceil(q * len(ordered)), 1) - 1]
        estimate = percentile(histogram, q)
        assert exact / 1.1893 <= estimate <= exact * 1.1893
    exact_mean = sum(durations) / len(durations)
    assert exact_mean / 1.1893 <= mean(histogram) <= exact_mean * 1.1893


@given(counts, st.floats(0, 1), st.floats(0, 1))
def test_a_higher_percentile_is_not_shorter(histogram, one, other):
    low, high = sorted((one, other))
    if histogram:
        assert percentile(histogram, low) <= percentile(histogram, high) * (1 + 1e-9)


def test_percentiles_lie_between_the_bounds_of_a_bucket():
    assert upper_bound(7) < percentile({8: 10}, 0.5) < upper_bound(8)


def test_an_empty_histogram_has_neither_percentile_nor_mean():
    assert percentile({}, 0.5) is None
    assert mean({}) is None
