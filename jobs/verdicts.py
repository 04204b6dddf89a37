"""When something is wrong with a cluster, and in which words; screen and alerts say the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from jobs.words import number, span

NAMED = 3


class Verdict(NamedTuple):
    """How something stands, in a sentence, and the page below a cluster's own that shows the cause."""

    is_wrong: bool
    sentence: str
    page: str = ""


def fail_too_often(failed: int, succeeded: int, *, ratio: float, at_least: int) -> bool:
    """Whether so many of the jobs that were judged failed; a few in all tell nothing."""
    return failed >= max(at_least, 1) and failed > ratio * (failed + succeeded)


def failures_in(failed: int, ended: int, length: str) -> str:
    return f"{number(failed)} of {number(ended)} jobs failed in the last {length}"


def waits_too_long(seconds: float, limit_seconds: float) -> bool:
    return seconds > limit_seconds


def oldest_ready(queue: str, seconds: float, limit_seconds: float) -> str:
    return f"{queue}: oldest ready job {span(seconds)}, limit {span(limit_seconds)}."


def schedule_late(name: str, seconds: float, others: int) -> str:
    more = f" and {number(others)} more" if others else ""
    return f"Schedule {name} is {span(seconds)} late{more}"


def not_heard_of(nodes: Sequence[str]) -> str:
    return f"Not heard of any more: {listed(nodes)}."


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {number(len(names) - NAMED)} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def page(path: str, **words: str | None) -> str:
    """An address below a cluster's own, with those words of its filter that are given."""
    given = {name: value for name, value in words.items() if value}
    return f"{path}?{urlencode(given)}" if given else path
