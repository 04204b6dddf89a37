"""Upkeep: what a cluster needs beside running jobs, done by its nodes.

Each node has one thread for it, with a database connection of its own, so that a long prune never
stalls claims. A duty is a function ``duty(using, policy) -> int`` that does a bounded piece of work and
returns how much it did; more than 0 means that there may be more, and it goes on soon. Every duty is
safe to be done twice at once. Most are done by one node at a time, under a lease row that only saves
work; those whose delay people feel are done by every node.

A duty that fails is told of once, waits longer each time, and never stops the others.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from django.db import connections

from clusters.binding import cluster_bound
from clusters.models import awaits_confirmation, current_policy
from clusters.policy import ACTIVE, ClusterPolicy
from jobs.declarations import Declaration
from jobs.engine import (
    alerts,
    bulk,
    dependencies,
    fires,
    host_samples,
    idempotency,
    rollup,
    run_upkeep,
    schedules,
    sightings,
    step_sweep,
    webhooks,
    workflows,
)
from jobs.engine.clock import countdown
from jobs.engine.declared import LOOK_SECONDS, SAY_SECONDS, Declared, Retirement
from jobs.engine.host_samples import Latencies
from jobs.engine.prune import Pruner
from jobs.engine.rescue import rescue_lost
from jobs.engine.ticks import expire_due, fail_overdue, promote_due, restore_queues, resume_due
from jobs.engine.trouble import Trouble, is_outage
from jobs.engine.watchdog import Watchdog
from jobs.models import UpkeepDuty

logger = logging.getLogger(__name__)

# After this long without a word from its holder, a duty is anybody's.
LEASE_SECONDS = 15.0
# Between two rounds of a duty that has more to do.
PAUSE_SECONDS = 0.05
LONGEST_BACK_OFF_SECONDS = 60.0
MAX_ERROR = 500


@dataclass(frozen=True, slots=True)
class Duty:
    """Something to be done again and again."""

    name: str
    work: Callable[[str, ClusterPolicy], int]
    every_seconds: float
    # Where the cluster's lease is short, more often: so many times a lease.
    times_a_lease: float | None = None
    # Done by every node, without a lease: its delay must not depend on one of them.
    is_everywhere: bool = False
    # What it did may have made jobs ready: its own node looks at once.
    makes_ready: bool = False
    # Not done while a restored cluster waits: a person decides about what it would change.
    waits_for_person: bool = False
    # Not done in a cluster that is passive or archived: it begins new work.
    only_active: bool = False

    def period(self, policy: ClusterPolicy) -> float:
        if self.times_a_lease is None:
            return self.every_seconds
        return min(self.every_seconds, policy.lease_seconds / self.times_a_lease)


def duties(
    declarations: Sequence[Declaration] = (), latencies: Latencies | None = None
) -> tuple[Duty, ...]:
    """All there is to do, for one node, whose handlers come with these declarations and whose heartbeat
    measures these latencies."""
    return (
        # Each node knows only its own; first of all it makes what is missing.
        Duty("declare_schedules", Declared(declarations), SAY_SECONDS, is_everywhere=True),
        Duty("retire_schedules", Retirement(), LOOK_SECONDS, waits_for_person=True),
        Duty("promote_due", promote_due, 0.5, is_everywhere=True, makes_ready=True),
        Duty(
            "rescue_lost",
            rescue_lost,
            5.0,
            times_a_lease=6,
            is_everywhere=True,
            makes_ready=True,
            waits_for_person=True,
        ),
        # People feel a late schedule, and each node can do it.
        Duty(
            "fire_due",
            fires.fire_due,
            0.5,
            is_everywhere=True,
            makes_ready=True,
            waits_for_person=True,
            only_active=True,
        ),
        Duty("resume_schedules", schedules.resume_due, 1.0),
        Duty("mend_runs", run_upkeep.mend_runs, 5.0, makes_ready=True),
        Duty("hold_excluded", run_upkeep.hold_excluded, 1.0),
        Duty("renew_zones", schedules.renew_zones, 300.0),
        Duty("forget_fires", run_upkeep.forget_fires, 300.0),
        Duty("forget_workflow_runs", workflows.forget_runs, 300.0),
        Duty("expire_due", expire_due, 1.0),
        Duty("fail_overdue", fail_overdue, 1.0),
        Duty("resume_due", resume_due, 1.0, makes_ready=True),
        Duty("restore_queues", restore_queues, 15.0, makes_ready=True),
        Duty("stop_late_steps", step_sweep.stop_late, 1.0),
        Duty("tell_webhooks", webhooks.tell_open, 1.0, makes_ready=True),
        Duty("sweep_steps", step_sweep.sweep_steps, 60.0),
        Duty("sweep_dependencies", dependencies.sweep, 60.0, makes_ready=True),
        Duty("bulk_operations", bulk.advance, 1.0, makes_ready=True),
        Duty("fold_tallies", rollup.fold_tallies, 2.0),
        Duty("fold_sightings", sightings.fold_sightings, 2.0),
        Duty("watch_alerts", alerts.watch, alerts.EVERY_SECONDS, makes_ready=True),
        Duty("forget_alerts", alerts.forget, 300.0),
        Duty("compact_rollups", rollup.compact, 300.0),
        Duty("prune", Pruner(), 60.0, waits_for_person=True),
        Duty("forget_replies", idempotency.prune, 60.0),
        # Of its own host each node knows.
        Duty(
            "sample_host",
            host_samples.HostSampler(latencies or host_samples.Latencies()),
            host_samples.EVERY_SECONDS,
            is_everywhere=True,
        ),
        Duty("forget_samples", host_samples.forget, 300.0),
    )


@dataclass(slots=True)
class Task:
    """A duty as one node sees it. Times are of ``clock.countdown``."""

    duty: Duty
    trouble: Trouble
    next_at: float
    # The lease is ours until then; 0: it is not.
    held_until: float = 0.0
    told_at: float = 0.0
    # Done since it was last told.
    count: int = 0
    error: str | None = field(default=None)


class Upkeep(threading.Thread):
    """Does a node's share of the upkeep until ``stop``; calls ``wake`` when jobs became ready."""

    def __init__(
        self,
        cluster_id: str,
        node_id: str,
        watchdog: Watchdog,
        wake: Callable[[], None],
        tasks: Sequence[Duty] = (),
    ) -> None:
        super().__init__(name="upkeep", daemon=True)
        self._cluster_id = cluster_id
        self._node_id = node_id
        self._watchdog = watchdog
        self._pulse = watchdog.watch("upkeep")
        self._wake = wake
        self._stopping = threading.Event()
        self._trouble = Trouble(f"the upkeep of {cluster_id}")
        # The task that met the trouble, and must get past it.
        self._troubled: Task | None = None
        self._has_rows = False
        now = countdown()
        self._tasks = [
            Task(
                duty,
                Trouble(f"duty {duty.name} of {cluster_id}", longest=LONGEST_BACK_OFF_SECONDS),
                # Nodes that start together must not come together.
                next_at=now + random.uniform(0.0, min(duty.every_seconds, 1.0)),  # noqa: S311
            )
            for duty in tasks or duties()
        ]

    def conditions(self) -> dict[str, str]:
        """What goes wrong now, by duty."""
        return {
            task.duty.name: task.trouble.condition
            for task in self._tasks
            if task.trouble.condition is not None
        }

    def stop(self, wait_seconds: float = 1.0) -> None:
        self._stopping.set()
        if self.is_alive():
            self.join(wait_seconds)

    def run(self) -> None:
        with cluster_bound(self._cluster_id) as cluster:
            self._alias = cluster.alias
            while not self._stopping.wait(self._pause()):
                self._pulse.beat()
                for task in sorted(self._tasks, key=lambda task: task.next_at):
                    if task.next_at > countdown() or self._stopping.is_set():
                        continue
                    if self._trouble.must_wait:
                        break
                    self._attend(task)
                    self._pulse.beat()
            with contextlib.suppress(Exception):
                self._leave()
            connections[self._alias].close()
        self._watchdog.forget(self._pulse)

    def _pause(self) -> float:
        until = min(task.next_at for task in self._tasks)
        if self._trouble.is_on:
            until = max(until, self._trouble.retry_at)
        return min(max(until - countdown(), 0.0), 5.0)

    def _attend(self, task: Task) -> None:
        """One round of a duty, whatever comes of it."""
        try:
            is_done = self._do(task)
        except Exception as error:
            self._failed(task, error)
            return
        if is_done:
            task.trouble.end()
        if self._troubled in (None, task):
            self._troubled = None
            self._trouble.end()

    def _do(self, task: Task) -> bool:
        """Work at the duty if it is this node's to do."""
        policy = current_policy()
        period = _jittered(task.duty.period(policy))
        if (task.duty.waits_for_person and awaits_confirmation()) or (
            task.duty.only_active and policy.mode != ACTIVE
        ):
            task.next_at = countdown() + period
            return False
        if not task.duty.is_everywhere and not self._holds(task):
            # Somebody else does it; it may be ours when that one has gone.
            task.next_at = countdown() + max(period, _jittered(LEASE_SECONDS / 3))
            return False
        done = int(task.duty.work(self._alias, policy))
        if done and task.duty.makes_ready:
            self._wake()
        task.count += done
        task.error = None
        task.next_at = countdown() + (_jittered(PAUSE_SECONDS) if done else period)
        if not task.duty.is_everywhere:
            self._tell(task, None if done else period)
        return True

    def _holds(self, task: Task) -> bool:
        """Whether the duty is this node's now; takes it if it can be had."""
        asked_at = countdown()
        if asked_at < task.held_until:
            return True
        rows = UpkeepDuty.objects.using(self._alias)
        if not self._has_rows:
            rows.all().ensure(t.duty.name for t in self._tasks if not t.duty.is_everywhere)
            self._has_rows = True
        mine = rows.filter(name=task.duty.name)
        # The look keeps the many that come for nothing from taking SQLite's write lock.
        if not mine.open_to(self._node_id).exists() or not mine.take(self._node_id, LEASE_SECONDS):
            task.held_until = 0.0
            self._see_who_does(task)
            return False
        task.held_until = asked_at + LEASE_SECONDS
        task.told_at = asked_at
        task.count = 0
        return True

    def _see_who_does(self, task: Task) -> None:
        holders = UpkeepDuty.objects.using(self._alias).filter(name=task.duty.name)
        holder = holders.values_list("node_id", flat=True).first()
        if holder is not None:
            # Whatever ailed it is for that node to tell.
            task.trouble.forget()
        self._has_rows = holder is not None or holders.exists()

    def _tell(self, task: Task, idle_for: float | None) -> None:
        """Write down how it went: at the end of a rare duty, now and then of one that goes on."""
        now = countdown()
        mine = UpkeepDuty.objects.using(self._alias).filter(name=task.duty.name)
        if idle_for is not None and idle_for >= LEASE_SECONDS:
            mine.give_back(self._node_id, idle_for, count=task.count, error=task.error)
            task.held_until = 0.0
        elif now - task.told_at >= LEASE_SECONDS / 2 or now >= task.held_until:
            kept = mine.keep(self._node_id, LEASE_SECONDS, count=task.count, error=task.error)
            task.held_until = now + LEASE_SECONDS if kept else 0.0
            task.told_at = now
            task.count = 0

    def _failed(self, task: Task, error: Exception) -> None:
        connection = connections[self._alias]
        if is_outage(error):
            # Of all duties, not of this one.
            self._trouble.note(error)
            self._troubled = task
            task.next_at = self._trouble.retry_at
            task.held_until = 0.0
            with contextlib.suppress(Exception):
                connection.close()
            return
        task.trouble.note(error)
        task.next_at = task.trouble.retry_at
        task.error = f"{type(error).__name__}: {error}"[:MAX_ERROR]
        try:
            connection.close_if_unusable_or_obsolete()
            if task.held_until:
                # Another node may fare better; this one comes when it is due by any clock.
                wait = max(task.next_at - countdown(), 0.0) * 0.8
                mine = UpkeepDuty.objects.using(self._alias).filter(name=task.duty.name)
                mine.give_back(self._node_id, wait, count=task.count, error=task.error)
                task.held_until = 0.0
        except Exception:
            logger.debug("the failure of a duty could not be written down", exc_info=True)

    def _leave(self) -> None:
        if any(task.held_until for task in self._tasks):
            UpkeepDuty.objects.using(self._alias).all().drop(self._node_id)


def _jittered(seconds: float) -> float:
    return seconds * random.uniform(0.8, 1.2)  # noqa: S311
