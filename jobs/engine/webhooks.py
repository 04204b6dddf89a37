"""Webhooks of jobs made of steps: what happened to a job becomes jobs of kind ``webhook``.

What is to be told is read from the rows themselves, against what has been told, so nothing is lost with
a process and nothing is told twice: deliveries, and the note that they were made, are one transaction.
Where it is the front door or a conductor that changes a job, that is also the transaction of the change;
what nodes and people do besides, such as steps that begin, is found by a look every second.

A job without webhooks is not looked at. Its row in ``steps_run`` says whether there are any:
``is_watched`` is null without, true as long as there is something to tell, and false when all is told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from uuid import UUID

from django.db import connections, transaction
from django.db.models import Exists, OuterRef

from clusters.policy import ClusterPolicy
from jobs import expressions
from jobs.engine import step_rows
from jobs.engine.enqueue import enqueue_many
from jobs.engine.new_job import NewJob
from jobs.errors import JobError, QueueFull
from jobs.executors import CONDUCTED
from jobs.executors.steps import names_read, render_all
from jobs.models import Attempt, Job, Step, StepsRun, WebhookEvent
from jobs.models.queue import DEFAULT_QUEUE
from jobs.sealing import Sealed, SealError, is_sealed, opened
from jobs.states import FINAL, Outcome, State

logger = logging.getLogger(__name__)

KIND = "webhook"
JOB_STATE, JOB_PROGRESS = "job.StateChange", "job.Progress"
TASK_STATE, TASK_PROGRESS = "task.StateChange", "task.Progress"
# Jobs of one look, and steps of a job: their bodies are made while the job's row is locked.
BATCH, STEPS_AT_ONCE = 50, 100
# Where the next look goes on; it is not lost with a process, for then it begins anew.
_told_until: dict[str, UUID] = {}
# A delivery is offered so often, and may take so long.
MAX_ATTEMPTS, TIMEOUT_SECONDS = 5, 5.0
RETRY: Mapping[str, Any] = {
    "retry_base_seconds": 2.0,
    "retry_cap_seconds": 10.0,
    "retry_curve": "linear",
}
# What is sent, by the format that a webhook names; imported late, because dialects know the engine.
FORMATS: Mapping[str, str] = {
    "native": "jobs.engine.webhook_bodies:native",
    "tork": "jobs.dialects.tork.wire.summaries:webhook_body",
}

_ENDED: Mapping[str, str] = {
    State.SUCCEEDED: "COMPLETED",
    State.FAILED: "FAILED",
    State.CANCELLED: "CANCELLED",
    State.SKIPPED: "SKIPPED",
}
_OUTCOMES: Mapping[str, str] = {
    Outcome.SUCCEEDED: "COMPLETED",
    Outcome.FAILED: "FAILED",
    Outcome.TIMEOUT: "FAILED",
    Outcome.LOST: "FAILED",
    Outcome.CANCELLED: "CANCELLED",
}


@dataclass(frozen=True, slots=True)
class Happened:
    """One thing to tell; ``step`` with its job where it happened to a step."""

    job: Job
    step: Step | None
    event: str
    word: str
    fence: int
    error: str | None = None
    is_last: bool = False
    # Only noted: nobody is told.
    is_silent: bool = False

    @property
    def subject(self) -> UUID:
        return self.job.pk if self.step is None else self.step.job_id

    @property
    def key(self) -> tuple[UUID, str, str, int]:
        return (self.subject, self.event, self.word, self.fence)


@dataclass(slots=True)
class Watched:
    """A job whose webhooks are told."""

    job: Job
    run: StepsRun
    definition: Mapping[str, Any]
    masks: tuple[str, ...]
    is_sealed: bool

    @property
    def webhooks(self) -> Sequence[Mapping[str, Any]]:
        return self.definition.get("webhooks") or ()

    def wants(self, events: Collection[str]) -> bool:
        return any(event_of(webhook) in events for webhook in self.webhooks)


def event_of(webhook: Mapping[str, Any]) -> str:
    return webhook.get("event") or JOB_STATE


def tell_open(using: str, policy: ClusterPolicy) -> int:
    """Tell of what has happened to some jobs that have webhooks; a duty of upkeep, which goes on at
    once where there are more."""
    rows = StepsRun.objects.using(using).filter(is_watched=True).order_by("-pk")
    if using in _told_until:
        rows = rows.filter(pk__lt=_told_until[using])
    page = list(rows.values_list("pk", flat=True)[:BATCH])
    if len(page) < BATCH:
        _told_until.pop(using, None)
    else:
        _told_until[using] = page[-1]
    told = tell(using, page)
    return max(told, 1) if len(page) == BATCH else told


def tell(using: str, root_ids: Iterable[UUID]) -> int:
    """Enqueue what the webhooks of these jobs have not been told; returns how many deliveries.

    A job that somebody else holds at this moment is told of by him, or later.
    """
    root_ids = list(root_ids)
    if not root_ids:
        return 0
    try:
        with transaction.atomic(using=using):
            skip = connections[using].features.has_select_for_update_skip_locked
            rows = StepsRun.objects.using(using).filter(pk__in=root_ids, is_watched=True)
            runs = list(rows.order_by("pk").select_for_update(no_key=True, skip_locked=skip))
            return sum(_tell_of(using, run) for run in runs)
    except QueueFull as error:
        logger.warning("webhooks wait: %s", error)
        return 0


def _tell_of(using: str, run: StepsRun) -> int:
    job = Job.objects.using(using).filter(pk=run.pk).first()
    rows = StepsRun.objects.using(using).filter(pk=run.pk)
    if job is None:
        rows.update(is_watched=False)
        return 0
    try:
        kept = opened(job.payload)
    except SealError as error:
        logger.warning("job %s: its webhooks are not told: %s", job.pk, error)
        rows.update(is_watched=False)
        return 0
    watched = Watched(job, run, kept.payload or {}, kept.masks, is_sealed(job.payload))
    happened, has_more = _happened(using, watched)
    told = _keys_told(using, {one.subject for one in happened})
    news = [one for one in happened if one.key not in told]
    WebhookEvent.objects.using(using).bulk_create(
        WebhookEvent(
            job_id=one.subject,
            event=one.event,
            word=one.word,
            fence=one.fence,
            is_last=one.is_last,
        )
        for one in news
    )
    deliveries = [
        made for one in news if not one.is_silent for made in _deliveries(using, watched, one)
    ]
    _enqueue(using, job, deliveries)
    if job.state in FINAL and not has_more:
        rows.update(is_watched=False)
    return len(deliveries)


def _keys_told(using: str, subjects: Collection[UUID]) -> set[tuple[UUID, str, str, int]]:
    rows = WebhookEvent.objects.using(using).filter(job_id__in=subjects)
    return set(rows.values_list("job_id", "event", "word", "fence"))


def _enqueue(using: str, job: Job, deliveries: list[NewJob]) -> None:
    """All of them but those that nobody could deliver."""
    while deliveries:
        try:
            with transaction.atomic(using=using):
                enqueue_many(deliveries, by=job.enqueued_by)
            return
        except QueueFull:
            raise
        except JobError as error:
            logger.warning("job %s: a webhook cannot be told: %s", job.pk, error)
            del deliveries[error.index or 0]


# -- What has happened -----------------------------------------------------------------------------


def _happened(using: str, watched: Watched) -> tuple[list[Happened], bool]:
    """All that can be told of by now, in its order; and whether there is more than one look takes."""
    job = watched.job
    attempts = list(
        Attempt.objects.using(using).filter(job_id=job.pk).values_list("fence", "outcome", "error")
    )
    own = list(_of_job(job, {fence: (outcome, error) for fence, outcome, error in attempts}))
    if not watched.wants((TASK_STATE, TASK_PROGRESS)):
        return own, False
    steps = list(_unsettled_steps(using, job.pk)[: STEPS_AT_ONCE + 1])
    has_more, steps = len(steps) > STEPS_AT_ONCE, steps[:STEPS_AT_ONCE]
    tries: dict[UUID, dict[int, tuple[str, str | None]]] = {}
    rows = Attempt.objects.using(using).filter(job_id__in=[step.job_id for step in steps])
    for job_id, fence, outcome, error in rows.values_list("job_id", "fence", "outcome", "error"):
        tries.setdefault(job_id, {})[fence] = (outcome, error)
    below = [one for step in steps for one in _of_step(job, step, tries.get(step.job_id, {}))]
    last = [one for one in own if one.is_last]
    # A job ends when all that is told of its steps has been told.
    first = [one for one in own if not one.is_last]
    return [*first, *below, *([] if has_more else last)], has_more


def _unsettled_steps(using: str, root_id: UUID) -> Any:
    settled = WebhookEvent.objects.using(using).filter(
        job_id=OuterRef("job_id"), fence=OuterRef("job__fence"), is_last=True
    )
    steps = Step.objects.using(using).filter(~Exists(settled), root_id=root_id)
    return steps.select_related("job").order_by("position", "job_id")


def _of_job(job: Job, attempts: Mapping[int, tuple[str, str | None]]) -> Iterator[Happened]:
    yield Happened(job, None, JOB_STATE, "PENDING", 0)
    for fence in sorted({*attempts, job.fence} - {0}):
        if fence > 1:
            yield Happened(job, None, JOB_STATE, "RESTART", fence)
        has_begun = job.state == State.WAITING or fence in attempts
        if has_begun:
            yield Happened(job, None, JOB_STATE, "RUNNING", fence)
        if fence < job.fence and fence in attempts:
            outcome, error = attempts[fence]
            if (word := _OUTCOMES.get(outcome)) is not None:
                yield Happened(job, None, JOB_STATE, word, fence, error)
    if job.progress_percent:
        yield Happened(job, None, JOB_PROGRESS, f"{job.progress_percent:g}", job.fence)
    if (word := _ENDED.get(job.state)) is not None:
        yield Happened(job, None, JOB_STATE, word, job.fence, job.error, is_last=True)


def _of_step(
    root: Job, step: Step, attempts: Mapping[int, tuple[str, str | None]]
) -> Iterator[Happened]:
    """Each try is one task: it is scheduled, it runs, and it ends."""
    job: Job = step.job
    if job.state == State.SKIPPED:
        yield Happened(root, step, TASK_STATE, "SKIPPED", job.fence, is_last=True)
        return
    first = "PENDING" if job.kind in CONDUCTED else "SCHEDULED"
    for fence in sorted({*attempts, job.fence} - {0}) or [0]:
        yield Happened(root, step, TASK_STATE, first, max(fence, 1))
        is_now = fence == job.fence
        if fence and (
            fence in attempts or (is_now and job.state in (State.RUNNING, State.WAITING))
        ):
            yield Happened(root, step, TASK_STATE, "RUNNING", fence)
        if fence in attempts and not (is_now and job.state in FINAL):
            outcome, error = attempts[fence]
            if _OUTCOMES.get(outcome) == "FAILED":
                yield Happened(root, step, TASK_STATE, "FAILED", fence, error)
    if job.progress_percent:
        yield Happened(root, step, TASK_PROGRESS, f"{job.progress_percent:g}", job.fence)
    if job.state in (State.SUCCEEDED, State.FAILED):
        word = _ENDED[job.state]
        yield Happened(root, step, TASK_STATE, word, job.fence, job.error, is_last=True)
    elif job.state == State.CANCELLED:
        # Settled all the same, or it would be looked at in the place of those after it for ever.
        yield Happened(root, step, TASK_STATE, "CANCELLED", job.fence, is_last=True, is_silent=True)


# -- Whom to tell, and what ------------------------------------------------------------------------


def _deliveries(using: str, watched: Watched, one: Happened) -> Iterator[NewJob]:
    for webhook in watched.webhooks:
        if event_of(webhook) != one.event:
            continue
        form = webhook.get("format") or watched.definition.get("dialect") or "native"
        module, _, name = FORMATS[form].partition(":")
        make: Callable[..., dict[str, Any]] = getattr(import_module(module), name)
        try:
            body = make(watched, one)
            if not _is_meant(webhook.get("if"), watched, one):
                continue
            headers = render_all(webhook.get("headers") or {}, _names(using, watched, webhook))
        except expressions.ExpressionError as error:
            logger.warning("job %s: a webhook is not told: %s", watched.job.pk, error)
            continue
        payload = {"url": webhook["url"], "headers": headers, "event": one.event, "body": body}
        yield NewJob(
            kind=KIND,
            queue=DEFAULT_QUEUE,
            priority=watched.job.priority,
            payload=Sealed(payload, watched.masks) if watched.is_sealed else payload,
            max_attempts=MAX_ATTEMPTS,
            timeout_seconds=TIMEOUT_SECONDS,
            is_of_engine=True,
            metadata={"webhook_of": str(one.subject), "event": one.event, "state": one.word},
            **RETRY,
        )


def _is_meant(condition: str | None, watched: Watched, one: Happened) -> bool:
    """Only what comes to true is."""
    if not condition:
        return True
    from jobs.engine.webhook_bodies import names_of_fields

    names = names_of_fields(watched, one)
    if "{{" in condition:
        return expressions.Template.parse(condition).value(names) is True
    return expressions.compile(condition).evaluate(names) is True


def _names(using: str, watched: Watched, webhook: Mapping[str, Any]) -> dict[str, Any]:
    definition = watched.definition
    reads_results = "tasks" in names_read({"headers": webhook.get("headers") or {}})
    return {
        "inputs": definition.get("inputs") or {},
        "secrets": definition.get("secrets") or {},
        "tasks": step_rows.results_of(using, watched.job.pk) if reads_results else {},
        "job": {"id": watched.job.pk.hex, "name": definition.get("name") or ""},
    }
