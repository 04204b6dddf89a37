"""Prometheus' text format, written line by line.

The library's own writer checks and sorts the labels of each sample again; with two hundred queues that
takes longer than to ask the database. Here labels are escaped once for all samples that share them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

# What stands between the name of a metric and its value, escaped.
Labels = str


class Sample(NamedTuple):
    labels: Labels
    value: float


class Family(NamedTuple):
    """One metric with all its samples."""

    name: str
    kind: str
    text: str
    # Or lines that are written already.
    samples: Iterable[Sample | str]


def labelled(**labels: str) -> Labels:
    """Labels by name, their values as the format wants them."""
    return ",".join([f'{name}="{_escaped(value)}"' for name, value in labels.items()])


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def written(families: Iterable[Family]) -> bytes:
    """The text of these metrics."""
    return "".join(_lines(families)).encode("utf-8", "replace")


def _lines(families: Iterable[Family]) -> Iterator[str]:
    for name, kind, text, samples in families:
        yield f"# HELP {name} {text}\n# TYPE {name} {kind}\n"
        for sample in samples:
            if isinstance(sample, str):
                yield sample
            else:
                yield f"{name}{{{sample[0]}}} {sample[1]}\n"
