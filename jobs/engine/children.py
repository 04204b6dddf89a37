"""The node's side of its children: who holds what, how much more they can take, when they must stop."""

from __future__ import annotations

import base64
import json
import logging
import os
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from clusters.policy import ClusterPolicy
from jobs.engine.capture import Pipes
from jobs.engine.claim import Claimed
from jobs.engine.clock import countdown
from jobs.engine.complete import Report, Success
from jobs.engine.frames import MOST_RETRY_AFTER_SECONDS, BrokenPeer, Channel, encode, pack
from jobs.engine.leftovers import MOST_PROCESSES
from jobs.engine.marks import BEGUN, NOTHING, REPORTED, SUCCEEDED
from jobs.engine.output import BoundedOutput, clean
from jobs.engine.template import ORPHANS_SECONDS, Forked, Template
from jobs.engine.usage import of_family, private_bytes
from jobs.executors import IO, KINDS, PROCESS
from jobs.executors.shell_processes import IS_SUPPORTED, Seen, end_marked, scan
from jobs.states import Outcome

logger = logging.getLogger(__name__)

# A child is never given more than this much expected work, nor this many jobs.
IN_HAND_SECONDS = 0.2
IN_HAND_JOBS = 500
# Payloads: of one frame, and of all that a node takes with one claim.
FRAME_BYTES = 4 << 20
CLAIM_BYTES = 32 << 20
# What a child has not begun after this long goes back to the others.
RECALL_SECONDS = 1.0
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

_quoted = lru_cache(4096)(json.dumps)

_OUTCOMES = {
    "ok": Outcome.SUCCEEDED,
    "error": Outcome.FAILED,
    "cancelled": Outcome.CANCELLED,
    "crashed": Outcome.LOST,
}


@dataclass(slots=True)
class Held:
    """A job in a child's hands. Times are of ``clock.countdown``."""

    job: Claimed
    seq: int
    expected_seconds: float
    given_at: float
    # Why it was asked to stop, in words too where time ran out, and when.
    asked: Outcome | None = None
    complaint: str = ""
    asked_at: float = 0.0
    is_nudged: bool = False
    # When it last spoke of progress.
    progress_at: float = 0.0
    # Why its process was ended for its sake.
    verdict: str = ""
    # What its node, not its child, has read of its output.
    output: BoundedOutput | None = None
    lines: list[tuple[str, str | None, str]] = field(default_factory=list)

    def add_output(self, stream: str, text: str) -> None:
        """Take output that the node has read in the child's place."""
        if self.output is None:
            self.output = BoundedOutput(lambda *line: self.lines.append(line))
        self.output.write(stream, text)

    def close_output(self) -> None:
        if self.output is not None:
            self.output.close()

    def overdue(self, begun_at: float, now: float) -> str | None:
        """Which of its clocks has run out, in words; None while none has."""
        if now - begun_at >= self.job.timeout_seconds:
            return f"did not end within {self.job.timeout_seconds:g} s"
        patience = self.job.progress_timeout_seconds
        if patience is not None and now - max(begun_at, self.progress_at) >= patience:
            return f"made no progress for {patience:g} s"
        return None


@dataclass(slots=True)
class News:
    """What children have said to the node since the last look."""

    node: str
    successes: list[Success] = field(default_factory=list)
    reports: list[tuple[Held, Report]] = field(default_factory=list)
    returned: list[Held] = field(default_factory=list)
    logs: list[tuple[Held, float, str, str | None, str]] = field(default_factory=list)
    progress: dict[tuple[str, int], tuple[float, str]] = field(default_factory=dict)

    def take_lines(self, held: Held) -> None:
        """What the node itself has read of a job's output."""
        now = countdown()
        self.logs += [(held, now, *line) for line in held.lines]
        held.lines.clear()


class Estimates:
    """How long jobs of each type take, from recent runs; quick to grow, slow to shrink."""

    def __init__(self) -> None:
        self._by_type: dict[tuple[str, str], float] = {}
        # Over all types in the proportion in which they come.
        self.mix: float | None = None
        self.payload_bytes: float | None = None

    def learn_size(self, jobs: Sequence[Claimed]) -> None:
        """Remember how large payloads are, for the next claim not to take too much at once."""
        if jobs:
            total = sum([len(job.payload or "") + len(job.payload_bytes or b"") for job in jobs])
            mean = total / len(jobs)
            self.payload_bytes = _moved(self.payload_bytes, mean, mean, 1)

    def of(self, job: Claimed) -> float:
        """Expected seconds; a type that was never seen fills a child alone."""
        return self._by_type.get((job.kind, job.type), IN_HAND_SECONDS)

    def learn(self, kind: str, type_name: str, seconds: Sequence[float]) -> None:
        """Take in how long some jobs of one type took."""
        key = (kind, type_name)
        longest, mean = max(seconds), sum(seconds) / len(seconds)
        self._by_type[key] = _moved(self._by_type.get(key), longest, mean, len(seconds))
        if KINDS[kind].pool == PROCESS:
            self.mix = _moved(self.mix, longest, mean, len(seconds))
        if len(self._by_type) > 10_000:
            self._by_type.clear()


