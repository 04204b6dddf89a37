"""What is done to jobs, to one or many.

What is about many is done by the same verbs as everywhere, the oldest jobs first, as far as one request
goes, see ``jobs.engine.bounded``; the answer says how many.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any, cast
from uuid import UUID

from django.db import connections
from django.http import HttpResponse
from rest_framework.request import Request

from clusters.surfaces import reply
from jobs.dialects.forge.views.base import ForgeView, find_queue
from jobs.dialects.forge.views.jobs import find_job
from jobs.dialects.forge.wire.jobs import ids_from_wire, status_from_wire
from jobs.dialects.forge.wire.reading import Body
from jobs.dialects.forge.wire.words import DEAD, DONE, FAILED, asked_of
from jobs.engine import bounded
from jobs.engine.clock import database_now
from jobs.engine.started_kinds import barred_kinds, check_rows, not_granted
from jobs.models import Job
from jobs.models.job_queryset import JobQuerySet
from jobs.states import State

MAX_DAYS = 36_500
ENDED = (DONE, DEAD)
# Of many dead jobs that are retried each is due at a moment of its own within this time.
SPREAD_SECONDS = 300.0


class MoveView(ForgeView):
    verbs = {
        "run_now": "jobs.run_now",
        "retry": "jobs.retry",
        "retry_all_failed": "jobs.retry",
        "retry_all_by_status": "jobs.retry",
        "delete": "jobs.delete",
        "delete_done_older_than": "jobs.delete",
        "delete_by_status": "jobs.delete",
    }

    def run_now(self, request: Request, job_id: str, **_: Any) -> HttpResponse:
        job = find_job(job_id)
        self._check_kinds([job.pk])
        # What is due already has nothing to be done to it, and is pending.
        is_due = job.state == State.READY
        with self.deed("job", job.pk) as trace:
            # What waits for its next attempt is not pending here; `retry` is its word.
            changed = bool(_only(job.pk).filter(attempts=0).run_now()) or is_due
            trace.after = {"run_now": changed}
        return reply(changed)

    def retry(self, request: Request, **_: Any) -> HttpResponse:
        ids = ids_from_wire(self.body())
        self._check_kinds(ids)
        told = partial(self._told, ids=len(ids))
        count = bounded.over_ids(self.using, ids, _retry_now, JobQuerySet.retry, told=told)
        return _counted(count, told)

    def retry_all_failed(self, request: Request, **_: Any) -> HttpResponse:
        return self._retry_all(FAILED)

    def retry_all_by_status(self, request: Request, **_: Any) -> HttpResponse:
        return self._retry_all(status_from_wire(self.body(), (FAILED, DEAD)))

    def delete(self, request: Request, **_: Any) -> HttpResponse:
        ids = ids_from_wire(self.body())
        told = partial(self._told, ids=len(ids))
        # What ends by the cancel was open: it is deleted when it is asked for again.
        verbs = (JobQuerySet.delete_final, JobQuerySet.cancel)
        return _counted(bounded.over_ids(self.using, ids, *verbs, told=told), told)

    def delete_done_older_than(self, request: Request, **_: Any) -> HttpResponse:
        body = self.body()
        days = body.number("days", 0, MAX_DAYS)
        asked = {**asked_of([DONE]), **_of_queue(body)}
        now = database_now(connections[self.using])
        asked["finished_before"] = now - timedelta(days=days)
        told = partial(self._told, days=days, queue_name=asked.get("queue"))
        count = bounded.over_filter(self.using, asked, JobQuerySet.delete_final, told=told)
        return _counted(count, told)

    def delete_by_status(self, request: Request, **_: Any) -> HttpResponse:
        body = self.body()
        status = status_from_wire(body)
        asked = {**asked_of([status]), **_of_queue(body)}
        verb = JobQuerySet.delete_final if status in ENDED else JobQuerySet.cancel
        told = partial(self._told, status=status, queue_name=asked.get("queue"))
        return _counted(bounded.over_filter(self.using, asked, verb, told=told), told)

    def _retry_all(self, status: str) -> HttpResponse:
        asked, verb = asked_of([status]), cast(bounded.Verb, _retry_now)
        if status == DEAD:
            # What is held waits for a person who looks at it.
            asked, verb = {**asked, "is_held": False}, _Retry()
        barred = barred_kinds(self.using)
        told = partial(self._told, status=status)
        left_out: set[str] = set()
        count = bounded.over_filter(
            self.using, asked, verb, told=told, barred_kinds=barred, left_out=left_out.add
        )
        if left_out:
            # The answer is a number and has no room for it.
            self.tell_refusal(not_granted(min(left_out)))
        return _counted(count, told)

    def _check_kinds(self, ids: list[UUID]) -> None:
        """All of them before the first is touched."""
        for start in range(0, len(ids), bounded.BATCH):
            check_rows(Job.objects.filter(pk__any_of=ids[start : start + bounded.BATCH]))

    def _told(self, count: int, **asked: Any) -> None:
        """The trace of a batch; it is many transactions, so that none of them holds all jobs."""
        with self.deed("jobs") as trace:
            trace.count, trace.after = count, {**asked, "count": count}


def _counted(count: int, told: bounded.Told) -> HttpResponse:
    if not count:
        # That it was asked for is told too.
        told(0)
    return reply(count)


def _only(pk: UUID) -> JobQuerySet:
    jobs: JobQuerySet = Job.objects.filter(pk=pk)
    return jobs


def _retry_now(jobs: JobQuerySet) -> int:
    """Let what waits for its next attempt have it now."""
    return jobs.filter(attempts__gt=0).run_now()


class _Retry:
    """Retries the first batch now, and what goes beyond it over some time: it would be a flood."""

    def __init__(self) -> None:
        self._retried = 0

    def __call__(self, jobs: JobQuerySet) -> int:
        is_flood = self._retried >= bounded.BATCH
        retried = jobs.retry(spread_seconds=SPREAD_SECONDS if is_flood else None)
        self._retried += retried
        return retried


def _of_queue(body: Body) -> dict[str, Any]:
    name = body.text("queue_name")
    return {} if name is None else {"queue": find_queue(name).name}
