"""Jobs and their steps, read for one answer in a fixed number of questions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from uuid import UUID

from django.db.models import OuterRef, Subquery

from jobs.dialects.tork.errors import refuse
from jobs.dialects.tork.wire.ids import candidates, parse_id
from jobs.dialects.tork.wire.jobs import Shown, redactor_of
from jobs.dialects.tork.wire.redaction import Redactor
from jobs.dialects.tork.wire.tasks import Row, is_earlier
from jobs.engine.conductor import SCHEDULES
from jobs.models import Attempt, Job, Schedule, Step, StepsRun
from jobs.models.job_queryset import JobQuerySet
from jobs.states import FINAL, State
from jobs.step_words import GROUP, STEPS

# Of one job so many executions of tasks are shown, the first ones.
MAX_EXECUTION = 2000
MAX_HEIGHT = 12


def jobs_of(using: str, ids: Sequence[UUID]) -> list[Shown]:
    """These jobs as lists show them, in this order."""
    found = {job.pk: job for job in _shown_jobs(using).filter(pk__any_of=ids)} if ids else {}
    jobs = [found[pk] for pk in ids if pk in found]
    above = _above(using, jobs)
    return _past_their_end(using, [_shown(job, above[job.pk]) for job in jobs])


def find_job(using: str, job_id: str) -> Shown:
    """One job; what is no id of a job made of steps is as missing as an unknown one."""
    pk = parse_id(job_id)
    job = _shown_jobs(using).filter(pk=pk).first() if pk else None
    if job is None:
        refuse("job not found", 404)
    return _past_their_end(using, [_shown(job, _above(using, [job])[job.pk])])[0]


def redactor_above(using: str, step: Step) -> Redactor:
    """What hides the secrets of all jobs that a step is of."""
    return redactor_of(step.job, *_above_of(using, {step.pk: step.root_id})[step.pk])


def _shown_jobs(using: str) -> JobQuerySet:
    last = Step.objects.filter(root=OuterRef("pk")).order_by("-position").values("position")[:1]
    schedule = Schedule.objects.filter(pk=OuterRef("schedule_id")).values("created_by")[:1]
    jobs: JobQuerySet = Job.objects.using(using).filter(kind=STEPS)
    return jobs.select_related("step").annotate(
        reached=Subquery(last), scheduled_by=Subquery(schedule)
    )


def _shown(job: Job, above: Sequence[Job]) -> Shown:
    step = getattr(job, "step", None)
    is_fired = job.enqueued_by == SCHEDULES
    return Shown(
        job,
        author=(getattr(job, "scheduled_by", None) if is_fired else None) or job.enqueued_by,
        reached=getattr(job, "reached", None) or 0,
        # A task that is a job has one id as both.
        parent_id=None if step is None else job.pk.hex,
        redactor=redactor_of(job, *above),
    )


def _above(using: str, jobs: Sequence[Job]) -> dict[UUID, list[Job]]:
    """The jobs that each of these is a sub-job of, at every height: they have secrets too."""
    roots = {
        pk: step.root_id for pk, step in ((j.pk, getattr(j, "step", None)) for j in jobs) if step
    }
    return {job.pk: [] for job in jobs} | _above_of(using, roots)


def _above_of(using: str, below: Mapping[UUID, UUID]) -> dict[UUID, list[Job]]:
    above: dict[UUID, list[Job]] = {pk: [] for pk in below}
    for _ in range(MAX_HEIGHT):
        if not below:
            break
        rows = Job.objects.using(using).filter(pk__any_of=[*{*below.values()}])
        roots = {row.pk: row for row in rows.select_related("step")}
        following = {}
        for pk, root_id in below.items():
            if (root := roots.get(root_id)) is not None:
                above[pk].append(root)
                if (step := getattr(root, "step", None)) is not None:
                    following[pk] = step.root_id
        below = following
    return above


def _past_their_end(using: str, jobs: list[Shown]) -> list[Shown]:
    """A job may fail when all of its tasks are done."""
    failed = {
        one.job.pk: one
        for one in jobs
        if one.job.state == State.FAILED and one.reached == one.task_count
    }
    if failed:
        keys = {str(one.task_count - 1) for one in failed.values()}
        last = Step.objects.using(using).filter(parent_id__in=failed, key__in=keys)
        done = last.filter(job__state__in=(State.SUCCEEDED, State.SKIPPED))
        for parent_id, position in done.values_list("parent_id", "position"):
            if position == failed[parent_id].task_count:
                failed[parent_id].reached += 1
    return jobs


def execution_of(using: str, root_id: UUID) -> list[Row]:
    """The steps of a job in the order of their places and then of their start."""
    steps = Step.objects.using(using).of_root(root_id).select_related("job")
    rows = _with_tries(using, list(steps[:MAX_EXECUTION]))

    def order(row: Row) -> tuple[int, bool, float]:
        at = row.step.job.started_at
        return row.step.position, at is None, at.timestamp() if at else 0.0

    return sorted(rows, key=order)


def find_task(using: str, task_id: str) -> tuple[Row, Attempt | None]:
    """A step, and the try that is meant where it is an earlier one."""
    asked = parse_id(task_id)
    found = candidates(asked) if asked else {}
    steps = Step.objects.using(using).filter(pk__in=found).select_related("job") if found else ()
    for row in _with_tries(using, list(steps)):
        number = found[row.step.pk]
        if not number:
            return row, None
        for attempt in row.tries:
            if attempt.number == number and is_earlier(row.step, attempt):
                return row, attempt
    return refuse("task not found", 404)


def _with_tries(using: str, steps: Sequence[Step]) -> list[Row]:
    tried = [s.pk for s in steps if s.job.attempts > 1 or (s.job.attempts and _is_open(s.job))]
    tries: dict[UUID, list[Attempt]] = defaultdict(list)
    if tried:
        attempts = Attempt.objects.using(using).filter(job_id__any_of=tried).order_by("fence")
        for attempt in attempts:
            tries[attempt.job_id].append(attempt)
    groups = [step.pk for step in steps if step.job.kind == GROUP]
    runs = StepsRun.objects.using(using).in_bulk(groups) if groups else {}
    return [Row(step, tries.get(step.pk, ()), runs.get(step.pk)) for step in steps]


def _is_open(job: Job) -> bool:
    return job.state not in FINAL