def _moved(old: float | None, longest: float, mean: float, count: int) -> float:
    """An estimate after some more values: half the way up to a longer one, a twentieth of it down."""
    if old is None:
        return longest
    if longest > old:
        return old + (longest - old) * 0.5
    return mean + (old - mean) * 0.95**count


class Child:
    """One forked process and the jobs it holds."""

    def __init__(self, forked: Forked, pool: str, estimates: Estimates) -> None:
        self.pid = forked.pid
        self.pool = pool
        self.estimates = estimates
        self.channel = Channel(forked.sock)
        self.marks = forked.marks
        self._pipes = Pipes(forked.outputs)
        # What it shares with the template, which is all that it has so far.
        self.baseline_bytes = private_bytes(forked.pid)
        self.held: dict[int, Held] = {}
        self.load_seconds = 0.0
        self.born_at = countdown()
        # Its pipe is closed, or the template says so; then all of it is dead, and how it ended is known.
        self.is_dead = self.is_gone = False
        self.died_at = 0.0
        self.status: int | None = None
        # It takes no more jobs, and is ended when it has none.
        self.is_retiring = False
        self.has_worked = False
        self._next_seq = 0
        self._recalled_at = 0.0
        self._busy_at = self.born_at
        self._had_output = False
        # Ended by its node for the sake of one job: the others it held are not to blame.
        self.culprit: int | None = None

    def give(self, jobs: Sequence[tuple[Claimed, float]], grace_seconds: float) -> None:
        """Send jobs with their expected seconds, in as few frames as their payloads allow."""
        now = countdown()
        if not self.held:
            self._busy_at = now
        frames: list[bytes] = []
        size = 0
        for job, expected in jobs:
            seq = self._next_seq
            self._next_seq += 1
            self.marks.forget(seq)
            self.held[seq] = Held(job, seq, expected, now)
            self.load_seconds += expected
            frame = _assignment_frame(job, seq, grace_seconds).encode()
            if frames and size + len(frame) > FRAME_BYTES:
                self.channel.send(pack(b'{"run":[' + b",".join(frames) + b"]}"))
                frames, size = [], 0
            frames.append(frame)
            size += len(frame)
        self.channel.send(pack(b'{"run":[' + b",".join(frames) + b"]}"))

    def drop(self, seq: int) -> Held | None:
        held = self.held.pop(seq, None)
        if held is not None:
            self.has_worked = True
            self.load_seconds = max(self.load_seconds - held.expected_seconds, 0.0)
            if not self.held:
                self.load_seconds = 0.0
        return held

    def running(self) -> list[tuple[Held, float]]:
        """The jobs that have begun, with the time at which they did."""
        if self.pool == IO:
            return [(held, held.given_at) for held in self.held.values()]
        seq, at = self.marks.current()
        held = self.held.get(seq)
        return [] if held is None else [(held, at)]

    def ask(self, held: Held, why: Outcome) -> None:
        """Ask a job to stop. One that has not begun is recalled instead."""
        held.asked, held.asked_at = why, countdown()
        self.channel.send(encode({"cancel": [held.seq]}))
        if self.pool == PROCESS and held.seq != self.marks.current()[0]:
            self.recall()

    def recall(self) -> None:
        self.channel.send(encode({"recall": True}))

    def recall_overdue(self, now: float) -> None:
        """Take back what waits behind a job that turned out to be long."""
        if len(self.held) < 2 or self.behind_seconds(now) <= RECALL_SECONDS:
            return
        if now - self._recalled_at > RECALL_SECONDS:
            self._recalled_at = now
            self.recall()

    def idle_seconds(self, now: float) -> float:
        """How long it has been in no job although it holds some."""
        if not self.held or self.marks.current()[0] != NOTHING:
            self._busy_at = now
        return now - self._busy_at

    def behind_seconds(self, now: float) -> float:
        """How long the current job has kept all others waiting."""
        seq, at = self.marks.current()
        return 0.0 if seq == NOTHING else now - at

    def signal(self, number: signal.Signals) -> None:
        try:
            if number == signal.SIGKILL:
                os.killpg(self.pid, number)
            else:
                os.kill(self.pid, number)
        except ProcessLookupError:
            pass

    @property
    def takes_jobs(self) -> bool:
        return not (self.is_dead or self.is_retiring)

    def retire(self) -> None:
        """Give it nothing more; what it has not begun goes to others."""
        self.is_retiring = True
        if self.held:
            self.recall()

    def end_for(self, held: Held, why: str) -> None:
        """End it for the sake of one job, which is charged."""
        logger.warning("job %s %s; ending child %d", held.job.id, why, self.pid)
        self.culprit, held.verdict = held.seq, why
        self.signal(signal.SIGKILL)

    def current(self) -> tuple[Held | None, float]:
        """The job it is in and for how long."""
        seq, at = self.marks.current()
        return self.held.get(seq), countdown() - at

    def relieve(self, news: News) -> None:
        """Read its output in its place when it has not done so since the last look.

        Something that holds the interpreter may be writing, and would wait for ever for a reader.
        """
        has_output = self._pipes.has_more()
        if has_output and self._had_output:
            self._read_output(news)
        self._had_output = has_output

    def _read_output(self, news: News) -> None:
        held = self.current()[0]
        for stream, text in self._pipes.read():
            if held is None:
                logger.warning("child %d: %s", self.pid, clean(text[-2000:]))
                continue
            held.add_output(stream, text)
        if held is not None:
            news.take_lines(held)

    def read(self, news: News) -> None:
        if self.is_dead:
            return
        try:
            messages, closed = self.channel.receive()
            self._take_in(messages, news)
        except Exception:  # it ran foreign code, so it may say anything
            logger.exception("child %d sent what cannot be understood; ending it", self.pid)
            self.signal(signal.SIGKILL)
            closed = True
        if closed:
            self.is_dead, self.died_at = True, countdown()

    def _take_in(self, messages: list[dict[str, Any]], news: News) -> None:
        for message in messages:
            for seq, at, stream, level, text in message.get("logs", ()):
                if (held := self.held.get(seq)) is not None:
                    _check_number(at, countdown() + 1.0)
                    _check_texts(stream, level, text)
                    news.logs.append((held, at, stream, level, text))
            for seq, (percent, note) in message.get("progress", {}).items():
                if (held := self.held.get(int(seq))) is not None:
                    _check_number(percent, 100.0)
                    _check_texts(note)
                    news.progress[held.job.id, held.job.fence] = (percent, note)
                    held.progress_at = countdown()
            if rows := message.get("results"):
                self._take_results(rows, news)
            for seq in message.get("recalled", ()):
                if (held := self.drop(seq)) is not None:
                    news.returned.append(held)

    def _take_results(self, rows: list[list[Any]], news: News) -> None:
        node, successes = news.node, news.successes
        durations: dict[tuple[str, str], list[float]] = {}
        latest = countdown() + 1.0
        for row in rows:
            held = self.held.get(row[0])
            if held is None:
                continue
            started_at, finished_at = row[2] * 1e-6, row[3] * 1e-6
            if not 0.0 <= started_at <= finished_at <= latest:
                raise BrokenPeer("an attempt that ended before it began, or has yet to end")
            job = held.job
            if held.output is not None:
                held.close_output()
                news.take_lines(held)
            if row[1] == "ok":
                result = row[4] if len(row) > 4 else None
                _check_texts(result)
                successes.append(Success(job.id, job.fence, node, started_at, finished_at, result))
            else:
                news.reports.append((held, _report(held, row, started_at, finished_at)))
            self.drop(row[0])
            self.has_worked = True
            if row[1] != "cancelled":
                seconds = durations.setdefault((job.kind, job.type), [])
                seconds.append(finished_at - started_at)
        for (kind, type_name), times in durations.items():
            self.estimates.learn(kind, type_name, times)

    def end(self) -> None:
        """Kill it with all that its jobs have started; their programs have sessions of their own."""
        self.signal(signal.SIGKILL)
        programs = [held.job for held in self.held.values() if held.job.kind == "shell"]
        if programs:
            end_marked([{"JOB_ID": job.id, "JOB_FENCE": str(job.fence)} for job in programs])

    def bury(self, news: News) -> None:
        """Account for what a dead child held: ended, in its hands, or never begun."""
        self.end()
        now = countdown()
        self._read_output(news)
        current, begun_at = self.marks.current()
        for seq in list(self.held):
            held = self.drop(seq)
            assert held is not None
            cell = self.marks.cell(seq)
            if cell == SUCCEEDED:
                job = held.job
                news.successes.append(
                    Success(job.id, job.fence, news.node, held.given_at, now, None)
                )
            elif cell in (BEGUN, REPORTED):
                is_charged = self.culprit in (None, seq)
                # Its word for it, as far as that can be: it ran foreign code.
                is_known = seq == current and held.given_at <= begun_at <= now
                started_at = begun_at if is_known else held.given_at
                report = _last_report(held, started_at, now, is_charged, self._how_it_ended())
                held.close_output()
                news.take_lines(held)
                news.reports.append((held, report))
            else:
                news.returned.append(held)
        self.close()

    def _how_it_ended(self) -> str:
        if self.status is None:
            return "its process died"
        if os.WIFSIGNALED(self.status):
            return f"its process died of {_signal_name(os.WTERMSIG(self.status))}"
        return f"its process ended with exit code {os.waitstatus_to_exitcode(self.status)}"

    def close(self) -> None:
        self.channel.close()
        self.marks.close()
        self._pipes.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _assignment_frame(job: Claimed, seq: int, grace_seconds: float) -> str:
    """One job as the fields of an Assignment; the payload is JSON already and is not read here."""
    if job.payload_bytes is not None:
        payload = f'"{base64.b64encode(job.payload_bytes).decode()}",true'
    else:
        payload = job.payload or "null"
    return (
        f'[{seq},"{job.id}",{job.fence},"{job.kind}",{_quoted(job.type)},{_quoted(job.queue)},'
        f"{job.attempts},{job.max_attempts},{job.timeout_seconds},{grace_seconds},{payload}]"
    )


