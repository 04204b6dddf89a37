"""What is wrong with a cluster, in one sentence each, the worst first."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import NamedTuple

from django.urls import reverse

from clusters.binding import current_cluster
from clusters.policy import ACTIVE
from jobs import verdicts
from jobs.models import AlertSeverity
from ui.navigation import site_name
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
    # The page that shows the cause: the name of its address, what filters it, and whose it is.
    page: str
    query: str = ""
    queue: str = ""
    # In place of all these the path of the page on the cluster's site.
    path: str = ""


def troubles(snapshot: Snapshot) -> list[Trouble]:
    """Everything that a person should look at; empty where all is well."""
    found = [
        *_cluster(snapshot),
        *_alerts(snapshot),
        *_nodes(snapshot),
        *_queues(snapshot),
        *_schedules(snapshot),
        *_failures(snapshot),
    ]
    return sorted(found, key=lambda trouble: -trouble.severity)


def cause(trouble: Trouble) -> str:
    """The address, on the bound cluster's site, that shows why."""
    kwargs = {"name": trouble.queue} if trouble.queue else None
    site = site_name(current_cluster().id)
    if trouble.path:
        return reverse("admin:index", current_app=site) + trouble.path
    address = reverse(f"admin:{trouble.page}", kwargs=kwargs, current_app=site)
    return f"{address}?{trouble.query}" if trouble.query else address


def _cluster(snapshot: Snapshot) -> Iterator[Trouble]:
    if snapshot.is_restored:
        sentence = "Restored from a backup: no job starts until somebody confirms."
        yield Trouble(Severity.BROKEN, sentence, "index")
    if snapshot.mode != ACTIVE:
        sentence = f"The cluster is {snapshot.mode}: its jobs are kept, and none starts."
        yield Trouble(Severity.NOTICE, sentence, "index")


def _alerts(snapshot: Snapshot) -> Iterator[Trouble]:
    for rule in snapshot.firing:
        is_critical, by = rule.severity == AlertSeverity.CRITICAL, ""
        severity = Severity.BROKEN if is_critical else Severity.WARNING
        if rule.acknowledged_at is not None:
            # Somebody is on it.
            severity, by = Severity.NOTICE, f" ({rule.acknowledged_by} has it)"
        sentence = f"Alert {rule.name}: {rule.sentence.removesuffix('.')}{by}."
        yield Trouble(severity, sentence, "alert", path=rule.page or f"alerts/{rule.pk}/")


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
        sentence = verdicts.not_heard_of([str(node) for node in silent])
        yield Trouble(Severity.WARNING, sentence, "nodes")


def _queues(snapshot: Snapshot) -> Iterator[Trouble]:
    for one in snapshot.queues:
        name, oldest = one.queue.name, one.oldest_ready_at
        waits = (snapshot.taken_at - oldest).total_seconds() if oldest else 0.0
        query = f"state=ready&queue={name}"
        if one.queue.is_paused and one.ready.count:
            until = f" until {utc(one.queue.resume_at)}" if one.queue.resume_at else ""
            by = f"paused by {one.queue.paused_by}{until}"
            sentence = f"{name}: {by}, the oldest job waits {span(waits)}."
            yield Trouble(Severity.NOTICE, sentence, "queue", queue=name)
        elif verdicts.waits_too_long(waits, OLDEST_READY_LIMIT_SECONDS):
            sentence = verdicts.oldest_ready(name, waits, OLDEST_READY_LIMIT_SECONDS)
            yield Trouble(Severity.BROKEN, sentence, "jobs", query)
        elif one.ready.count and snapshot.live_nodes and not one.nodes:
            sentence = f"{name}: jobs are ready and no node takes from this queue."
            yield Trouble(Severity.BROKEN, sentence, "queue", queue=name)


def _schedules(snapshot: Snapshot) -> Iterator[Trouble]:
    late = snapshot.late
    if late.due_at is not None and late.name is not None:
        waits = (snapshot.taken_at - late.due_at).total_seconds()
        sentence = f"{verdicts.schedule_late(late.name, waits, late.number - 1)}."
        yield Trouble(Severity.WARNING, sentence, "schedules")


def _failures(snapshot: Snapshot) -> Iterator[Trouble]:
    hour = snapshot.hour
    # What is muted is no trouble.
    failed = max(hour.counts["failed"] - snapshot.muted, 0)
    succeeded = hour.counts["succeeded"]
    if verdicts.fail_too_often(failed, succeeded, ratio=FAILURE_RATIO, at_least=FAILURES_AT_LEAST):
        # Of the same jobs as the figures beside it, though those that were cancelled do not tell.
        ended = hour.finished - hour.counts["failed"] + failed
        sentence = f"{verdicts.failures_in(failed, ended, 'hour')}."
        yield Trouble(Severity.WARNING, sentence, "failures")
