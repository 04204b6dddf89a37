"""What alerts look at: roll-ups, nodes and schedules, each read once a round, and never the jobs.

Only what every rule of a kind has in common is read for all of them; a rule that names a queue or a type
reads a few rows of roll-ups of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import connections
from django.db.models import Q

from clusters.models import ALIVE, Node, NodeStatus
from clusters.policy import ClusterPolicy
from jobs import depths, failure_figures, metrics, verdicts
from jobs.engine.clock import database_now
from jobs.models import AlertKind, AlertRule, Queue, Schedule
from jobs.models.rollup import Event
from jobs.verdicts import Verdict
from jobs.words import number, span

# Nodes and schedules that are looked at; of more, these are told.
MOST_LOOKED_AT = 100


@dataclass
class Sight:
    """A cluster as one round of its alerts sees it."""

    using: str
    policy: ClusterPolicy
    now: datetime = field(init=False)

    def __post_init__(self) -> None:
        self.now = database_now(connections[self.using])
        self._waits: dict[str, float] | None = None

    def verdict(self, rule: AlertRule) -> Verdict:
        """How what the rule watches stands at this moment."""
        found = _JUDGES[rule.kind](self, rule)
        return found._replace(sentence=found.sentence[:500], page=found.page[:500])

    # -- Failures -----------------------------------------------------------------------------------

    def _failure_rate(self, rule: AlertRule) -> Verdict:
        start = self._start(rule.window_seconds or 0)
        counts = self._counts(rule, start)
        of = {"queue": rule.queue, "type": rule.type}
        muted = failure_figures.muted_failures(self.using, start, **of)
        failed = max(counts[Event.FAILED] - muted, 0)
        ended = failed + counts[Event.SUCCEEDED]
        is_wrong = verdicts.fail_too_often(
            failed, ended - failed, ratio=rule.ratio or 0.0, at_least=rule.at_least or 1
        )
        length = span(rule.window_seconds)
        told = verdicts.failures_in(failed, ended, length)
        limit = f"limit {(rule.ratio or 0.0) * 100:g} % and {number(rule.at_least)}"
        sentence = f"{_named(rule)}{told}, {limit}."
        return Verdict(is_wrong, sentence, self._page_of_failures(start, of) if is_wrong else "")

    def _page_of_failures(self, start: datetime, of: Mapping[str, str | None]) -> str:
        """The group that most of them are of, or all that match."""
        found = failure_figures.commonest_failure(self.using, start, **of)
        if found is not None and found.seen * 2 >= found.of_all:
            return f"failures/{found.fingerprint}/"
        return verdicts.page("failures/", **of)

    def _heartbeat(self, rule: AlertRule) -> Verdict:
        if rule.schedule_id is not None:
            return self._heartbeat_of_schedule(rule)
        limit = rule.limit_seconds or 0.0
        successes = self._counts(rule, self._start(limit))[Event.SUCCEEDED]
        page = verdicts.page("jobs/", type=rule.type, queue=rule.queue)
        if successes:
            return Verdict(
                False, f"{_named(rule)}{number(successes)} successes in {span(limit)}.", page
            )
        return Verdict(True, f"{_named(rule)}no success in the last {span(limit)}.", page)

    def _heartbeat_of_schedule(self, rule: AlertRule) -> Verdict:
        assert rule.schedule_id is not None
        schedule = Schedule.objects.using(self.using).filter(pk=rule.schedule_id).first()
        limit = rule.limit_seconds or 0.0
        if schedule is None or schedule.deleted_at is not None:
            return Verdict(
                True, "The schedule that is watched is not there any more.", "schedules/"
            )
        since = schedule.last_succeeded_at or schedule.created_at
        silent = (self.now - since).total_seconds()
        page = f"schedules/{schedule.pk}/"
        paused = f" It is paused by {schedule.paused_by}." if schedule.is_paused else ""
        ever = "last success" if schedule.last_succeeded_at else "no success since it was made,"
        sentence = f"{schedule.name}: {ever} {span(silent)} ago, limit {span(limit)}.{paused}"
        return Verdict(silent > limit, sentence, page)

    def _counts(self, rule: AlertRule, start: datetime) -> Mapping[str, int]:
        found = metrics.stats(
            self.using, self.policy, start, self.now, queue=rule.queue, type=rule.type
        )
        ((_, figures),) = found.groups
        return figures.counts

    # -- Queues, nodes, schedules -------------------------------------------------------------------

    def _oldest_ready(self, rule: AlertRule) -> Verdict:
        waits, limit = self._ages(), rule.limit_seconds or 0.0
        if rule.queue is not None:
            waits = {name: age for name, age in waits.items() if name == rule.queue}
        late = sorted(
            (-age, name) for name, age in waits.items() if verdicts.waits_too_long(age, limit)
        )
        if not late:
            longest = max(waits.values(), default=None)
            told = "no job waits" if longest is None else f"the oldest ready job {span(longest)}"
            return Verdict(False, f"{_named(rule)}{told}, limit {span(limit)}.")
        (negative, name), others = late[0], late[1:]
        more = f" And {number(len(others))} more queues." if others else ""
        sentence = verdicts.oldest_ready(name, -negative, limit) + more
        return Verdict(True, sentence, verdicts.page("jobs/", state="ready", queue=name))

    def _ages(self) -> dict[str, float]:
        """How long the oldest ready job of each queue waits that is not paused."""
        if self._waits is None:
            paused = {
                *Queue.objects.using(self.using)
                .filter(is_paused=True)
                .values_list("name", flat=True)
            }
            self._waits = {
                name: max((self.now - at).total_seconds(), 0.0)
                for name, at in depths.oldest_ready(self.using).items()
                if name not in paused
            }
        return self._waits

    def _dead_nodes(self, rule: AlertRule) -> Verdict:
        since, least = self._start(rule.window_seconds or 0), rule.at_least or 1
        silent = Q(status__in=ALIVE, lease_until__lt=self.now)
        dead = Q(status=NodeStatus.DEAD, closed_at__gte=since)
        rows = Node.objects.using(self.using).filter(silent | dead).order_by("-started_at")
        names = [str(node) for node in rows.only("host", "pid")[:MOST_LOOKED_AT]]
        if len(names) < least:
            told = f"{number(len(names))} nodes lost in the last {span(rule.window_seconds)}"
            return Verdict(False, f"{told}, limit {number(least)}.", "nodes/")
        return Verdict(True, verdicts.not_heard_of(names), "nodes/")

    def _late_schedules(self, rule: AlertRule) -> Verdict:
        limit = rule.limit_seconds or 0.0
        due = Schedule.objects.using(self.using).filter(next_run_at__lt=self._start(limit))
        soonest = due.order_by("next_run_at", "id").values_list("name", "next_run_at")
        rows = [*soonest[:MOST_LOOKED_AT]]
        if not rows:
            return Verdict(False, f"No schedule is late, limit {span(limit)}.", "schedules/")
        (name, at), *others = rows
        assert at is not None  # it is before something
        late = verdicts.schedule_late(name, (self.now - at).total_seconds(), len(others))
        return Verdict(
            True, f"{late}, limit {span(limit)}.", verdicts.page("schedules/", name=name)
        )

    def _start(self, seconds: float) -> datetime:
        return self.now - timedelta(seconds=seconds)


def _named(rule: AlertRule) -> str:
    """What the sentence is about: a queue, a type, or all of the cluster."""
    names = [name for name in (rule.queue, rule.type) if name]
    return f"{', '.join(names)}: " if names else ""


_JUDGES: Mapping[str, Callable[[Sight, AlertRule], Verdict]] = {
    AlertKind.FAILURE_RATE: Sight._failure_rate,
    AlertKind.OLDEST_READY: Sight._oldest_ready,
    AlertKind.DEAD_NODES: Sight._dead_nodes,
    AlertKind.LATE_SCHEDULES: Sight._late_schedules,
    AlertKind.HEARTBEAT: Sight._heartbeat,
}