def _report(held: Held, row: list[Any], started_at: float, finished_at: float) -> Report:
    """A child's account of an attempt; what we asked for names the kind of stop."""
    outcome = _OUTCOMES[row[1]]
    if outcome == Outcome.CANCELLED:
        report = _stopped(held, started_at, finished_at)
    else:
        report = Report(outcome, started_at, finished_at, crashed=outcome == Outcome.LOST)
    if len(row) > 4:
        _check_texts(*row[4:8])
        if row[9] is not None:
            _check_number(row[9], MOST_RETRY_AFTER_SECONDS)
        report.result, report.error_type, report.error, report.trace = row[4:8]
        report.retry_after_seconds = row[9]
        report.is_permanent, report.effect_unknown = bool(row[8]), bool(row[10])
        report.is_throttled = bool(row[11])
    if held.asked == Outcome.TIMEOUT and outcome in (Outcome.FAILED, Outcome.LOST):
        report.outcome = Outcome.TIMEOUT
    return report


def _check_texts(*values: Any) -> None:
    """Refuse what the database cannot store as text, which would be offered to it for ever."""
    for value in values:
        if value is None:
            continue
        if not isinstance(value, str):
            raise BrokenPeer("a text that is none")
        if not value.isascii():
            value.encode()


def _check_number(value: Any, most: float) -> None:
    if not (isinstance(value, (int, float)) and 0 <= value <= most):
        raise BrokenPeer("a number that is none, or out of its range")


