"""All children of a node: who gets which job, how much more they can take, when they must stop."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterable, Mapping, Sequence

from clusters.policy import ClusterPolicy
from jobs.engine.child import Child
from jobs.engine.claim import Claimed
from jobs.engine.clock import countdown
from jobs.engine.estimates import IN_HAND_SECONDS, Estimates
from jobs.engine.held import Held, News
from jobs.engine.leftovers import MOST_PROCESSES
from jobs.engine.secret_values import SealedValues
from jobs.engine.template import ORPHANS_SECONDS, Template
from jobs.engine.usage import of_family, private_bytes
from jobs.executors import IO, KINDS, PROCESS
from jobs.executors.shell_processes import IS_SUPPORTED, Seen, scan
from jobs.states import Outcome

logger = logging.getLogger(__name__)

# A child never holds more jobs than this.
IN_HAND_JOBS = 500
# Payloads of all that a node takes with one claim.
CLAIM_BYTES = 32 << 20
# After a cancel request a handler that does not look at it is interrupted after this long.
NUDGE_SECONDS = 1.0
# A child that holds jobs and is in none of them for this long has stopped working.
IDLE_STUCK_SECONDS = 5.0
# How often a node looks what its children use; and how long a job may run before all that it started is
# looked at as well.
WATCH_SECONDS = 1.0
# The template tells of a child's end when all of it is dead; it has its own limit for that.
EXIT_SECONDS = ORPHANS_SECONDS + 5.0
# An io child ends its jobs by itself within the grace; this much later it is taken to be stuck.
IO_STUCK_SECONDS = 10.0


class Children:
    """All children of a node: a fixed number of process children, and one for io."""

    def __init__(self, template: Template, concurrency: int, io_slots: int) -> None:
        self._template = template
        self._wanted = {PROCESS: concurrency, IO: 1 if io_slots else 0}
        self._io_slots = io_slots
        # By pool: how many in a row died without having worked, and when the next may be born.
        self._born_dying: dict[str, int] = {}
        self._next_birth_at: dict[str, float] = {}
        self._next_watch_at = 0.0
        self.all: list[Child] = []
        self.estimates = Estimates()

    def spawn_missing(self, policy: ClusterPolicy) -> list[Child]:
        """Fork until every slot has its child; slower while children die without having worked."""
        born: list[Child] = []
        for pool, wanted in self._wanted.items():
            if countdown() < self._next_birth_at.get(pool, 0.0):
                continue
            for _ in range(wanted - sum(child.pool == pool for child in self.all)):
                forked = self._template.fork(pool, policy)
                born.append(Child(forked, pool, self.estimates))
        self.all += born
        return born

    def held(self) -> Iterable[Held]:
        return (held for child in self.all for held in child.held.values())

    def is_empty(self) -> bool:
        return not any(child.held for child in self.all)

    def count_held(self) -> dict[str, int]:
        """How many jobs each pool has in hand; asked by another thread, too."""
        held = dict.fromkeys(self._wanted, 0)
        for child in [*self.all]:
            held[child.pool] += len(child.held)
        return held

    def free(self) -> dict[str, int]:
        """How many more jobs each pool can take: what will begin within the next moments."""
        mix, now = self.estimates.mix, countdown()
        process = io = 0
        for child in self.all:
            if not child.takes_jobs:
                continue
            if child.pool == IO:
                io += max(self._io_slots - len(child.held), 0)
            elif not child.held:
                process += 1 if mix is None else _fitting(IN_HAND_SECONDS, mix)
            elif mix is not None and child.behind_seconds(now) <= IN_HAND_SECONDS:
                fitting = int((IN_HAND_SECONDS - child.load_seconds) / max(mix, 1e-6))
                process += min(max(fitting, 0), IN_HAND_JOBS - len(child.held))
        at_once = int(CLAIM_BYTES / max(self.estimates.payload_bytes or 0.0, 1.0))
        return {PROCESS: min(process, 2 * IN_HAND_JOBS, max(at_once, 1)), IO: io}

    def give(
        self,
        jobs: Sequence[Claimed],
        grace_seconds: float,
        secrets: Mapping[str, SealedValues] | None = None,
    ) -> None:
        """Spread jobs over the children, each to the one that will be free first.

        ``secrets`` are those that jobs name, by the ids of these.
        """
        self.estimates.learn_size(jobs)
        batches: dict[int, list[tuple[Claimed, float]]] = {}
        now = countdown()
        # A current job that is over its time has nothing left to expect: what it took so far counts.
        loads = {
            index: child.load_seconds + child.behind_seconds(now)
            for index, child in enumerate(self.all)
            if child.pool == PROCESS and child.takes_jobs
        }
        io_index = next((i for i, child in enumerate(self.all) if child.pool == IO), None)
        for job in jobs:
            expected = self.estimates.of(job)
            if KINDS[job.kind].pool == IO:
                index = io_index
            else:
                index = min(loads, key=loads.__getitem__)
                loads[index] += expected
            assert index is not None
            batches.setdefault(index, []).append((job, expected))
        for index, batch in batches.items():
            self.all[index].give(batch, grace_seconds, secrets or {})

    def watch(self, policy: ClusterPolicy, news: News) -> None:
        """Once a second: end jobs that take too much of the host, replace children that have grown."""
        now = countdown()
        if now < self._next_watch_at:
            return
        self._next_watch_at = now + WATCH_SECONDS
        processes: list[Seen] | None = None
        for child in self.all:
            if child.pool != PROCESS or child.is_dead:
                continue
            held, seconds = child.current()
            own = max(private_bytes(child.pid) - child.baseline_bytes, 0)
            if held is not None:
                child.relieve(news)
                used, count = own, 1
                if seconds > WATCH_SECONDS and IS_SUPPORTED:
                    processes = scan() if processes is None else processes
                    used, count = of_family(child.pid, child.baseline_bytes, processes)
                if used > 2 * policy.child_memory_bytes:
                    child.end_for(held, _too_much(used, 2 * policy.child_memory_bytes))
                    continue
                if count > MOST_PROCESSES:
                    child.end_for(held, f"had {count} processes, {MOST_PROCESSES} are allowed")
                    continue
            if own > policy.child_memory_bytes and not child.is_retiring:
                logger.info("child %d has grown to %d MiB; replacing it", child.pid, own >> 20)
                child.retire()

    def enforce(self, policy: ClusterPolicy) -> None:
        """Stop what is out of time, harden what was asked and did not stop, recall what waits."""
        now = countdown()
        for child in self.all:
            if child.is_dead:
                continue
            if not child.held:
                if child.is_retiring:
                    child.signal(signal.SIGKILL)
                continue
            for held, begun_at in child.running():
                if held.asked is None:
                    if complaint := held.overdue(begun_at, now):
                        held.complaint = complaint
                        child.ask(held, Outcome.TIMEOUT)
                else:
                    self._harden(child, held, now - held.asked_at, policy.cancel_grace_seconds)
            if child.pool == PROCESS:
                child.recall_overdue(now)
                if child.idle_seconds(now) > IDLE_STUCK_SECONDS:
                    logger.error("child %d holds jobs and begins none; ending it", child.pid)
                    child.signal(signal.SIGKILL)

    def _harden(self, child: Child, held: Held, waited: float, grace: float) -> None:
        if child.pool == IO:
            if waited > grace + IO_STUCK_SECONDS:
                logger.error("job %s did not stop; ending the io child", held.job.id)
                child.culprit = held.seq
                child.signal(signal.SIGKILL)
        elif waited >= grace:
            child.signal(signal.SIGKILL)
        elif waited >= min(NUDGE_SECONDS, grace / 2) and not held.is_nudged:
            held.is_nudged = True
            child.signal(signal.SIGTERM)

    def ask(self, ids: set[str], why: Outcome) -> None:
        """Ask these jobs to stop, wherever they are."""
        for child in self.all:
            for held in list(child.held.values()):
                if held.job.id in ids and held.asked is None:
                    child.ask(held, why)

    def ask_all(self, why: Outcome) -> None:
        self.ask({held.job.id for held in self.held()}, why)

    def find_dead(self, news: News) -> list[Child]:
        """Children that ended with all that they had started, by what the template says."""
        exits = self._template.exits()
        for child in self.all:
            if child.pid in exits:
                child.read(news)  # what it said last is still in the pipe
                child.is_dead = child.is_gone = True
                child.status = exits[child.pid]
            elif child.is_dead and not child.is_gone:
                # It closed its pipe, which is as good as dead; but it may still run.
                child.signal(signal.SIGKILL)
                if countdown() - child.died_at > EXIT_SECONDS:
                    logger.error("child %d does not end", child.pid)
                    child.is_gone = True
        return [child for child in self.all if child.is_gone]

    def bury(self, dead: Iterable[Child], news: News) -> None:
        """Account for what dead children held; they are gone from ``all`` afterwards."""
        for child in dead:
            worked = child.has_worked or bool(child.held) or countdown() - child.born_at > 1.0
            dying = 0 if worked else self._born_dying.get(child.pool, 0) + 1
            self._born_dying[child.pool] = dying
            if dying:
                self._next_birth_at[child.pool] = countdown() + min(0.5 * 2**dying, 15.0)
            child.bury(news)
            self.all.remove(child)

    def kill_all(self) -> None:
        """End every child at once; nothing they hold is accounted for."""
        for child in self.all:
            child.signal(signal.SIGKILL)
        for child in self.all:
            child.end()
            child.close()
        self.all.clear()


def _too_much(used: int, allowed: int) -> str:
    return f"used {used >> 20} MiB of memory, {allowed >> 20} are allowed"


def _fitting(seconds: float, each: float) -> int:
    return max(1, min(IN_HAND_JOBS, int(seconds / max(each, 1e-6))))
