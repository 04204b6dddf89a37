"""One job with all that is known of it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from jobs.dialects.tork.views.base import known_since
from jobs.dialects.tork.views.rows import execution_of, find_job
from jobs.dialects.tork.wire.jobs import job_to_wire
from jobs.dialects.tork.wire.tasks import rows_to_wire
from jobs.engine.step_rows import results_of


def full_job(using: str, job_id: str | UUID) -> dict[str, Any]:
    """The whole of a job."""
    shown = find_job(using, str(job_id))
    rows = execution_of(using, shown.job.pk)
    execution = [row for step in rows for row in rows_to_wire(step)]
    known = known_since(
        {shown.author}
        | {f"user:{one.get('user')}" for one in shown.definition.get("permissions") or ()}
    )
    return job_to_wire(shown, known, execution, results_of(using, shown.job.pk))
