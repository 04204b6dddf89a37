"""Sweep: jobs that wait for steps are recounted, and what does not fit is repaired and reported.

Above 0 is a bug: a counter differs from its steps, or a job sleeps and nothing will wake it.
"""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from django.db import transaction
from django.db.models import Count, F, IntegerField, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce, Now

from clusters.policy import ClusterPolicy
from jobs.engine import step_rows
from jobs.hints import hint_steps
from jobs.models import Step, StepsRun
from jobs.models.steps_release import lock_runs
from jobs.states import State

logger = logging.getLogger(__name__)

# Jobs that one round looks at; each counts its steps.
SWEEP = 200
# Where the next round goes on; it saves work and decides nothing.
_swept_until: dict[str, UUID] = {}


def sweep_steps(using: str, policy: ClusterPolicy) -> int:
    """Recount some waiting jobs; returns how many were repaired."""
    waiting = StepsRun.objects.using(using).filter(job__state=State.WAITING).order_by("pk")
    if using in _swept_until:
        waiting = waiting.filter(pk__gt=_swept_until[using])
    page = list(waiting.values_list("pk", flat=True)[:SWEEP])
    if len(page) < SWEEP:
        _swept_until.pop(using, None)
    else:
        _swept_until[using] = page[-1]
    suspects = list(_wrong(using, page).values_list("pk", flat=True)) if page else []
    return _repair(using, suspects) if suspects else 0


def stop_late(using: str, policy: ClusterPolicy) -> int:
    """Wake jobs that are out of time; returns how many."""
    late = step_rows.wake_late(using)
    if late:
        hint_steps(using)
    return late


def _wrong(using: str, ids: list[UUID]) -> Any:
    steps = Step.objects.using(using).filter(parent_id=OuterRef("pk"), job__finished_at=None)
    counted = steps.order_by().values("parent_id").annotate(n=Count("job_id")).values("n")
    runs = StepsRun.objects.using(using).filter(pk__in=ids, job__state=State.WAITING)
    runs = runs.annotate(counted=Coalesce(Subquery(counted), 0, output_field=IntegerField()))
    # One statement sees counter and steps as one transaction left them.
    return runs.filter(~Q(open_steps=F("counted")) | Q(counted=0, woken_at=None))


def _repair(using: str, suspects: list[UUID]) -> int:
    with transaction.atomic(using=using):
        lock_runs(using, suspects)
        # Again under the lock, which whoever ends a step takes before he lowers a counter.
        wrong = list(_wrong(using, suspects))
        for run in wrong:
            logger.error("job %s counts %d steps and has %d", run.pk, run.open_steps, run.counted)
            rows = StepsRun.objects.using(using).filter(pk=run.pk)
            rows.update(open_steps=run.counted, woken_at=Now())
    if wrong:
        hint_steps(using)
    return len(wrong)
