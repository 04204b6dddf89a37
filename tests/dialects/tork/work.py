"""What a node of the tests does with the tasks of this API: each writes a text to its output."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from jobs.engine.claim import Claimed
from jobs.models import Job
from jobs.models.job_queryset import JobQuerySet
from jobs.states import Outcome
from tests.jobs.steps.cases import Fails, TestNode

Says = Callable[[dict[str, Any]], str]


def the_name(payload: dict[str, Any]) -> str:
    """What the script echoes."""
    return str(payload.get("script") or payload.get("run") or "").rpartition("echo ")[2]


def node(says: Says = the_name) -> TestNode:
    def work(claimed: Claimed) -> Any:
        payload = json.loads(claimed.payload or "{}")
        text = says(payload)
        if text.startswith("fail"):
            raise Fails(text)
        return {"exit_code": 0, "output": text}

    return TestNode(work)


class Retried(TestNode):
    """Fails every task so often before it does it."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.failed: dict[str, int] = {}

    def turn(self) -> int:
        # What upkeep does as soon as it is due.
        jobs: JobQuerySet = Job.objects.all()
        return jobs.promote() + super().turn()

    def do(self, job: Claimed) -> None:
        so_far = self.failed.get(job.id, 0)
        if so_far < self.times:
            self.failed[job.id] = so_far + 1
            self.end(job, Outcome.FAILED, error=f"try {so_far + 1}")
        else:
            self.end(job, Outcome.SUCCEEDED, result='{"exit_code": 0, "output": "done"}')
