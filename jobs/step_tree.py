"""The steps of a job, those of its groups and sub-jobs too, each after the one it is below."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.db import connections

from jobs.models import Job, Step

_BELOW = """
WITH RECURSIVE below(id) AS (
  SELECT {job} UNION ALL
  SELECT s.job_id FROM step AS s JOIN below ON s.parent_id = below.id)
SELECT s.* FROM below JOIN step AS s ON s.job_id = below.id
 WHERE s.job_id > %(after)s ORDER BY s.job_id LIMIT %(limit)s
"""
_FIRST = UUID(int=0)
# What is shown of a step's job.
COLUMNS = (
    *("kind", "type", "queue", "state", "reason", "attempts", "max_attempts", "error", "tags"),
    *("progress_percent", "progress_note", "created_at", "started_at", "finished_at", "run_at"),
)


def steps_of(using: str, job_id: UUID, *, limit: int, after: UUID | None = None) -> list[Any]:
    """So many steps after one, in the order in which they were made: a step comes after its parent."""
    is_postgresql = connections[using].vendor == "postgresql"
    text = _BELOW.format(job="%(job)s::uuid" if is_postgresql else "%(job)s")
    values: dict[str, Any] = {"limit": limit}
    for name, value in (("job", job_id), ("after", after or _FIRST)):
        values[name] = value if is_postgresql else value.hex
    steps = list(Step.objects.using(using).raw(text, values))
    jobs = Job.objects.using(using).only(*COLUMNS).in_bulk([step.job_id for step in steps])
    for step in steps:
        if (job := jobs.get(step.job_id)) is not None:
            step.job = job
    return [step for step in steps if step.job_id in jobs]
