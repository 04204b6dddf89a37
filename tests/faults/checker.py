"""Compare what the database says with what jobs and clients saw. No code of the engine is used here.

(A) every accepted job exists, and has ended where the test waited for that; an unknown one 0 or 1 times
(B) each second start has an attempt that ended before it as lost, failed, timed out or released
(C) two runs of one job never overlap, unless the first holder was frozen past its lease
(D) the fence on the row is the highest in the ledger
(E) only legal moves: the trigger refused none
(F) the sums agree: claims, attempts, starts, states
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tests.faults import ledger
from tests.faults.database import Queryable, plain_id, seconds
from tests.faults.edges import MOVES, REFUSAL

FINAL = {"succeeded", "failed", "cancelled", "skipped"}
ALLOWS_ANOTHER = {"lost", "failed", "timeout", "released"}
# Times of attempts are computed from ages; a process takes a moment to die.
TOLERANCE_SECONDS = 0.25


@dataclass
class Verdict:
    """What was found wrong, by property, and figures worth keeping."""

    wrong: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    figures: dict[str, object] = field(default_factory=dict)

    def assert_sound(self) -> None:
        found = {name: (len(texts), texts[:5]) for name, texts in self.wrong.items() if texts}
        assert not found, found


@dataclass(frozen=True)
class Freeze:
    node: str
    begun_at: float
    ended_at: float


def check(
    database: Queryable,
    *,
    ledger_path: Path,
    accepted: Iterable[str],
    unknown: Iterable[str] = (),
    expect_final: bool = True,
    freezes: Iterable[Freeze] = (),
    logs: Iterable[Path] = (),
) -> Verdict:
    return Check(database, ledger.read(ledger_path), freezes).run(
        {plain_id(one) for one in accepted},
        {plain_id(one) for one in unknown},
        expect_final,
        logs,
    )


class Check:
    def __init__(
        self, database: Queryable, lines: Iterable[ledger.Line], freezes: Iterable[Freeze] = ()
    ) -> None:
        self.verdict = Verdict()
        self.wrong = self.verdict.wrong
        self.freezes = list(freezes)
        # Ledgers are on the monotonic clock, the database on the wall's.
        self.offset = time.time() - ledger.now()
        self.jobs = {
            plain_id(pk): (state, fence, attempts)
            for pk, state, fence, attempts in database.rows(
                # One that was told to come back later has a row and has spent no attempt.
                "SELECT id, state, fence, attempts + COALESCE(throttles, 0) FROM job"
            )
        }
        self.attempts: dict[str, dict[int, tuple[str, float]]] = defaultdict(dict)
        self.attempt_rows = 0
        for job, fence, outcome, finished in database.rows(
            "SELECT job_id, fence, outcome, finished_at FROM attempt"
        ):
            self.attempts[plain_id(job)][fence] = (outcome, seconds(finished) or 0.0)
            self.attempt_rows += 1
        self.edges: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
        for job, before, after, fence in database.rows(
            "SELECT job, before, after, fence FROM fault_edge ORDER BY id"
        ):
            self.edges[plain_id(job)].append((before, after, fence))
        self.starts: dict[str, dict[int, list[ledger.Line]]] = defaultdict(
            lambda: defaultdict(list)
        )
        self.last: dict[tuple[str, int], ledger.Line] = {}
        self.ended: set[tuple[str, int]] = set()
        for line in lines:
            key = (line.job, line.fence)
            if line.word == "S":
                self.starts[line.job][line.fence].append(line)
            elif line.word == "E":
                self.ended.add(key)
            known = self.last.get(key)
            if known is None or line.at > known.at:
                self.last[key] = line

    def run(
        self,
        accepted: set[str],
        unknown: set[str],
        expect_final: bool,
        logs: Iterable[Path] = (),
    ) -> Verdict:
        self.check_accepted(accepted, unknown, expect_final)
        for job in self.starts:
            if job in self.jobs:
                self.check_second_starts(job)
                self.check_overlaps(job)
                self.check_fence(job)
            else:
                self.wrong["A started but not there"].append(job)
        self.check_edges(logs)
        self.check_sums(accepted, unknown)
        self.verdict.figures |= self.sums(accepted, unknown)
        return self.verdict

    # -- A -------------------------------------------------------------------------------------------

    def check_accepted(self, accepted: set[str], unknown: set[str], expect_final: bool) -> None:
        for job in accepted:
            if job not in self.jobs:
                self.wrong["A lost"].append(f"{job} was accepted and does not exist")
            elif expect_final and self.jobs[job][0] not in FINAL:
                self.wrong["A lost"].append(f"{job} is still {self.jobs[job]}")
        for job in self.jobs:
            if job not in accepted and job not in unknown:
                self.wrong["A from nowhere"].append(job)

    # -- B -------------------------------------------------------------------------------------------

    def check_second_starts(self, job: str) -> None:
        by_fence = self.starts[job]
        for fence, lines in by_fence.items():
            if len(lines) > 1:
                self.wrong["B unexplained duplicate"].append(f"{job} twice under fence {fence}")
        fences = sorted(by_fence)
        for before, after in pairwise(fences):
            outcome, finished = self.attempts[job].get(before, ("", 0.0))
            started = by_fence[after][0].at + self.offset
            if outcome == "cancelled" and self.was_retried(job, before):
                continue
            if outcome not in ALLOWS_ANOTHER:
                self.wrong["B unexplained duplicate"].append(
                    f"{job} fence {after}: the attempt under {before} is {outcome or 'missing'}"
                )
            elif finished > started + TOLERANCE_SECONDS:
                self.wrong["B unexplained duplicate"].append(
                    f"{job} fence {after} began {finished - started:.3f} s before {before} ended"
                )

    def was_retried(self, job: str, fence: int) -> bool:
        """Whether somebody brought a job back that had been cancelled under this fence."""
        return any(was == "cancelled" and at == fence for was, _, at in self.edges[job])

    # -- C -------------------------------------------------------------------------------------------

    def check_overlaps(self, job: str) -> None:
        fences = sorted(self.starts[job])
        for before, after in pairwise(fences):
            first, second = self.last[job, before], self.starts[job][after][0]
            if first.at > second.at and not self.was_frozen(first.node, second.at):
                self.wrong["C overlap"].append(
                    f"{job}: fence {before} on {first.node} was at work {first.at - second.at:.3f} s "
                    f"after {after} began on {second.node}"
                )

    def was_frozen(self, node: str, at: float) -> bool:
        return any(
            freeze.node == node and freeze.begun_at <= at <= freeze.ended_at + TOLERANCE_SECONDS
            for freeze in self.freezes
        )

    # -- D -------------------------------------------------------------------------------------------

    def check_fence(self, job: str) -> None:
        state, fence, _ = self.jobs[job]
        highest = max(self.starts[job])
        if highest > fence:
            self.wrong["D fence"].append(f"{job} ran under {highest}, its row says {fence}")
        if state == "succeeded" and (highest != fence or (job, fence) not in self.ended):
            self.wrong["D fence"].append(f"{job} succeeded under {fence}, which never ended a run")

    # -- E -------------------------------------------------------------------------------------------

    def check_edges(self, logs: Iterable[Path]) -> None:
        for job, edges in self.edges.items():
            state = ""
            for before, after, _ in edges:
                if before != state or after not in MOVES.get(before, ()):
                    self.wrong["E edge"].append(f"{job}: {before or 'born'} -> {after} at {state}")
                state = after
            if job in self.jobs and state != self.jobs[job][0]:
                self.wrong["E edge"].append(f"{job} is {self.jobs[job][0]}, its last move {state}")
        for path in logs:
            refused = path.read_text(errors="replace").count(REFUSAL) if path.exists() else 0
            if refused:
                self.wrong["E edge"].append(f"{refused} mentions of refused moves in {path.name}")

    # -- F -------------------------------------------------------------------------------------------

    def check_sums(self, accepted: set[str], unknown: set[str]) -> None:
        if len(self.jobs) != len(accepted) + len(unknown & self.jobs.keys()):
            self.wrong["F sums"].append(
                f"{len(self.jobs)} jobs, {len(accepted)} accepted,"
                f" {len(unknown & self.jobs.keys())} of the unknown"
            )
        for job, (state, fence, attempts) in self.jobs.items():
            edges = self.edges[job]
            claims = sum(after == "running" for _, after, _ in edges)
            if claims != fence:
                self.wrong["F sums"].append(f"{job}: {claims} claims, fence {fence}")
            written = self.attempts.get(job, {})
            if attempts - (state == "running") != len(written):
                self.wrong["F sums"].append(
                    f"{job}: {attempts} attempts, {len(written)} rows, {state}"
                )
            for at_fence in self.starts.get(job, ()):
                if at_fence not in written and not (state == "running" and at_fence == fence):
                    self.wrong["F sums"].append(f"{job}: the run under {at_fence} has no attempt")

    def sums(self, accepted: set[str], unknown: set[str]) -> dict[str, object]:
        states = Counter(state for state, _, _ in self.jobs.values())
        outcomes = Counter(
            outcome for rows in self.attempts.values() for outcome, _ in rows.values()
        )
        starts = sum(len(lines) for by_fence in self.starts.values() for lines in by_fence.values())
        return {
            "accepted": len(accepted),
            "unknown": len(unknown),
            "states": dict(states),
            "outcomes": dict(outcomes),
            "starts": starts,
            "explained": starts - len(self.starts),
            "lost": len(self.wrong["A lost"]),
            "unexplained": len(self.wrong["B unexplained duplicate"]),
            "overlaps": len(self.wrong["C overlap"]),
        }
