"""A job made of steps as one look sees it, and what is decided about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from jobs.engine.clock import countdown
from jobs.engine.new_job import NewJob
from jobs.models import Job, Step, StepsRun
from jobs.redaction import redaction_of
from jobs.sealing import Sealed
from jobs.states import FINAL, Outcome, State

# Before a step is offered again to a queue that was full.
FULL_QUEUE_SECONDS = 2.0
MAX_TOLD = 1000


@dataclass(slots=True)
class Child:
    """A step of a parent, as far as its parent needs to know it."""

    key: str
    state: str
    name: str
    is_tolerated: bool
    error: str | None

    @property
    def is_over(self) -> bool:
        return self.state in FINAL

    @property
    def has_failed(self) -> bool:
        if self.state == State.CANCELLED:
            return True
        return self.state == State.FAILED and not self.is_tolerated


@dataclass(slots=True)
class Ending:
    """How a parent ends."""

    outcome: Outcome
    result: Any = None
    error: str | None = None
    error_type: str | None = None


@dataclass(slots=True)
class Made:
    """A step to be made. One that is skipped has no other work than to say so."""

    job: NewJob
    is_skipped: bool = False
    # When it has been made.
    job_id: UUID | None = None


@dataclass(slots=True)
class Parent:
    """A job made of steps, held by this transaction."""

    job: Job
    run: StepsRun
    definition: Mapping[str, Any]
    # Where it is a step itself.
    step: Step | None
    root: Job
    root_definition: Mapping[str, Any]
    # Secret values, which are in no row that it writes; and whether there is anything to seal.
    masks: tuple[str, ...] = ()
    is_sealed: bool = False
    # Why its definition cannot be read.
    problem: str | None = None
    children: list[Child] = field(default_factory=list)
    # Of `each`: one that failed, where some did.
    failed_child: Child | None = None
    is_late: bool = False
    # The database's time of this look, where it took a question to know it.
    seen_at: datetime | None = None
    # The results of earlier steps, read when somebody asks.
    results: Callable[[], Mapping[str, Any]] = dict
    # -- What is to be done
    made: list[Made] = field(default_factory=list)
    detached: list[NewJob] = field(default_factory=list)
    must_stop: bool = False
    # Before it is woken by a step; None: it is for them to wake it.
    again_seconds: float | None = None
    ending: Ending | None = None
    progress: float | None = None
    # Its list has been worked out just now, and is to be written.
    has_new_items: bool = False
    # When to stop making steps, by ``clock.countdown``; the rest is left to the next look.
    until: float = float("inf")
    # What of its state planning changes, as it was.
    before: dict[str, Any] = field(default_factory=dict)

    @property
    def state(self) -> dict[str, Any]:
        state: dict[str, Any] = self.run.state
        return state

    @property
    def keys_made(self) -> list[str]:
        return [made.job.step.key for made in self.made if made.job.step is not None]

    @property
    def open_steps(self) -> int:
        """Steps that have not ended when this look is written."""
        return self.run.open_steps + sum(not one.is_skipped for one in self.made)

    def fail(self, error: str, type_name: str, *, cancelled: bool = False) -> None:
        told = self.shown(error)[:MAX_TOLD]
        self.state.setdefault(
            "failed", {"error": told, "type": type_name, "is_cancelled": cancelled}
        )

    def shown(self, value: Any) -> Any:
        """The same without secrets."""
        redaction = redaction_of(self.masks) if self.masks else None
        return value if redaction is None else redaction.value(value)

    def kept(self, payload: Any) -> Any:
        """A payload that its steps are given: secrets may have come into it anywhere."""
        return Sealed(payload, self.masks) if self.is_sealed else payload

    def undo(self) -> None:
        """Nothing of what was planned can be written."""
        self.made, self.detached, self.ending = [], [], None
        self.run.state = {**self.run.state, **self.before}

    @property
    def is_out_of_time(self) -> bool:
        """Whether this look has lasted long enough, and has done something."""
        return bool(self.made) and countdown() > self.until

    @property
    def must_end(self) -> bool:
        """Whether somebody, or the clock, wants it to be over."""
        return self.job.cancel_requested_at is not None or self.is_late

    def refuse(self, keys: Iterable[str]) -> None:
        """Final steps that cannot be made are passed over: nothing would ever follow them."""
        self.state["refused"] = sorted(
            {*self.state.get("refused", ()), *(key for key in keys if key.startswith("f"))}
        )

    def look_again(self) -> None:
        """It has failed just now: what runs is stopped at the next look, or nothing does and it ends."""
        self.again_seconds = 0.0

    def waits_for_room(self, why: str) -> None:
        """A queue is full."""
        self.state["waits"] = self.shown(why)[:MAX_TOLD]
        self.again_seconds = FULL_QUEUE_SECONDS
