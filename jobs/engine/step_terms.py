"""What is asked of any job is asked of each step of a definition, as far as it can be known before."""

from __future__ import annotations

from typing import Any

from jobs.engine import new_job
from jobs.errors import InvalidJob
from jobs.executors.steps_definition import steps_in
from jobs.step_words import DEFAULTS, STEPS


def check_step_terms(definition: Any) -> None:
    """Raise ``InvalidJob`` for the first step that could not be enqueued; its shape has been checked."""
    for path, step in steps_in(definition, "payload"):
        own = {key: step[key] for key in DEFAULTS if step.get(key) is not None}
        if "{{" in own.get("queue", ""):
            del own["queue"]
        kind = step.get("kind") or STEPS
        try:
            new_job.terms_of(new_job.NewJob(kind=kind, type=step.get("type") or "", **own), None)
            new_job.check_tags(step.get("tags") or ())
        except InvalidJob as error:
            raise InvalidJob(str(error), field=f"{path}.{error.field}") from None
