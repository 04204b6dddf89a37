"""What is wrong with a cluster, in one sentence each, the worst first."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from clusters.policy import ACTIVE
from ui.snapshot import Snapshot
from ui.words import number, span, utc

# A job that has been ready for longer should have been taken.
OLDEST_READY_LIMIT_SECONDS = 300
# A share of failed jobs is told of from so many on.
FAILURE_RATIO, FAILURES_AT_LEAST = 0.1, 10


class Severity(IntEnum):
    FINE = 0
    NOTICE = 1
    WARNING = 2
    BROKEN = 3


class Trouble(NamedTuple):
    severity: Severity
    sentence: str
    # The page that shows the cause: the name of its address, and the query that filters it.
    page: str
    query: str = ""


def troubles(snapshot: Snapshot) -> list[Trouble]:
    """Everything that a person should look at; empty where all is well."""
    found = [*_cluster(snapshot), *_nodes(snapshot), *_queues(snapshot), *_failures(snapshot)]
    return sorted(found, key=lambda trouble: -trouble.severity)


def _cluster(snapshot: Snapshot) -> Iterator[Trouble]:
    if snapshot.is_restored:
        sentence = "Restored from a backup: no job starts until somebody confirms."
        yield Trouble(Severity.BROKEN, sentence, "index")
    if snapshot.mode != ACTIVE:
        sentence = f"The cluster is {snapshot.mode}: its jobs are kept, and none starts."
        yield Trouble(Severity.NOTICE, sentence, "index")


def _nodes(snapshot: Snapshot) -> Iterator[Trouble]:
    ready = snapshot.ready
    if not snapshot.live_nodes:
        if ready.count:
            plus = "" if ready.is_exact else "+"
            sentence = f"No node takes jobs, and {number(ready.count)}{plus} are ready."
            yield Trouble(Severity.BROKEN, sentence, "nodes")
        else:
            yield Trouble(Severity.NOTICE, "No node takes jobs.", "nodes")
    if silent := snapshot.silent_nodes:
        names = ", ".join(str(node) for node in silent[:3])
        more = f" and {len(silent) - 3} more" if len(silent) > 3 else ""
        yield Trouble(Severity.WARNING, f"Not heard of any more: {names}{more}.", "nodes")


def _queues(snapshot: Snapshot) -> Iterator[Trouble]:
    for one in snapshot.queues:
        name, oldest = one.queue.name, one.oldest_ready_at
        waits = (snapshot.taken_at - oldest).total_seconds() if oldest else 0.0
        query = f"state=ready&queue={name}"
        if one.queue.is_paused and one.ready.count:
            until = f" until {utc(one.queue.resume_at)}" if one.queue.resume_at else ""
            by = f"paused by {one.queue.paused_by}{until}"
            sentence = f"{name}: {by}, the oldest job waits {span(waits)}."
            yield Trouble(Severity.NOTICE, sentence, "queues")
        elif waits > OLDEST_READY_LIMIT_SECONDS:
            limit = span(OLDEST_READY_LIMIT_SECONDS)
            sentence = f"{name}: oldest ready job {span(waits)}, limit {limit}."
            yield Trouble(Severity.BROKEN, sentence, "jobs", query)
        elif one.ready.count and snapshot.live_nodes and not one.nodes:
            sentence = f"{name}: jobs are ready and no node takes from this queue."
            yield Trouble(Severity.BROKEN, sentence, "queues")


def _failures(snapshot: Snapshot) -> Iterator[Trouble]:
    hour = snapshot.hour
    ratio, failed = hour.failure_rate or 0.0, hour.counts["failed"]
    if failed >= FAILURES_AT_LEAST and ratio > FAILURE_RATIO:
        # Of the same jobs as the figures beside it, though those that were cancelled do not tell.
        sentence = f"{number(failed)} of {number(hour.finished)} jobs failed in the last hour."
        yield Trouble(Severity.WARNING, sentence, "failures")
