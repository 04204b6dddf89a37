"""A job made of steps is taken up again: what succeeded stays, what did not is done anew."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from jobs.models import Job, Step, StepsRun
from jobs.models.erase import erase
from jobs.models.job_queryset import JobQuerySet
from jobs.models.steps_release import all_below
from jobs.states import FINAL, State

# What a group keeps: its list is evaluated once.
_KEPT = ("size", "next")


def restart(using: str, ids: Sequence[UUID]) -> dict[UUID, StepsRun]:
    """Prepare jobs that begin, or begin again; their counters, locked, for the caller to save.

    A step that failed is retried, at every depth: a composite one is claimed and taken up in its turn.
    Those that were skipped by their condition stay so, and the final ones are run anew.
    """
    has_steps = _do_anew(using, ids)
    locked = StepsRun.objects.using(using).filter(pk__in=ids).order_by("pk")
    runs = {run.pk: run for run in locked.select_for_update(no_key=True)}
    for run in runs.values():
        run.state = {key: run.state[key] for key in _KEPT if key in run.state}
        run.wake_at = run.failed_steps = run.open_steps = 0
    # Under the locks: whoever ends a step now lowers what is counted here.
    for parent_id, key, is_tolerated, state in _steps(using, ids) if has_steps else ():
        run = runs[parent_id]
        if state not in FINAL:
            run.open_steps += 1
        elif _has_failed(state, is_tolerated) and not key.startswith("f"):
            run.failed_steps += 1
    return runs


def _do_anew(using: str, ids: Sequence[UUID]) -> bool:
    """Whether they have steps already; nobody else makes any, for their jobs are held by us."""
    jobs: JobQuerySet = Job.objects.using(using)
    steps = Step.objects.using(using).filter(parent_id__in=ids)
    rows = list(steps.values_list("job_id", "key", "is_tolerated", "job__state"))
    again, last = [], []
    for pk, key, is_tolerated, state in rows:
        if key.startswith("f"):
            last += [pk] if state in FINAL else []
        elif _has_failed(state, is_tolerated):
            again.append(pk)
    if again:
        jobs.filter(pk__in=again).retry()
    if last:
        erase(using, [*last, *all_below(using, last)])
    return bool(rows)


def _steps(using: str, ids: Sequence[UUID]) -> list[tuple[UUID, str, bool, str]]:
    rows = Step.objects.using(using).filter(parent_id__in=ids)
    return list(rows.values_list("parent_id", "key", "is_tolerated", "job__state"))


def _has_failed(state: str, is_tolerated: bool) -> bool:
    return state == State.CANCELLED or (state == State.FAILED and not is_tolerated)
