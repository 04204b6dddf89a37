"""What has not ended: jobs that run, and those that wait for steps, each other, or their time."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

from clusters.models import Node
from jobs.demo.play import Trouble, Work
from jobs.demo.rows import JobRow
from jobs.demo.stage import Actor, Stage
from jobs.executors import IO, KINDS, PROCESS
from jobs.models import JobDependency, Step, StepsListing, StepsRun
from jobs.states import Outcome, State

# Of the full day.
AHEAD, RETRYING, BLOCKED, RUNNING_PER_NODE = 180, 24, 36, 4
STEPS_DONE, STEPS_FAILED, STEPS_OPEN = 14, 2, 3


# How many jobs each node has in each pool.
Held = Counter[tuple[UUID, str]]


def write(stage: Stage) -> None:
    held: Held = Counter()
    _backlogs(stage)
    _ahead(stage)
    _retrying(stage)
    parents = _running(stage, held)
    _blocked(stage, parents)
    _steps(stage, held)
    for actor in stage.actors:
        in_processes, io = held[actor.pk, PROCESS], held[actor.pk, IO]
        row = Node.objects.using(stage.using).filter(pk=actor.pk)
        row.update(running_jobs=in_processes + io, running_io_jobs=io)


def _backlogs(stage: Stage) -> None:
    """Ready jobs: since the pause where a queue is paused, else of the last seconds."""
    for line in stage.play.queues:
        works = [work for work in stage.play.works if work.queue == line.name and work.share >= 1]
        since = line.paused_for or timedelta(seconds=20)
        for _ in range(stage.some(line.backlog) if line.backlog else 0):
            stage.job(works[0], stage.between(stage.now - since, stage.ago(seconds=1)))


def _ahead(stage: Stage) -> None:
    """Jobs whose time has yet to come."""
    for number in range(stage.some(AHEAD)):
        work = stage.play.works[number % 3]
        due = stage.now + timedelta(minutes=stage.random.uniform(3, 1200))
        at = stage.between(stage.ago(hours=6), stage.now)
        stage.job(work, at, state=State.SCHEDULED.value, run_at=due)


def _retrying(stage: Stage) -> None:
    """Jobs that failed a moment ago and will be tried again."""
    retried = [one for one in stage.play.troubles if one.recovered]
    for number in range(stage.some(RETRYING)):
        trouble = retried[number % len(retried)]
        work = stage.play.work(trouble.type)
        at = stage.between(stage.ago(minutes=4), stage.ago(minutes=1))
        job = stage.job(work, at)
        stage.attempt(
            job,
            at + stage.takes(0.05),
            stage.takes(work.seconds, 0.2),
            Outcome.FAILED,
            trouble=trouble,
            is_last=False,
        )
        job.state = State.SCHEDULED.value
        job.run_at = stage.now + timedelta(seconds=stage.random.uniform(40, 600))


def _running(stage: Stage, held: Held) -> list[UUID]:
    """What the living nodes are busy with; one that drains has a little left."""
    resting = {line.name for line in stage.play.queues if line.paused_for is not None}
    works = [work for work in stage.play.works if work.seconds >= 0.3 and work.queue not in resting]
    slow = max(works, key=lambda work: work.seconds)
    parents = []
    for actor in stage.living:
        number = 2 if actor.drains else RUNNING_PER_NODE
        for place in range(number):
            work = slow if place == 0 else stage.random.choice(works)
            ran = timedelta(seconds=min(stage.random.uniform(0.2, 0.9) * work.seconds, 280.0))
            job = stage.job(work, stage.now - ran - timedelta(seconds=1), has_dependants=place == 0)
            _hold(stage, job, actor, ran, held)
            if place == 0:
                job.progress_percent = round(stage.random.uniform(20, 80), 1)
                job.progress_note = f"page {stage.random.randrange(3, 60)} of 75"
                parents.append(job.id)
            stage.says(job, stage.now - ran, *(work.lines or ("begun",)))
    return parents


def _hold(stage: Stage, job: JobRow, actor: Actor, ran: timedelta, held: Held) -> None:
    job.state, job.attempts, job.fence = State.RUNNING.value, 1, 1
    job.node_id, job.started_at = actor.pk, stage.now - ran
    stage.started(job)
    held[actor.pk, KINDS[job.kind].pool] += 1


def _blocked(stage: Stage, parents: list[UUID]) -> None:
    """Jobs that wait for one that runs."""
    edges = []
    work = stage.play.works[-2]
    for number in range(stage.some(BLOCKED)):
        at = stage.between(stage.ago(seconds=50), stage.now)
        job = stage.job(work, at, state=State.BLOCKED.value, pending_dependencies=1)
        edges.append(JobDependency(child_id=job.id, parent_id=parents[number % len(parents)]))
    JobDependency.objects.using(stage.using).bulk_create(edges)


# -- Jobs made of steps ----------------------------------------------------------------------------


def _steps(stage: Stage, held: Held) -> None:
    for _ in range(stage.some(STEPS_DONE)):
        _steps_of(stage, held, "succeeded")
    for _ in range(stage.some(STEPS_FAILED)):
        _steps_of(stage, held, "failed")
    for _ in range(stage.some(STEPS_OPEN)):
        _steps_of(stage, held, "waiting")


def _steps_of(stage: Stage, held: Held, how: str) -> None:
    """A job of three steps: all went well, the second failed, or the second runs."""
    name = f"Onboard tenant t-{stage.random.randrange(1, 41):02d}"
    works = [work for work in stage.play.works if work.kind == "python"][:3]
    definition = {
        "name": name,
        "description": "From the contract to the first letter",
        "steps": [
            {
                "name": label,
                "kind": "python",
                "type": work.type,
                "payload": work.payload(stage.random),
            }
            for label, work in zip(("prepare", "check", "announce"), works, strict=True)
        ],
    }
    is_open = how == "waiting"
    begun = stage.ago(seconds=90) if is_open else stage.between(stage.begun, stage.ago(minutes=20))
    whole = Work(
        "onboard:tenant", works[0].queue, 0, 4.0, "user:oncall", lambda c: definition, kind="steps"
    )
    parent = stage.job(whole, begun)
    actor = stage.node_at(begun)
    # It was claimed, and waits for its steps without a slot.
    parent.attempts = parent.fence = 1
    parent.node_id, parent.started_at = actor.pk, begun + timedelta(milliseconds=40)
    about: dict[str, Any] = {"job_id": parent.id, "created_at": begun}
    texts = {"name": name, "description": str(definition["description"])}
    run = StepsRun(**about, **texts, state={"phase": "finally"})
    at = begun + timedelta(milliseconds=60)
    if is_open:
        stage.started(parent)
        parent.state, parent.progress_percent = State.WAITING.value, 33.33
        run.state, run.open_steps = {}, 1
        run.stop_by = stage.now + timedelta(seconds=parent.timeout_seconds)
    else:
        _close(stage, parent, at + timedelta(seconds=9), how == "succeeded")
    parent_id = parent.id
    steps = []
    for index, work in enumerate(works if how == "succeeded" else works[:2]):
        step = stage.job(work, at, has_dependants=True, enqueued_by="user:oncall", max_attempts=1)
        if index == 1 and is_open:
            idlest = min(stage.living, key=lambda one: held[one.pk, PROCESS])
            _hold(stage, step, idlest, stage.now - at, held)
        else:
            failed = _trouble_of(stage, work) if index == 1 and how == "failed" else None
            outcome = Outcome.FAILED if failed else Outcome.SUCCEEDED
            took = stage.takes(0.8, 0.2)
            at = stage.attempt(step, at + timedelta(milliseconds=30), took, outcome, trouble=failed)
        label = str(definition["steps"][index]["name"])  # type: ignore[index]
        steps.append(
            Step(
                job_id=step.id,
                parent_id=parent_id,
                root_id=parent_id,
                key=str(index),
                name=label,
                position=index + 1,
                index=index,
                created_at=step.created_at,
            )
        )
    rows = stage.using
    StepsRun.objects.using(rows).bulk_create([run])
    StepsListing.objects.using(rows).bulk_create([StepsListing(**about, **texts)])
    Step.objects.using(rows).bulk_create(steps)


def _trouble_of(stage: Stage, work: Work) -> Trouble:
    return next(one for one in stage.play.troubles if one.type == work.type)


def _close(stage: Stage, parent: JobRow, at: Any, is_well: bool) -> None:
    """The end of a job made of steps: its one try was the whole of it."""
    begun = parent.started_at
    assert begun is not None
    parent.attempts = parent.fence = 0
    parent.node_id = None
    outcome = Outcome.SUCCEEDED if is_well else Outcome.FAILED
    actor = stage.node_at(begun)
    if is_well:
        stage.attempt(parent, begun, at - begun, outcome, actor=actor)
        return
    parent.attempts = parent.fence = 0
    stage.attempt(parent, begun, at - begun, outcome, actor=actor)
    parent.error = "step 'check' failed"
