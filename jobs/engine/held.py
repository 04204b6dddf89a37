"""A job in a child's hands, as its node sees it, and what children have said of theirs."""

from __future__ import annotations

from dataclasses import dataclass, field

from jobs.engine.claim import Claimed
from jobs.engine.clock import countdown
from jobs.engine.complete import Report, Success
from jobs.engine.output import BoundedOutput
from jobs.engine.secret_values import SealedValues, masks_of
from jobs.redaction import Redaction, redaction_of
from jobs.states import Outcome


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
    # What is stored of the secrets that it names; None: it names none.
    secrets: SealedValues | None = None
    # What its node, not its child, has read of its output.
    output: BoundedOutput | None = None
    lines: list[tuple[str, str | None, str]] = field(default_factory=list)

    def add_output(self, stream: str, text: str) -> None:
        """Take output that the node has read in the child's place."""
        if self.output is None:
            # Without the beginning, which its child has read; a secret cut in two is not found.
            self.output = BoundedOutput(lambda *line: self.lines.append(line), redaction_for(self))
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


def redaction_for(held: Held) -> Redaction | None:
    return redaction_of(masks_of(held.job.payload, held.secrets or {}))
