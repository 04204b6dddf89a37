"""One child as its node sees it: what it is given, what it says, and how it ended."""

from __future__ import annotations

import base64
import json
import logging
import os
import signal
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jobs.engine.capture import Pipes
from jobs.engine.child_reports import check_number, check_texts, last_report, report_of
from jobs.engine.claim import Claimed
from jobs.engine.clock import countdown
from jobs.engine.complete import Success
from jobs.engine.estimates import Estimates
from jobs.engine.frames import BrokenPeer, Channel, encode, pack
from jobs.engine.held import Held, News, redaction_for
from jobs.engine.marks import BEGUN, NOTHING, REPORTED, SUCCEEDED
from jobs.engine.output import clean
from jobs.engine.secret_values import SealedValues
from jobs.engine.template import Forked
from jobs.engine.usage import private_bytes
from jobs.executors import IO, PROCESS
from jobs.executors.container_remains import remove_attempts
from jobs.executors.shell_processes import end_marked
from jobs.states import Outcome

logger = logging.getLogger(__name__)

# Payloads of one frame.
FRAME_BYTES = 4 << 20
# What a child has not begun after this long goes back to the others.
RECALL_SECONDS = 1.0

_NO_SECRETS: Mapping[str, SealedValues] = {}
_quoted = lru_cache(4096)(json.dumps)


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
        # The job that it gave back or ended last: what it says now may be of that one.
        self._last: Held | None = None
        self._next_seq = 0
        self._recalled_at = 0.0
        self._busy_at = self.born_at
        self._had_output = False
        # How far it was heard of what it has to say of its jobs' output.
        self._heard = 0
        # Ended by its node for the sake of one job: the others it held are not to blame.
        self.culprit: int | None = None

    def give(
        self,
        jobs: Sequence[tuple[Claimed, float]],
        grace_seconds: float,
        secrets: Mapping[str, SealedValues] = _NO_SECRETS,
    ) -> None:
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
            own = secrets.get(job.id)
            self.held[seq] = Held(job, seq, expected, now, secrets=own)
            self.load_seconds += expected
            frame = _assignment_frame(job, seq, grace_seconds, own).encode()
            if frames and size + len(frame) > FRAME_BYTES:
                self.channel.send(pack(b'{"run":[' + b",".join(frames) + b"]}"))
                frames, size = [], 0
            frames.append(frame)
            size += len(frame)
        self.channel.send(pack(b'{"run":[' + b",".join(frames) + b"]}"))

    def drop(self, seq: int) -> Held | None:
        held = self.held.pop(seq, None)
        if held is not None:
            self._last = held
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
                redaction = redaction_for(self._last) if self._last is not None else None
                text = text if redaction is None else redaction.text(text)
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
            for seq, at, stream, level, text, self._heard in message.get("logs", ()):
                if (held := self.held.get(seq)) is not None:
                    _add_line(news, held, at, stream, level, text)
            for seq, (percent, note) in message.get("progress", {}).items():
                if (held := self.held.get(int(seq))) is not None:
                    check_number(percent, 100.0)
                    check_texts(note)
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
                check_texts(result)
                successes.append(
                    Success(
                        job.id,
                        job.fence,
                        node,
                        started_at,
                        finished_at,
                        result,
                        job.is_awaited,
                    )
                )
            else:
                news.reports.append((held, report_of(held, row, started_at, finished_at)))
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
        remove_attempts(
            [
                (one.job.id, one.job.fence)
                for one in self.held.values()
                if one.job.kind == "container"
            ]
        )

    def bury(self, news: News) -> None:
        """Account for what a dead child held: ended, in its hands, or never begun."""
        self.end()
        now = countdown()
        self._hear_last_words(news)
        self._read_output(news)
        current, begun_at = self.marks.current()
        for seq in list(self.held):
            held = self.drop(seq)
            assert held is not None
            cell = self.marks.cell(seq)
            if cell == SUCCEEDED:
                job = held.job
                news.successes.append(
                    Success(job.id, job.fence, news.node, held.given_at, now, None, job.is_awaited)
                )
            elif cell in (BEGUN, REPORTED):
                is_charged = self.culprit in (None, seq)
                # Its word for it, as far as that can be: it ran foreign code.
                is_known = seq == current and held.given_at <= begun_at <= now
                started_at = begun_at if is_known else held.given_at
                report = last_report(held, started_at, now, is_charged, self._how_it_ended())
                held.close_output()
                news.take_lines(held)
                news.reports.append((held, report))
            else:
                news.returned.append(held)
        self.close()

    def _hear_last_words(self, news: News) -> None:
        """What it had collected of its jobs' output and not sent."""
        try:
            lines, lost = self.marks.words.left(self._heard)
            if lost and (held := self.held.get(lines[0].seq)) is not None:
                _add_line(
                    news, held, lines[0].at, "log", "warning", f"[{lost} lines left out here]"
                )
            for seq, *line in lines:
                if (held := self.held.get(seq)) is not None:
                    _add_line(news, held, *line)
        except Exception:  # it ran foreign code, which may have written there
            logger.exception("what child %d said last cannot be understood", self.pid)

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


def _add_line(news: News, held: Held, at: Any, stream: Any, level: Any, text: Any) -> None:
    check_number(at, countdown() + 1.0)
    check_texts(stream, level, text)
    news.logs.append((held, at, stream, level, text))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _assignment_frame(
    job: Claimed, seq: int, grace_seconds: float, secrets: SealedValues | None
) -> str:
    """One job as the fields of an Assignment; the payload is JSON already and is not read here."""
    if job.payload_bytes is not None:
        payload = f'"{base64.b64encode(job.payload_bytes).decode()}",true'
    else:
        payload = job.payload or "null"
        if secrets is not None:
            payload += f",{json.dumps(secrets)}"
    return (
        f'[{seq},"{job.id}",{job.fence},"{job.kind}",{_quoted(job.type)},{_quoted(job.queue)},'
        f"{job.attempts},{job.max_attempts},{job.timeout_seconds},{grace_seconds},{payload}]"
    )
