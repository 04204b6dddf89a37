"""A node in this process, without children, which does the work of steps by a function."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from django.db import connections, router

from clusters.policy import ClusterPolicy
from jobs.engine import conductor
from jobs.engine.claim import Appetite, Claimed
from jobs.engine.clock import countdown
from jobs.engine.complete import Report, decide
from jobs.engine.enqueue import NewJob, enqueue
from jobs.engine.turn import take_turn
from jobs.executors import CONDUCTED, KINDS
from jobs.models import Job, Step, StepsRun
from jobs.states import Outcome
from tests.factories import make_node

Work = Callable[[Claimed], Any]


class Fails(Exception):
    """Raised by work that fails."""


def echo(claimed: Claimed) -> Any:
    """The payload is the result; `{"fail": why}` fails."""
    payload = json.loads(claimed.payload) if claimed.payload else None
    if isinstance(payload, dict) and "fail" in payload:
        raise Fails(payload["fail"])
    return payload


class TestNode:
    __test__ = False

    def __init__(self, work: Work = echo) -> None:
        self.using = router.db_for_write(Job)
        self.id = str(make_node().pk)
        self.work = work
        self.ran: list[str] = []
        self.most_at_once = 0
        self.types = ["do"]

    def claim(self, count: int = 1000) -> list[Claimed]:
        appetite = Appetite(
            node=self.id,
            free=dict.fromkeys({kind.pool for kind in KINDS.values()}, count),
            pools={name: kind.pool for name, kind in KINDS.items()},
            types=self.types,
            queues=None,
        )
        return take_turn(connections[self.using], [], appetite).claimed

    def start(self, claimed: Sequence[Claimed]) -> None:
        conducted = [job for job in claimed if job.kind in CONDUCTED]
        if conducted:
            conductor.start(self.using, self.id, conducted)

    def end(self, job: Claimed, outcome: Outcome, **told: Any) -> None:
        report = Report(outcome, countdown(), countdown(), **told)
        row = decide(job, self.id, report, ClusterPolicy())
        take_turn(connections[self.using], [row], None)

    def do(self, job: Claimed) -> None:
        name = Step.objects.filter(pk=job.id).values_list("name", flat=True).first()
        self.ran.append(name or job.type)
        try:
            result = self.work(job)
        except Fails as error:
            self.end(job, Outcome.FAILED, error=str(error), is_permanent=True)
        else:
            self.end(job, Outcome.SUCCEEDED, result=json.dumps(result))

    def turn(self) -> int:
        """One round: claim, do, conduct; returns how much there was to do."""
        claimed = self.claim()
        self.start(claimed)
        work = [job for job in claimed if job.kind not in CONDUCTED]
        self.most_at_once = max(self.most_at_once, len(work))
        for job in work:
            self.do(job)
        return len(claimed) + conductor.conduct(self.using)

    def run(self, rounds: int = 500) -> None:
        """Until nothing is left to do."""
        for _ in range(rounds):
            if not self.turn():
                return
        raise AssertionError("it does not end")


def submit(*steps: Any, **definition: Any) -> Job:
    payload = {"steps": [*steps], **definition}
    return enqueue(NewJob(kind="steps", payload=payload), by="test").job


def do(name: str, payload: Any = None, **more: Any) -> dict[str, Any]:
    """A step whose result is its payload."""
    return {"name": name, "kind": "python", "type": "do", "payload": payload, **more}


def run(*steps: Any, node: TestNode | None = None, **definition: Any) -> Job:
    """Submit a job made of these steps, and do all of it."""
    job = submit(*steps, **definition)
    (node or TestNode()).run()
    job.refresh_from_db()
    return job


def states(job: Job) -> dict[str, str]:
    """The states of all steps of a job, by name."""
    steps = Step.objects.of_root(job.pk)
    return dict(steps.values_list("name", "job__state"))


def the_run(job_id: UUID) -> StepsRun:
    return StepsRun.objects.get(pk=job_id)
