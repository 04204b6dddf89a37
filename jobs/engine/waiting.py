"""Why is it waiting? All that keeps a job from running now, each with a code, a sentence and figures.

What a claim would look at is looked at here with a handful of indexed queries: the job itself, its queue,
the nodes and who is before it. The answer is of one moment and changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import connections
from django.db.models import OuterRef, Q, Subquery
from django.db.models.functions import Now

from clusters.models import RESTORED, ClusterSetting, Load, Node, NodeStatus
from clusters.policy import ACTIVE
from jobs import registry
from jobs.engine.clock import database_now
from jobs.engine.limits import rate_limited_until
from jobs.executors import CONDUCTOR, KINDS
from jobs.models import (
    Job,
    JobDependency,
    Needs,
    Queue,
    Schedule,
    ScheduleDependency,
    Status,
    Step,
    StepsRun,
)
from jobs.states import FINAL, State, WaitsFor

# Beyond these, counting stops and says so.
MAX_COUNTED = 1000
MAX_PARENTS_NAMED = 10
MAX_NODES = 1000


@dataclass(frozen=True, slots=True)
class Reason:
    """``code`` is stable, ``message`` is for people, ``data`` holds its figures, names and moments."""

    code: str
    message: str
    data: dict[str, Any] = field(default_factory=dict)


_OF_STEPS = ("job_id", "name", "job__state")


def why_waiting(job: Job) -> list[Reason]:
    """Everything that keeps this job from running now; at least one reason."""
    if job.state in FINAL:
        return [_finished(job)]
    if job.state == State.RUNNING:
        return [*_running(job)]
    if job.state == State.WAITING:
        return [*_steps(job)]
    using = job._state.db or "default"
    queues: Any = Queue.objects.using(using).filter(name=job.queue)
    queue = queues.annotate(now=Now()).first()
    now = database_now(connections[using]) if queue is None else queue.now
    live = [*Node.objects.using(using).alive().filter(lease_until__gt=now)[:MAX_NODES]]
    reasons = [
        *_cluster(using),
        *_own(job, now),
        *_queue(using, job, queue, now),
        *_nodes(live, job),
    ]
    if job.state == State.READY:
        reasons += _ahead(using, job, live, now)
    if all(reason.code == "expires" for reason in reasons):
        told = "Nothing holds it up: a node takes it the next time it looks."
        reasons.append(Reason("next", told))
    return reasons


def _finished(job: Job) -> Reason:
    why = f" ({job.reason})" if job.reason else ""
    told = f"It has ended as {job.state}{why}."
    if job.is_held:
        told += " It is held for a person, who retries or deletes it; nobody else does."
    data = {
        "state": str(job.state),
        "reason": job.reason,
        "is_held": job.is_held,
        "finished_at": job.finished_at,
    }
    return Reason("finished", told, data)


def _running(job: Job) -> Iterator[Reason]:
    data = {"node_id": job.node_id, "since": job.started_at}
    yield Reason("running", f"It is running, since {_moment(job.started_at)}.", data)
    if job.cancel_requested_at is not None:
        told = f"It was asked to stop at {_moment(job.cancel_requested_at)}."
        yield Reason("cancel_requested", told, {"since": job.cancel_requested_at})


def _steps(job: Job) -> Iterator[Reason]:
    using = job._state.db or "default"
    steps = Step.objects.using(using).filter(parent_id=job.pk, job__finished_at=None)
    rows = list(steps.order_by("position", "index")[:MAX_PARENTS_NAMED].values_list(*_OF_STEPS))
    for pk, name, state in rows:
        told = f"It waits for its step {name!r}, job {pk}, which is {state}."
        yield Reason("step", told, {"job_id": pk, "name": name, "state": state})
    run = StepsRun.objects.using(using).filter(pk=job.pk).first()
    if run is not None and run.open_steps > len(rows):
        told = f"It waits for {run.open_steps - len(rows)} more step(s)."
        yield Reason("steps", told, {"count": run.open_steps})
    if run is not None and run.state.get("waits"):
        yield Reason("queue_full", f"Its next step finds no room: {run.state['waits']}.")
    if job.cancel_requested_at is not None:
        told = f"It was asked to stop at {_moment(job.cancel_requested_at)}."
        yield Reason("cancel_requested", told, {"since": job.cancel_requested_at})
    if not rows:
        yield Reason("steps", "Its steps have ended; a node takes it on the next time it looks.")


def _cluster(using: str) -> Iterator[Reason]:
    wanted = ClusterSetting.objects.using(using).filter(name__in=(RESTORED, "mode"))
    settings = {setting.name: setting for setting in wanted}
    mark, mode = settings.get(RESTORED), settings.get("mode")
    if mark is not None:
        told = "The cluster was restored from a backup; no job starts until somebody confirms."
        data = {"since": mark.updated_at, "by": mark.updated_by}
        yield Reason("cluster_restored", told, data)
    if mode is not None and mode.value != ACTIVE:
        told = f"The cluster is {mode.value}: its jobs are kept, and none starts."
        data = {"since": mode.updated_at, "by": mode.updated_by}
        yield Reason("cluster_not_active", told, data)


# -- The job ---------------------------------------------------------------------------------------


def _own(job: Job, now: datetime) -> Iterator[Reason]:
    if job.state == State.BLOCKED:
        # What its schedule lets it wait for counts as one.
        if parents := job.pending_dependencies - (job.waits_for is not None):
            yield from _dependencies(job, parents)
        yield from _held_back(job)
    if job.run_at > now and job.state != State.READY:
        again = f"Attempt {job.attempts + 1}" if job.attempts else "It"
        told = f"{again} is not due until {_moment(job.run_at)}."
        yield Reason("not_due", told, {"until": job.run_at, "attempts": job.attempts})
    for code, at, told in (
        ("expired", job.expires_at, "It was not started before it expired at {} and will fail."),
        ("overdue", job.deadline_at, "Its deadline was {}; it will fail."),
    ):
        if at is not None and at <= now:
            yield Reason(code, told.format(_moment(at)), {"since": at})
    ends = [at for at in (job.expires_at, job.deadline_at) if at is not None]
    if ends and min(ends) > now:
        told = f"It fails if it has not started by {_moment(min(ends))}."
        yield Reason("expires", told, {"until": min(ends)})


def _dependencies(job: Job, number: int) -> Iterator[Reason]:
    edges = JobDependency.objects.using(job._state.db).filter(child_id=job.pk, satisfied_at=None)
    parent = Job.objects.filter(pk=OuterRef("parent_id"))
    edges = edges.annotate(
        state=Subquery(parent.values("state")[:1]), type=Subquery(parent.values("type")[:1])
    )
    rows = list(edges.order_by("parent_id")[:MAX_PARENTS_NAMED])
    for row in rows:
        state, type_ = row.state, row.type
        what = f"({type_}), which is {state}" if state else "which is gone"
        enough = ", or for another of which one is enough" if row.needs == Needs.ANY else ""
        data = {"job_id": row.parent_id, "state": state, "type": type_, "needs": row.needs}
        yield Reason("dependency", f"It waits for job {row.parent_id} {what}{enough}.", data)
    more = number - len(rows)
    if more > 0:
        told = f"It waits for {more} more job(s)."
        yield Reason("dependencies", told, {"count": number})


def _held_back(job: Job) -> Iterator[Reason]:
    """What its schedule lets it wait for, beside other jobs."""
    using = job._state.db
    if job.waits_for == WaitsFor.RUN:
        before = Job.objects.using(using).filter(schedule_id=job.schedule_id, finished_at=None)
        before = before.filter(workflow_run_id=None, waits_for=None).order_by("created_at", "pk")
        runs = [str(pk) for pk in before.values_list("pk", flat=True)[:MAX_PARENTS_NAMED]]
        told = "It waits for the run before it to end"
        shown = f": job {', '.join(runs)}" if runs else ""
        data = {"schedule_id": job.schedule_id, "job_ids": runs}
        yield Reason("run_before", f"{told}{shown}.", data)
    elif job.waits_for == WaitsFor.SCHEDULES and job.schedule_id is not None:
        edges = ScheduleDependency.objects.using(using).filter(schedule_id=job.schedule_id)
        edges = edges.select_related("schedule", "prerequisite")
        if rows := list(edges.order_by("prerequisite__name", "prerequisite_id")):
            yield _prerequisites(rows[0].schedule, [row.prerequisite for row in rows])
        else:
            told = (
                "It waited for other schedules, which its own no longer needs; upkeep lets it go."
            )
            yield Reason("schedules", told, {"schedule_id": job.schedule_id, "schedules": []})


def _prerequisites(schedule: Schedule, prerequisites: Sequence[Schedule]) -> Reason:
    since = schedule.dependencies_since
    missing = [
        one
        for one in prerequisites
        if one.last_succeeded_at is None or (since is not None and one.last_succeeded_at <= since)
    ]
    shown = ", ".join(f"{one.name!r}{_stopped(one)}" for one in missing[:MAX_PARENTS_NAMED])
    how = "any of" if schedule.needs == Needs.ANY else "each of"
    after = f" after {_moment(since)}" if since is not None else ""
    told = f"Its schedule waits for {how} these schedules to succeed{after}: {shown}."
    gone = [one for one in missing if one.deleted_at is not None]
    if gone and (schedule.needs == Needs.ALL or len(gone) == len(missing)):
        told += " What is deleted never succeeds: restore it, or let the schedule depend on others."
    data = {
        "schedule_id": schedule.pk,
        "needs": str(schedule.needs),
        "since": since,
        "schedules": [one.name for one in missing],
        "schedule_ids": [one.pk for one in missing],
    }
    return Reason("schedules", told, data)


def _stopped(schedule: Schedule) -> str:
    """Why one would be waited for in vain."""
    return "" if schedule.status == Status.ENABLED else f" ({schedule.status})"


# -- The queue -------------------------------------------------------------------------------------


def _queue(using: str, job: Job, queue: Queue | None, now: datetime) -> Iterator[Reason]:
    if queue is None:
        yield Reason("queue_missing", f"There is no queue {job.queue}.", {"queue": job.queue})
        return
    if queue.is_paused:
        yield _paused(queue)
    if queue.max_concurrency is not None:
        held = Job.objects.using(using).filter(state=State.RUNNING, queue=queue.name)
        running = held[: queue.max_concurrency].count()
        if running >= queue.max_concurrency:
            told = f"The queue {queue.name} runs {running} of at most {queue.max_concurrency} jobs."
            figures = {"queue": queue.name, "running": running, "limit": queue.max_concurrency}
            yield Reason("concurrency_full", told, figures)
    if (until := rate_limited_until(queue, now)) is not None:
        yield Reason(
            "rate_limited",
            f"The queue {queue.name} starts {queue.rate_limit} job(s) in "
            f"{queue.rate_period_seconds:g} s; the next not before {_moment(until)}.",
            {
                "queue": queue.name,
                "limit": queue.rate_limit,
                "period_seconds": queue.rate_period_seconds,
                "until": until,
            },
        )


def _paused(queue: Queue) -> Reason:
    told = f"The queue {queue.name} was paused by {queue.paused_by} at {_moment(queue.paused_at)}"
    if queue.pause_reason:
        told += f" ({queue.pause_reason})"
    if queue.resume_at is not None:
        told += f", until {_moment(queue.resume_at)}"
    data = {
        "queue": queue.name,
        "by": queue.paused_by,
        "reason": queue.pause_reason or None,
        "since": queue.paused_at,
        "until": queue.resume_at,
    }
    return Reason("queue_paused", f"{told}.", data)


# -- The nodes -------------------------------------------------------------------------------------


def _nodes(live: Sequence[Node], job: Job) -> Iterator[Reason]:
    """The first thing that no node has, or that those lack which have all before it."""
    about = {"queue": job.queue, "kind": job.kind, "type": job.type}
    if not live:
        yield Reason("no_node", "No node is running.")
        return
    nodes = [node for node in live if _serves(node, job.queue)]
    if not nodes:
        yield Reason("queue_not_served", f"No running node serves the queue {job.queue}.", about)
        return
    nodes = [node for node in nodes if job.kind in node.kinds]
    if not nodes:
        yield Reason("kind_unknown", f"No node that serves its queue runs {job.kind} jobs.", about)
        return
    if job.kind == registry.KIND:
        nodes = [node for node in nodes if job.type in node.types]
        if not nodes:
            told = f"No node that serves its queue knows the type {job.type}."
            yield Reason("type_unknown", told, about)
            return
    draining = [node for node in nodes if _drains(node)]
    nodes = [node for node in nodes if not _drains(node)]
    if not nodes:
        told = "All nodes that could run it are draining and take nothing new."
        yield Reason("nodes_draining", told, {"nodes": [node.pk for node in draining[:10]]})
        return
    # Who conducts steps needs no place for that.
    pool = KINDS[job.kind].pool
    loads = [node.loads[pool] for node in nodes] if pool != CONDUCTOR else []
    # A node of an older version does not tell how many places it has for io.
    if loads and all(0 < load.places <= load.running for load in loads):
        yield _busy(loads)


def _serves(node: Node, queue: str) -> bool:
    return node.queues is None or queue in node.queues


def _drains(node: Node) -> bool:
    return node.status != NodeStatus.LIVE or node.drain_requested_at is not None


def _busy(loads: Sequence[Load]) -> Reason:
    running, places = sum(load.running for load in loads), sum(load.places for load in loads)
    told = f"All {len(loads)} node(s) that could run it are busy: {running} of {places} places."
    figures = {"nodes": len(loads), "running": running, "places": places}
    return Reason("nodes_busy", told, figures)


# -- Those ahead -----------------------------------------------------------------------------------


def _ahead(using: str, job: Job, live: Sequence[Node], now: datetime) -> Iterator[Reason]:
    """Ready jobs of its queue and kind that are claimed first.

    A claim steps over what is too late, and over types that its node does not know: nobody waits for
    those. Where no node takes such jobs at all, the first that does begins with those in front.
    """
    before = Q(priority__lt=job.priority) | Q(
        Q(run_at__lt=job.run_at) | Q(run_at=job.run_at, pk__lt=job.pk), priority=job.priority
    )
    ready = Job.objects.using(using).filter(
        state=State.READY,
        queue=job.queue,
        kind=job.kind,
    )
    nodes = [node for node in live if _serves(node, job.queue) and not _drains(node)]
    nodes = [node for node in nodes if job.kind in node.kinds]
    known = None
    if nodes and job.kind == registry.KIND:
        known = {job.type}.union(*(node.types for node in nodes))
    first = ready.filter(before, priority__lte=job.priority)[: MAX_COUNTED + 1]
    # Tested here: no index knows these, and a statement would go through all that are ready.
    seen = [*first.values_list("type", "expires_at", "deadline_at")]
    ahead = sum(
        (known is None or type_ in known)
        and all(end is None or end > now for end in (expires_at, deadline_at))
        for type_, expires_at, deadline_at in seen
    )
    if ahead:
        is_exact = len(seen) <= MAX_COUNTED
        number = f"{ahead}" if is_exact else f"at least {ahead}"
        if ahead > MAX_COUNTED:
            number = f"more than {MAX_COUNTED}"
        told = f"It waits behind {number} job(s) of its queue that come first."
        yield Reason("behind", told, {"count": min(ahead, MAX_COUNTED), "is_exact": is_exact})


def _moment(moment: datetime | None) -> str:
    return "an unknown time" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S} UTC"
