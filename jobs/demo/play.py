"""What a play is made of: work, what goes wrong with it, schedules, workflows, the hours of its day."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from jobs.states import Outcome

Chance = random.Random
Document = Callable[[Chance], Any]


def nothing(chance: Chance) -> Any:
    return None


@dataclass(frozen=True)
class Work:
    """One sort of job: how often it comes, how long it takes, who asks for it."""

    type: str
    queue: str
    # Of a hundred jobs of the day.
    share: float
    seconds: float
    by: str
    payload: Document = nothing
    kind: str = "python"
    spread: float = 0.5
    result: Document = nothing
    metadata: Document | None = None
    tags: Sequence[str] = ()
    max_attempts: int = 3
    timeout: float = 300.0
    on_lost: str = "retry"
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Trouble:
    """Failures of one cause: which work, when, how many jobs failed for good and how many got over it."""

    type: str
    error: str
    text: str
    # Of the innermost line of the handler's own code.
    file: str
    function: str
    failed: int = 0
    recovered: int = 0
    # Minutes ago; the whole day where nothing is said.
    begun: float = 1440.0
    over: float = 6.0
    outcome: Outcome = Outcome.FAILED
    is_held: bool = False
    is_permanent: bool = False

    def message(self, chance: Chance) -> str:
        return self.text.format(
            number=chance.randrange(1000, 99_999), other=chance.randrange(2, 60)
        )

    def trace(self, message: str) -> str:
        if not self.file:
            return message
        line = 40 + sum(map(ord, self.function)) % 160
        return (
            "Traceback (most recent call last):\n"
            '  File "/srv/app/lib/python3.11/site-packages/kit/runner.py", line 71, in call\n'
            "    return function(context, payload)\n"
            f'  File "/srv/app/{self.file}", line {line}, in {self.function}\n'
            f"    {self.function}(context, payload)\n"
            f"{self.error}: {message}"
        )


@dataclass(frozen=True)
class Line:
    """A queue."""

    name: str
    description: str
    policies: Mapping[str, Any] = field(default_factory=dict)
    paused_for: timedelta | None = None
    paused_by: str = ""
    pause_reason: str = ""
    resumes_in: timedelta | None = None
    # Jobs of the full day that wait in it.
    backlog: int = 0

    @property
    def about(self) -> Mapping[str, Any]:
        return {"description": self.description, **self.policies}


@dataclass(frozen=True)
class Timetable:
    """A schedule, and how its day went."""

    name: str
    type: str
    queue: str
    about: str
    expression: str = ""
    every: float = 0.0
    zone: str = "UTC"
    overlap: str = "skip"
    # For so many minutes no node has looked, so that a run is overdue.
    late: float = 0.0
    # So many minutes ago an outage began in which its instants were missed, and how long it lasted.
    missed_at: float = 0.0
    missed_for: float = 0.0
    # The last runs that failed.
    failing: int = 0
    paused: str = ""
    is_enabled: bool = True
    without_weekends: bool = False
    # Of the bank holidays it is left out, as their calendar tells.
    without_holidays: bool = False


@dataclass(frozen=True)
class Graph:
    """A workflow: its nodes, each with those before it, as names of timetables."""

    name: str
    about: str
    nodes: Sequence[tuple[str, Sequence[str]]]
    expression: str
    zone: str = "Europe/Berlin"


@dataclass(frozen=True)
class Play:
    name: str
    # Of the full day.
    jobs: int
    host: str
    nodes: int
    slots: int
    works: Sequence[Work]
    troubles: Sequence[Trouble]
    queues: Sequence[Line]
    timetables: Sequence[Timetable]
    graphs: Sequence[Graph]
    # How busy each hour of the day is, in UTC.
    hours: Sequence[float]
    # Which node died and which is being drained, if any.
    dies: int = -1
    drains: int = -1

    def load_at(self, moment: datetime) -> float:
        """How busy it is, from 0 to 1."""
        return self.hours[moment.hour] / max(self.hours)

    def work(self, type_name: str) -> Work:
        return next(work for work in self.works if work.type == type_name)