def _stopped(held: Held, started_at: float, finished_at: float) -> Report:
    if held.asked == Outcome.TIMEOUT:
        return Report(
            Outcome.TIMEOUT,
            started_at,
            finished_at,
            error=held.complaint,
            error_type="Timeout",
            effect_unknown=_may_have_effect(held.job),
        )
    if held.asked == Outcome.RELEASED:
        return Report(Outcome.RELEASED, started_at, finished_at)
    if held.asked == Outcome.CANCELLED:
        return Report(
            Outcome.CANCELLED, started_at, finished_at, effect_unknown=_may_have_effect(held.job)
        )
    # Nobody asked: the work stopped itself.
    return Report(
        Outcome.FAILED,
        started_at,
        finished_at,
        error="the work cancelled itself",
        error_type="Cancelled",
    )


def _may_have_effect(job: Claimed) -> bool:
    """A request that was cut off may have worked on the other side, unless its method is safe."""
    if job.kind != "http":
        return False
    payload = json.loads(job.payload or "null")
    method = payload.get("method", "GET") if isinstance(payload, dict) else "GET"
    return str(method).upper() not in ("GET", "HEAD", "OPTIONS")


def _last_report(held: Held, started_at: float, now: float, is_charged: bool, how: str) -> Report:
    if held.asked is not None:
        return _stopped(held, started_at, now)
    return Report(
        Outcome.LOST,
        started_at,
        now,
        error=held.verdict or how,
        error_type="LimitExceeded" if held.verdict else "ProcessDied",
        crashed=is_charged,
    )


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

    def give(self, jobs: Sequence[Claimed], grace_seconds: float) -> None:
        """Spread jobs over the children, each to the one that will be free first."""
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
            self.all[index].give(batch, grace_seconds)

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
