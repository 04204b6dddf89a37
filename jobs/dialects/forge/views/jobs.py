"""Jobs: lists, one of them, and new ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from django.http import HttpResponse
from rest_framework.request import Request

from clusters.models import Node
from clusters.surfaces import reply
from jobs import listing
from jobs.dialects.forge.views.base import ForgeView, find_queue
from jobs.dialects.forge.wire.jobs import (
    DEFAULT_ATTEMPTS,
    MAX_LIMIT,
    inspect_to_wire,
    new_job_from_wire,
    page_from_wire,
    parse_id,
    row_to_wire,
)
from jobs.dialects.forge.wire.words import FAILED, asked_of
from jobs.engine.enqueue import enqueue
from jobs.engine.new_job import NewJob
from jobs.errors import JobNotFound
from jobs.handlers import NOOP_ECHO
from jobs.job_kinds import kinds
from jobs.models import Attempt, Job
from jobs.models.job_queryset import JobQuerySet
from jobs.models.queue import DEFAULT_QUEUE
from jobs.payload_search import listed_ids, newest_ids
from jobs.states import State

MAX_SCHEDULED = 500
MAX_HISTORY = 32
# What rows do not show.
_HEAVY = ("payload", "payload_bytes", "result", "metadata", "tags")


class JobView(ForgeView):
    verbs = {
        "list": "jobs.read",
        "failed": "jobs.read",
        "kinds": "jobs.read",
        "scheduled": "jobs.read",
        "inspect": "jobs.read",
        "enqueue": "jobs.enqueue",
        "enqueue_demo": "jobs.enqueue",
    }

    def list(self, request: Request, **_: Any) -> HttpResponse:
        page = page_from_wire(self.body())
        if page.payload_holds is None:
            total = listing.count(self.using, page.asked)["count"]
            # Past the end nothing is looked for.
            last = min(page.offset + page.limit, total)
            ids = listed_ids(self.using, page.asked, last) if page.offset < total else []
        else:
            ids = newest_ids(self.using, page.asked, page.payload_holds)
            total = len(ids)
        rows = self._rows(ids[page.offset : page.offset + page.limit])
        return reply({"rows": rows, "total": total, "limit": page.limit, "offset": page.offset})

    def failed(self, request: Request, **_: Any) -> HttpResponse:
        limit = self.query().number("limit", 1, MAX_LIMIT)
        return reply(self._rows(listed_ids(self.using, asked_of([FAILED]), limit)))

    def kinds(self, request: Request, **_: Any) -> HttpResponse:
        name = self.query().text("queue_name")
        if name is not None:
            find_queue(name)
        return reply(kinds(self.using, name))

    def scheduled(self, request: Request, **_: Any) -> HttpResponse:
        name = self.query().text("queue_name")
        rows = _jobs().filter(state=State.SCHEDULED, attempts=0)
        if name is not None:
            rows = rows.filter(queue=find_queue(name).name)
        jobs = rows.defer(*_HEAVY).order_by("run_at", "pk")[:MAX_SCHEDULED]
        return reply([row_to_wire(job, {}) for job in jobs])

    def inspect(self, request: Request, job_id: str, **_: Any) -> HttpResponse:
        job = find_job(job_id)
        tried = Attempt.objects.filter(job_id=job.pk, error__isnull=False).order_by("-fence")
        history = list(tried[:MAX_HISTORY])[::-1]
        return reply(inspect_to_wire(job, _heartbeats([job]), history))

    def enqueue(self, request: Request, **_: Any) -> HttpResponse:
        return self._enqueue(new_job_from_wire(self.body()))

    def enqueue_demo(self, request: Request, **_: Any) -> HttpResponse:
        payload = self.body().raw("payload")
        return self._enqueue(
            NewJob(
                type=NOOP_ECHO,
                payload=payload,
                queue=DEFAULT_QUEUE,
                max_attempts=DEFAULT_ATTEMPTS,
            )
        )

    def _enqueue(self, new: NewJob) -> HttpResponse:
        return reply(str(enqueue(new, by=self.principal.actor).job_id))

    def _rows(self, ids: Sequence[UUID]) -> Any:
        found = _jobs().filter(pk__any_of=ids).defer(*_HEAVY) if ids else ()
        jobs = {job.pk: job for job in found}
        heartbeats = _heartbeats(jobs.values())
        return [row_to_wire(jobs[pk], heartbeats) for pk in ids if pk in jobs]


def _jobs() -> JobQuerySet:
    jobs: JobQuerySet = Job.objects.all()
    return jobs


def find_job(job_id: str) -> Job:
    """One job of the bound cluster; what is no id of ours is as missing as an unknown one."""
    key = parse_id(job_id)
    job = _jobs().filter(pk=key).first() if key else None
    if job is None:
        raise JobNotFound
    return job


def _heartbeats(jobs: Any) -> Mapping[UUID, datetime]:
    """When the nodes that hold these jobs were last heard of."""
    ids = {job.node_id for job in jobs if job.state == State.RUNNING}
    if not ids:
        return {}
    return dict(Node.objects.filter(pk__in=ids).values_list("pk", "heartbeat_at"))
