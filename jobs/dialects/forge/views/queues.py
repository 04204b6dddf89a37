"""Queues and workers, and what may be set of a queue."""

from __future__ import annotations

from collections import Counter
from typing import Any

from django.http import HttpResponse
from rest_framework.request import Request

from clusters.deeds import differences
from clusters.models import current_policy
from clusters.surfaces import reply
from jobs import depths, fleet, queue_counts
from jobs.dialects.forge.views.base import ForgeView, empty, find_queue, queues
from jobs.dialects.forge.wire.queues import (
    NOTHING,
    processes_to_wire,
    queue_to_wire,
    seconds_of_days,
    workers_to_wire,
)
from jobs.dialects.forge.wire.reading import refuse
from jobs.engine.prune import Pruner
from jobs.states import State

MAX_WORKERS = 64
MAX_DAYS = 3653
MAX_BACKOFF_SECONDS = 86_400
CLEANUP_SECONDS = 10.0
# Of two hundred queues their columns are felt.
_NOT_SHOWN = (
    *("description", "paused_by", "paused_at", "resume_at", "default_priority", "overflow"),
    *("default_timeout_seconds", "default_max_attempts", "max_age_seconds", "max_entries"),
    *("created_at", "version"),
)
REASON = "paused over the forge API"


class QueueView(ForgeView):
    verbs = {
        "overview": "queues.read",
        "processes": "nodes.read",
        "workers": "nodes.read",
        "cleanup": "jobs.delete",
        "max_workers": "queues.change",
        "paused": "queues.pause",
        "retention": "queues.change",
        "backoff": "queues.change",
    }

    def overview(self, request: Request, **_: Any) -> HttpResponse:
        using, policy = self.using, current_policy()
        rows = list(queues().defer(*_NOT_SHOWN).order_by("name"))
        there = fleet.Fleet.read(using)
        held = fleet.held(using)
        slots = processes_to_wire(
            filter(there.is_heard_of, there.nodes), [queue.name for queue in rows], held
        )
        counted = queue_counts.counts(using, policy, rows)
        oldest = depths.oldest_ready(using)
        return reply(
            [
                queue_to_wire(
                    queue,
                    counted.get(queue.name, NOTHING),
                    oldest.get(queue.name),
                    slots[queue.name],
                    there,
                    policy,
                )
                for queue in rows
            ]
        )

    def processes(self, request: Request, **_: Any) -> HttpResponse:
        name = self.query().text("queue_name")
        named = queues().order_by("name") if name is None else [find_queue(name)]
        there = fleet.Fleet.read(self.using)
        slots = processes_to_wire(
            there.nodes, [queue.name for queue in named], fleet.held(self.using, name)
        )
        return reply([slot for of_queue in slots.values() for slot in of_queue])

    def workers(self, request: Request, **_: Any) -> HttpResponse:
        rows = list(queues().order_by("name"))
        return reply(workers_to_wire(fleet.Fleet.read(self.using), rows))

    def cleanup(self, request: Request, **_: Any) -> HttpResponse:
        policy = current_policy()
        deleted = Pruner().sweep(self.using, policy, CLEANUP_SECONDS, self._told_cleanup)
        if not deleted.total():
            self._told_cleanup(State.SUCCEEDED, 0)
        return reply(_deleted_to_wire(deleted))

    def _told_cleanup(self, state: State, count: int) -> None:
        """The trace of a batch; it is many transactions, so that none of them holds all jobs."""
        with self.deed("cluster", self.kwargs["cluster_id"]) as trace:
            trace.after = _deleted_to_wire(Counter({state: count}))

    def max_workers(self, request: Request, name: str, **_: Any) -> HttpResponse:
        number = self.body().number("n", 0, MAX_WORKERS)
        with self.deed("queue", name) as trace:
            before = find_queue(name).policies()
            queues().named(name).limit_workers(number, by=self.principal.actor)
            trace.after = {"max_workers": 0}
            if number:
                trace.before, trace.after = differences(before, {"max_concurrency": number})
        return empty()

    def paused(self, request: Request, name: str, **_: Any) -> HttpResponse:
        wanted = self.body().boolean("paused")
        find_queue(name)
        rows, by = queues().named(name), self.principal.actor
        # Which verb that is depends on what is wanted; the domain knows both, and tells of them.
        rows.set_paused(wanted, by=by, reason=REASON)
        return empty()

    def retention(self, request: Request, name: str, **_: Any) -> HttpResponse:
        body = self.body()
        return self._change(
            name,
            retain_succeeded_seconds=seconds_of_days(body.number("done_days", 0, MAX_DAYS)),
            retain_failed_seconds=seconds_of_days(body.number("dead_days", 0, MAX_DAYS)),
        )

    def backoff(self, request: Request, name: str, **_: Any) -> HttpResponse:
        body = self.body()
        is_enabled = body.boolean("enabled")
        base = body.number("base_seconds", 1, MAX_BACKOFF_SECONDS)
        cap = body.number("max_seconds", 1, MAX_BACKOFF_SECONDS)
        if base > cap:
            refuse("base_seconds", "Must not be above max_seconds.")
        return self._change(
            name,
            is_backoff_enabled=is_enabled,
            retry_base_seconds=float(base),
            retry_cap_seconds=float(cap),
        )

    def _change(self, name: str, **policies: Any) -> HttpResponse:
        before = find_queue(name)
        with self.deed("queue", name) as trace:
            trace.before, trace.after = differences(before.policies(), policies)
            if not queues().named(name).change(**policies):
                find_queue(name)  # deleted since we looked
        return empty()


def _deleted_to_wire(deleted: Counter[State]) -> dict[str, int]:
    done = deleted[State.SUCCEEDED]
    return {"done_deleted": done, "dead_deleted": deleted.total() - done}
