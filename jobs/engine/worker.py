"""The node: the loop that ties claiming, running and completing together; upkeep has its own thread.

It holds leases and talks to the database; user code runs in its children only. Nothing here decides
about a job. A database error never ends the loop: it backs off, keeps what children report, and offers
it until the guard answers.
"""

from __future__ import annotations

import contextlib
import logging
import random
import select
import selectors
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connections
from uuid_utils.compat import uuid7

from clusters.binding import current_cluster
from clusters.models import ClusterSetting, Node, awaits_confirmation, current_policy
from clusters.policy import ClusterPolicy
from clusters.processes import forbid_inspection, name_process
from jobs.engine import limits, webhooks
from jobs.engine.child import Child
from jobs.engine.children import Children
from jobs.engine.claim import Appetite, Claimed
from jobs.engine.clock import countdown
from jobs.engine.complete import Completion, Success, decide, hand_back
from jobs.engine.conductor import Conductor
from jobs.engine.health import HealthServer, Vitals
from jobs.engine.heartbeat import Heartbeat
from jobs.engine.held import News
from jobs.engine.journal import Line, write_lines, write_progress
from jobs.engine.listening import Listener
from jobs.engine.secret_values import fetch
from jobs.engine.sweep import sweep_host
from jobs.engine.template import Template
from jobs.engine.trouble import Trouble
from jobs.engine.turn import disown, take_turn
from jobs.engine.upkeep import Upkeep, duties
from jobs.engine.watchdog import Watchdog
from jobs.executors import CONDUCTED, CONDUCTOR, IO, KINDS
from jobs.executors.host_label import wear
from jobs.hints import ANY_QUEUE, STEPS, tell_node
from jobs.models import Job
from jobs.models.queue import ALERT_QUEUE
from jobs.states import Outcome, State

logger = logging.getLogger(__name__)

# Polling is the truth; it starts quick after work was found and slows down while there is none.
POLL_FASTEST = 0.05
POLL_WITHIN_LIMITS = 0.1
# How often a node looks whether queues with limits have ready jobs; each such claim is a transaction.
LIMITS_SECONDS = 0.05
# How often a node whose slots are full looks for jobs that need none.
CONDUCTOR_SECONDS = 0.25
POLL_SLOWEST = {"postgresql": 2.0, "sqlite": 0.1}
# While work runs the loop looks at deadlines this often.
ENFORCE_SECONDS = 0.05
CANCEL_POLL_SECONDS = 1.0
JOURNAL_SECONDS = 0.5
JOURNAL_LINES = 1000
# More completions than this are not gathered: a turn is due.
BATCH_LIMIT = 1000
# At the end of a drain, the time between asking and killing.
CUT_GRACE_SECONDS = 1.5


@dataclass(slots=True)
class Duty:
    """Something the loop does again and again, out of step with other nodes."""

    every_seconds: float
    work: Callable[[], object]
    next_at: float = 0.0

    def is_due(self, now: float) -> bool:
        return now >= self.next_at

    def run(self) -> None:
        self.next_at = countdown() + self.every_seconds * random.uniform(0.8, 1.2)  # noqa: S311
        self.work()


