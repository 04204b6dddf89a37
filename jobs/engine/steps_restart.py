"""A job made of steps is taken up again: what succeeded stays, what did not is done anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from jobs.models import Job, Step, StepsRun
from jobs.models.erase import erase
from jobs.models.job import JobQuerySet
from jobs.models.steps_release import all_below
from jobs.states import FINAL, RETRYABLE_FROM, State

# What a group keeps: its list is evaluated once.
_KEPT = ("size", "next")


def restart(using: str, runs: Sequence[StepsRun]) -> None:
    """Prepare jobs that begin, for the first time or again, under their locks; the caller saves them.

    A step that failed is retried, at every depth: a composite one is claimed and taken up in its turn.
    Those that were skipped by their condition stay so, and the final ones are run anew.
    """
    jobs: JobQuerySet = Job.objects.using(using)
    for run in runs:
        run.state = {key: run.state[key] for key in _KEPT if key in run.state}
    below = Step.objects.using(using).filter(parent_id__in=[run.pk for run in runs])
    rows = list(below.values_list("job_id", "parent_id", "key", "is_tolerated", "job__state"))
    if not rows:
        for run in runs:
            run.open_steps = 0
        return
    last = [pk for pk, _, key, _, state in rows if key.startswith("f") and state in FINAL]
    again = [
        pk
        for pk, _, key, is_tolerated, state in rows
        if state in (State.FAILED, State.CANCELLED)
        and state in RETRYABLE_FROM
        and not key.startswith("f")
        and not (is_tolerated and state == State.FAILED)
    ]
    if again:
        jobs.filter(pk__in=again).retry()
    if last:
        erase(using, [*last, *all_below(using, last)])
    open_steps = Counter(
        parent_id
        for pk, parent_id, key, _, state in rows
        if pk in again or (state not in FINAL and pk not in last)
    )
    for run in runs:
        run.open_steps = open_steps[run.pk]
