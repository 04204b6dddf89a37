"""Histograms of durations: logarithmic buckets of one layout, so that histograms merge by adding.

Bucket ``b`` holds what is longer than 1 ms * 2**((b - 1) / 4) and at most 1 ms * 2**(b / 4). Four
buckets to a doubling: a percentile is at most 19 % off, whatever its size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import lru_cache

PER_DOUBLING = 4
UNIT_SECONDS = 0.001
# A microsecond, below which nothing is told apart, and some 34 years.
SHORTEST_SECONDS, SMALLEST = 1e-6, -39
LONGEST_SECONDS, LARGEST = 2.0**40 * UNIT_SECONDS, 160

_PER_NAT = PER_DOUBLING / math.log(2)
# Keeps the upper bounds themselves in their bucket, though logarithms are rounded.
_ROUNDING = 1e-9
_RATIO: float = 2 ** (1 / PER_DOUBLING)
# The mean of a bucket in which every share of a doubling is as likely, in parts of its upper bound.
_MEAN_SHARE = (1 - 1 / _RATIO) / math.log(_RATIO)

# The same in SQL, of an expression of seconds as a double. SQLite gets ``ln`` and ``ceiling`` from
# Django where it was built without them.
POSTGRES_BUCKET = (
    f"least(ceil(ln(greatest({{seconds}}, {SHORTEST_SECONDS}) / {UNIT_SECONDS})"
    f" * {_PER_NAT!r} - {_ROUNDING}), {LARGEST})::smallint"
)
SQLITE_BUCKET = (
    f"CAST(min(ceiling(ln(max({{seconds}}, {SHORTEST_SECONDS}) / {UNIT_SECONDS})"
    f" * {_PER_NAT!r} - {_ROUNDING}), {LARGEST}) AS INTEGER)"
)

Histogram = Mapping[int, float]


def bucket_of(seconds: float) -> int:
    """The bucket of a duration; one that is negative, as clocks may have it, counts as none."""
    if not seconds > SHORTEST_SECONDS:
        return SMALLEST
    if seconds >= LONGEST_SECONDS:
        return LARGEST
    return math.ceil(math.log(seconds / UNIT_SECONDS) * _PER_NAT - _ROUNDING)


def upper_bound(bucket: int) -> float:
    """The longest duration of a bucket, in seconds."""
    return UNIT_SECONDS * math.exp2(bucket / PER_DOUBLING)


def merge(histograms: Iterable[Mapping[int, int] | Mapping[str, int]]) -> dict[int, int]:
    """One histogram of all; keys may be the strings that JSON makes of them."""
    merged: dict[int, int] = {}
    for histogram in histograms:
        for bucket, count in histogram.items():
            merged[int(bucket)] = merged.get(int(bucket), 0) + count
    return merged


def added(first: Histogram, second: Histogram) -> dict[int, float]:
    """What the sum of two durations is like, where the one tells nothing of the other; as many as there
    are of the second. Where there is nothing of one, it is the other."""
    total = sum(first.values())
    if total <= 0 or not second:
        return dict(second or first)
    sums: dict[int, float] = {}
    for one, count in first.items():
        for other, number in second.items():
            bucket = _sum_of(one, other)
            sums[bucket] = sums.get(bucket, 0.0) + count * number / total
    return sums


@lru_cache(maxsize=40_000)
def _sum_of(one: int, other: int) -> int:
    """The bucket of the sum of two durations in the middles of theirs."""
    return bucket_of((upper_bound(one) + upper_bound(other)) / math.sqrt(_RATIO))


def percentile(histogram: Histogram, q: float) -> float | None:
    """The duration that the share ``q`` (0 to 1) of all does not exceed; None where there is none."""
    total = sum(histogram.values())
    if total <= 0:
        return None
    rank, before = min(max(q, 0.0), 1.0) * total, 0.0
    bucket = SMALLEST
    for bucket, count in sorted(histogram.items()):
        if count > 0 and before + count >= rank:
            # Within a bucket, evenly over its logarithm.
            return upper_bound(bucket - 1) * math.pow(_RATIO, (rank - before) / count)
        before += count
    return upper_bound(bucket)


def mean(histogram: Histogram) -> float | None:
    """The mean duration, estimated from the buckets; None where there is none."""
    total = sum(histogram.values())
    if total <= 0:
        return None
    summed = sum(count * upper_bound(bucket) * _MEAN_SHARE for bucket, count in histogram.items())
    return summed / total
