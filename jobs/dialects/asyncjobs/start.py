"""The queue of tasks that name none, and what a server makes sure of when it starts."""

from __future__ import annotations

from django.conf import settings

from jobs.dialects.asyncjobs.wire.queues import IMPLICIT, IMPLICIT_POLICIES
from jobs.errors import DuplicateQueue
from jobs.models import Queue
from jobs.models.queue import DEFAULT_QUEUE, QueueQuerySet


def task_queue() -> str:
    """The queue that was named for this, else the original's where it may be made, else the cluster's."""
    named: str = settings.ASYNCJOBS_QUEUE
    return named or (IMPLICIT if settings.ASYNCJOBS_ALLOW_DEFAULT else DEFAULT_QUEUE)


def prepare_queue() -> str | None:
    """Make the implicit queue of the bound cluster; says what is wrong where another is not there."""
    name = task_queue()
    queues: QueueQuerySet = Queue.objects.all()
    if queues.named(name).exists():
        return None
    if name != IMPLICIT or not settings.ASYNCJOBS_ALLOW_DEFAULT:
        return f"there is no queue {name[:100]!r} for the tasks of asyncjobs clients"
    try:
        queues.create_queue(name, **IMPLICIT_POLICIES)
    except DuplicateQueue:
        return None  # another server was faster
    return None