class Worker:
    """One node of the bound cluster, from its start to its end."""

    def __init__(
        self,
        cluster_id: str,
        *,
        queues: list[str] | None,
        kinds: list[str],
        concurrency: int,
        io_slots: int,
        health: tuple[str, int] | Path | None = None,
        is_restored: bool = False,
    ) -> None:
        self.cluster_id = cluster_id
        self.alias = current_cluster().alias
        needs_io = any(KINDS[kind].pool == IO for kind in kinds)
        # Webhooks, and so alerts, are told by every node that calls others anyway.
        told = [webhooks.KIND] if needs_io else []
        self.queues = queues and [*dict.fromkeys([*queues, *([ALERT_QUEUE] if needs_io else [])])]
        self.kinds = [*dict.fromkeys([*kinds, *told, *CONDUCTED])]
        self.concurrency = concurrency
        self.io_slots = io_slots if needs_io else 0
        self.node_id = ""
        self._must_mark = is_restored
        self._health_at = health
        self._health: HealthServer | None = None
        self._pending: list[Success | Completion] = []
        self._lines: list[Line] = []
        self._progress: dict[tuple[str, int], tuple[float, str]] = {}
        self._hinted = True
        self._poll_seconds = POLL_FASTEST
        self._next_poll_at = 0.0
        self._limits_are_due = self._limits_wait = False
        self._next_look_for_conductor = 0.0
        self._next_look_at_limits = 0.0
        self._trouble = Trouble(f"the database of {cluster_id}")
        self._readable: list[Child] = []
        self._drain_started_at: float | None = None
        self._is_cut_short = False
        self._signals = 0

    # -- Life ------------------------------------------------------------------------------------

    def run(self) -> int:
        """Work until told to stop; returns the exit status."""
        forbid_inspection()
        database = connections[self.alias].settings_dict
        where = (database.get(part) for part in ("HOST", "PORT", "NAME"))
        label = wear(" ".join(map(str, (self.cluster_id, *where))))
        name_process(label)
        sweep_host(label)
        # First of all: the template must be forked before there is a thread or a connection.
        self._template = Template()
        self._selector = selectors.DefaultSelector()
        self._wake_reader, self._wake_writer = socket.socketpair()
        self._wake_reader.setblocking(False)
        self._wake_writer.setblocking(False)
        self._selector.register(self._wake_reader, selectors.EVENT_READ, "wake")
        self._selector.register(self._template.sock, selectors.EVENT_READ, "template")
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop_requested)
        self._listener = Listener(self.alias, self._selector, "database", self._hint)
        self._children = Children(self._template, self.concurrency, self.io_slots)
        self.policy = ClusterPolicy()
        self._watchdog = Watchdog(f"cluster {self.cluster_id}")
        self._pulse = self._watchdog.watch("turns")
        self._vitals = Vitals(self.cluster_id, self._watchdog, self._trouble)
        try:
            self._watchdog.start()
            if self._health_at is not None:
                self._health = HealthServer(self._health_at, self._vitals)
                self._health.start()
            self._register()
            self._plan_duties()
            while not self._is_finished():
                self._pulse.beat()
                self._wait()
                self._look_at_children()
                self._drain_if_told()
                if self._heartbeat.lease_is_in_doubt():
                    self._start_over()
                self._at_database()
        finally:
            self._close()
        return 0

    def _stop_requested(self, number: int, frame: object) -> None:
        self._signals += 1

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full of wake-ups that nobody has read yet
            self._wake_writer.send(b"\0")

    def _look_at_once(self) -> None:
        """Jobs became ready; said by another thread."""
        self._hinted = True
        self._wake()

    def _hint_at_once(self, queue: str) -> None:
        """This process has committed something, in any of its threads."""
        self._hint(queue)
        if self._hinted:
            self._wake()

    def _register(self) -> None:
        """Become a node: a new random id and a lease, however long the database takes to answer."""
        self.node_id = str(uuid7())
        while True:
            try:
                cluster, by = current_cluster(), f"node:{socket.gethostname()}"
                if self._must_mark:
                    ClusterSetting.objects.all().mark_restored(by=by)
                    # Once: who confirms does so for this node's later lives too.
                    self._must_mark = False
                ClusterSetting.objects.all().persist(cluster.explicit_settings, by=by)
                self._refresh_policy()
                Node.objects.all().register(
                    self.node_id,
                    self.policy.lease_seconds,
                    version=settings.VERSION,
                    queues=self.queues,
                    kinds=self.kinds,
                    types=self._template.types,
                    concurrency=self.concurrency,
                    io_concurrency=self.io_slots,
                )
                break
            except (DatabaseError, InterfaceError) as error:
                self._in_trouble(error)
                while self._trouble.must_wait and self._signals == 0:
                    self._pulse.beat()
                    # Signals alone matter now; all else that is readable would keep this awake.
                    wait = max(self._trouble.retry_at - countdown(), 0)
                    select.select([self._wake_reader], [], [], wait)
                    with contextlib.suppress(BlockingIOError):
                        self._wake_reader.recv(4096)
                if self._signals:
                    raise SystemExit(1) from error
        self._out_of_trouble()
        self._heartbeat = Heartbeat(
            self.cluster_id,
            self.node_id,
            self.policy,
            self._children.count_held,
            self._wake,
            self._watchdog,
            lambda: self._drain_started_at is not None,
        )
        self._heartbeat.start()
        tasks = duties(self._template.declarations, self._heartbeat.latencies)
        self._upkeep = Upkeep(
            self.cluster_id, self.node_id, self._watchdog, self._look_at_once, tasks
        )
        self._upkeep.start()
        self._conductor = Conductor(self.cluster_id, self.node_id, self._watchdog)
        tell_node(self.alias, self._hint_at_once)
        self._conductor.start()
        self._vitals.now_of(self.node_id, self._heartbeat, self._upkeep)
        self._spawn_missing()
        logger.info(
            "node %s is up: cluster %s, %d process slots, %d io slots, %d types",
            self.node_id,
            self.cluster_id,
            self.concurrency,
            self.io_slots,
            len(self._template.types),
        )

    def _plan_duties(self) -> None:
        self._duties = [
            Duty(CANCEL_POLL_SECONDS, self._pass_on_cancel_requests),
            Duty(JOURNAL_SECONDS, self._write_journal),
            Duty(5.0, self._refresh_policy),
        ]

    def _start_over(self) -> None:
        """Self-fence: stop all work before others may start it, and come back as a new node."""
        logger.error("node %s lost its lease; stopping its work", self.node_id)
        # The work first: what is left of the lease is for that.
        self._children.kill_all()
        self._vitals.now_of(None, None, None)
        self._heartbeat.stop()
        self._upkeep.stop()
        self._conductor.stop()
        self._lines.clear()
        self._progress.clear()
        for key in list(self._selector.get_map().values()):
            if not isinstance(key.data, str):
                self._selector.unregister(key.fileobj)
        self._register()

    def _close(self) -> None:
        tell_node(self.alias, None)
        if hasattr(self, "_heartbeat"):
            self._conductor.stop()
            self._heartbeat.stop()
            self._upkeep.stop()
        self._children.kill_all()
        self._template.close()
        if self.node_id and not self._trouble.is_on:
            try:
                Node.objects.filter(pk=self.node_id).close()
            except (DatabaseError, InterfaceError):
                logger.warning("the node could not be closed; its lease will run out")
        connections[self.alias].close()
        self._watchdog.stop()
        if self._health is not None:
            self._health.stop()
        # Once more is too late: the interpreter, on its way out, would let the signal end us.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        logger.info("node %s has ended", self.node_id)

    # -- Waiting ---------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Sleep until a child, a hint, a signal or a due time; take in what came."""
        self._watch_database()
        ready = self._selector.select(self._sleep_seconds())
        self._readable.clear()
        for key, events in ready:
            if key.data == "wake":
                self._wake_reader.recv(4096)
            elif key.data == "database":
                self._take_hints()
            elif key.data != "template":
                if events & selectors.EVENT_WRITE:
                    key.data.channel.flush()
                    self._watch_child(key.data)
                if events & selectors.EVENT_READ:
                    self._readable.append(key.data)

    def _sleep_seconds(self) -> float:
        now = countdown()
        if self._trouble.is_on:
            until = self._trouble.retry_at
        else:
            until = min(duty.next_at for duty in self._duties)
            if self._pending or self._lines or self._progress:
                until = min(until, now + ENFORCE_SECONDS)
            if not self._is_draining and self._has_room():
                is_time = self._hinted or self._limits_are_due
                until = now if is_time else min(until, self._next_poll_at)
        if not self._children.is_empty():
            until = min(until, now + ENFORCE_SECONDS)
        return max(until - now, 0.0)

    def _watch_database(self) -> None:
        """Listen for hints on the connection in use; a new connection listens anew."""
        try:
            if self._listener.follow():
                self._hinted = True
        except Exception as error:
            self._in_trouble(error)

    def _hint(self, queue: str) -> None:
        if queue == STEPS:
            self._conductor.look()
        elif self.queues is None or queue in (ANY_QUEUE, *self.queues):
            self._hinted = True

    def _take_hints(self) -> None:
        try:
            self._listener.take()
        except Exception as error:
            self._in_trouble(error)

    # -- Children --------------------------------------------------------------------------------

    def _spawn_missing(self) -> None:
        for child in self._children.spawn_missing(self.policy):
            self._selector.register(child.channel, selectors.EVENT_READ, child)

    def _watch_child(self, child: Child) -> None:
        channel = child.channel
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.has_backlog else 0)
        self._selector.modify(channel, events, child)

    def _look_at_children(self) -> None:
        news = News(self.node_id)
        for child in self._readable:
            child.read(news)
        dead = self._children.find_dead(news)
        for child in dead:
            logger.warning("child %d (%s) has ended; starting another", child.pid, child.pool)
            self._selector.unregister(child.channel)
        self._children.bury(dead, news)
        self._spawn_missing()
        self._children.watch(self.policy, news)
        self._take_in(news)
        self._children.enforce(self._enforced_policy())

    def _enforced_policy(self) -> ClusterPolicy:
        if not self._is_cut_short:
            return self.policy
        grace = min(self.policy.cancel_grace_seconds, CUT_GRACE_SECONDS)
        return replace(self.policy, cancel_grace_seconds=grace)

    def _take_in(self, news: News) -> None:
        self._pending += news.successes
        self._pending += [
            decide(held.job, self.node_id, report, self.policy) for held, report in news.reports
        ]
        self._pending += [hand_back(held.job, self.node_id) for held in news.returned]
        self._lines += [
            Line(held.job.id, held.job.fence, at, stream, level, text)
            for held, at, stream, level, text in news.logs
        ]
        self._progress.update(news.progress)

    # -- Draining --------------------------------------------------------------------------------

    @property
    def _is_draining(self) -> bool:
        return self._drain_started_at is not None or self._heartbeat.drain_is_ordered

    def _drain_if_told(self) -> None:
        if self._signals and self._drain_started_at is None:
            self._drain_started_at = countdown()
            self._vitals.is_draining = True
            logger.info("node %s is draining", self.node_id)
            self._say_draining()
            for child in self._children.all:
                child.recall()
        if self._drain_started_at is None or self._is_cut_short:
            return
        waited = countdown() - self._drain_started_at
        if self._signals > 1 or waited >= self.policy.drain_grace_seconds:
            self._is_cut_short = True
            self._children.ask_all(Outcome.RELEASED)

    def _say_draining(self) -> None:
        try:
            Node.objects.filter(pk=self.node_id).say_draining()
        except (DatabaseError, InterfaceError) as error:
            self._in_trouble(error)

    def _is_finished(self) -> bool:
        if self._drain_started_at is None or not self._children.is_empty():
            return False
        if not (self._pending or self._lines):
            return True
        # Results that the database does not take are worth waiting for, but not for ever.
        patience = self.policy.drain_grace_seconds + self.policy.lease_seconds
        return countdown() - self._drain_started_at > patience

    # -- The database ----------------------------------------------------------------------------

    def _at_database(self) -> None:
        """Everything that needs the database; after an error nothing more until it is time again."""
        now = countdown()
        if self._trouble.must_wait:
            return
        try:
            if self._trouble.is_on:
                self._come_back()
            self._turn_if_due(now)
            for duty in self._duties:
                if duty.is_due(now):
                    self._pulse.beat()
                    duty.run()
            if self._trouble.is_on:
                self._out_of_trouble()
        except Exception as error:
            # Whatever it is, the loop must live: the jobs in hand are its responsibility.
            self._in_trouble(error)

    def _wants_work(self, now: float) -> bool:
        is_time = self._hinted or self._limits_are_due or now >= self._next_poll_at
        return is_time and self._has_room()

    def _has_room(self) -> bool:
        if any(self._children.free().values()):
            return True
        # What the conductor takes needs no slot; but looking for it is not worth a claim each time.
        return self._conductor.room > 0 and countdown() >= self._next_look_for_conductor

    def _turn_if_due(self, now: float) -> None:
        wants_work = not self._is_draining and self._wants_work(now)
        if not self._pending and not wants_work:
            return
        appetite = self._appetite() if not self._is_draining else None
        if self._pending:
            # While the jobs still run: afterwards the guard would refuse their last words.
            self._write_journal()
        batch = self._pending[:BATCH_LIMIT]
        self._hinted = False
        turn = take_turn(connections[self.alias], batch, appetite, with_limits=self._limits_are_due)
        self._limits_are_due = False
        del self._pending[: len(batch)]
        for late in turn.superseded:
            logger.warning(
                "job %s: the report under fence %d came too late and changed nothing",
                late.id,
                late.fence,
            )
        if turn.has_released:
            self._conductor.look()
        if turn.claimed:
            self._give(turn.claimed)
            for child in self._children.all:
                if child.channel.has_backlog:
                    self._watch_child(child)
        if appetite is not None:
            self._next_look_for_conductor = countdown() + CONDUCTOR_SECONDS
            self._look_at_limits(now)
            # Of what the conductor could take there are seldom many.
            wanted = sum(appetite.free.values()) - appetite.free[CONDUCTOR]
            self._plan_next_poll(len(turn.claimed), wanted)

    def _give(self, claimed: list[Claimed]) -> None:
        conducted = [job for job in claimed if job.kind in CONDUCTED]
        if conducted:
            self._conductor.give(conducted)
            claimed = [job for job in claimed if job.kind not in CONDUCTED]
        if claimed:
            secrets = fetch(self.alias, claimed)
            self._children.give(claimed, self.policy.cancel_grace_seconds, secrets)

    def _look_at_limits(self, now: float) -> None:
        """Find out whether queues with limits wait for a claim; on SQLite every claim includes them."""
        connection = connections[self.alias]
        if connection.vendor != "postgresql" or now < self._next_look_at_limits:
            return
        self._next_look_at_limits = now + LIMITS_SECONDS
        with connection.cursor() as cursor:
            self._limits_are_due = limits.has_waiting(cursor, self.queues)
        self._limits_wait = self._limits_are_due

    def _appetite(self) -> Appetite:
        return Appetite(
            node=self.node_id,
            free={**self._children.free(), CONDUCTOR: self._conductor.room},
            pools={kind: KINDS[kind].pool for kind in self.kinds},
            types=self._template.types,
            queues=self.queues,
        )

    def _plan_next_poll(self, claimed: int, wanted: int) -> None:
        slowest = POLL_SLOWEST[connections[self.alias].vendor]
        if not settings.NOTIFY or settings.DB_POOLED:
            slowest = min(slowest, 0.25)
        if self._limits_wait:
            # Room in a queue with limits comes without a hint.
            slowest = min(slowest, POLL_WITHIN_LIMITS)
        if claimed:
            self._poll_seconds = POLL_FASTEST
            # There was more than one claim takes, so there is probably more now.
            self._hinted = self._hinted or claimed * 2 >= wanted
        else:
            self._poll_seconds = min(self._poll_seconds * 1.5, slowest)
        jitter = random.uniform(0.8, 1.2)  # noqa: S311
        self._next_poll_at = countdown() + self._poll_seconds * jitter

    def _write_journal(self) -> None:
        connection = connections[self.alias]
        while self._lines:
            part = self._lines[:JOURNAL_LINES]
            write_lines(connection, self.node_id, part)
            del self._lines[: len(part)]
        if self._progress:
            write_progress(connection, self.node_id, self._progress)
            self._progress.clear()

    def _pass_on_cancel_requests(self) -> None:
        if self._children.is_empty():
            return
        asked = Job.objects.filter(
            node_id=self.node_id, state=State.RUNNING, cancel_requested_at__isnull=False
        ).values_list("pk", flat=True)
        self._children.ask({str(pk) for pk in asked}, Outcome.CANCELLED)

    def _refresh_policy(self) -> None:
        self.policy = current_policy()
        is_waiting = awaits_confirmation()
        if is_waiting and not self._vitals.awaits_confirmation:
            logger.warning(
                "cluster %s was restored from a backup; no job starts until somebody confirms:"
                " manage.py restored show",
                self.cluster_id,
            )
        elif self._vitals.awaits_confirmation and not is_waiting:
            logger.info("cluster %s: somebody has confirmed; jobs start again", self.cluster_id)
            self._hinted = True
        self._vitals.awaits_confirmation = is_waiting

    # -- Trouble ---------------------------------------------------------------------------------

    def _in_trouble(self, error: BaseException) -> None:
        """Back off, on a new connection next time."""
        self._trouble.note(error)
        try:
            connections[self.alias].close()
        except Exception:
            connections[self.alias].connection = None
        self._listener.stop()

    def _come_back(self) -> None:
        """After trouble: hand back what was claimed by a statement whose answer never came."""
        held = {(h.job.id, h.job.fence) for h in self._children.held()}
        held |= {(row.id, row.fence) for row in self._pending}
        held |= self._conductor.held()
        if unknown := disown(connections[self.alias], self.node_id, held):
            logger.warning("%d jobs of an unanswered claim were handed back", unknown)
        self._hinted = True

    def _out_of_trouble(self) -> None:
        self._trouble.end()
        self._hinted = True
