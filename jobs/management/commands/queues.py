"""Look at the queues of a cluster, create them, pause and resume them."""

from __future__ import annotations

from argparse import Namespace

from django.core.exceptions import ValidationError
from django.db import IntegrityError, router, transaction

from clusters.management.base import UsageError, operator
from jobs.api.serializers import queue_to_json
from jobs.errors import DuplicateQueue, QueueNotFound
from jobs.management.base import JobsCommand
from jobs.models import Queue
from jobs.models.queue import QUEUE_NAME


class Command(JobsCommand):
    help = "Look at the queues of a cluster, create them, pause and resume them."

    def add_verbs(self) -> None:
        self.verb("list", self.list_queues, "all queues")
        self.verb("show", self.show_queue, "one queue").add_argument("name")
        create = self.verb("create", self.create, "make a queue")
        create.add_argument("name")
        create.add_argument("--description", default="")
        pause = self.verb("pause", self.pause, "let nodes take nothing more from a queue")
        pause.add_argument("name")
        pause.add_argument("--reason", default="")
        self.verb("resume", self.resume, "let nodes take from it again").add_argument("name")

    def list_queues(self, asked: Namespace) -> None:
        queues = [*Queue.objects.order_by("name")]
        self.show(
            {"items": [queue_to_json(q) for q in queues], "next": None, "previous": None},
            lambda: self.print_table(
                ("name", "paused", "paused by", "reason", "description"),
                ((q.name, q.is_paused, q.paused_by, q.pause_reason, q.description) for q in queues),
            ),
        )

    def show_queue(self, asked: Namespace) -> None:
        self._show(find(asked.name))

    def create(self, asked: Namespace) -> None:
        from jobs.api.queues import RESERVED_NAMES  # late: all of the API comes with it

        try:
            QUEUE_NAME(asked.name)
        except ValidationError as error:
            raise UsageError(f"a name has {error.message}", field="name") from None
        if asked.name in RESERVED_NAMES:
            raise UsageError("this name is part of an address of the API", field="name")
        check_length("description", asked.description)
        try:
            # A transaction of its own: the refusal must not spoil one around us.
            with transaction.atomic(using=router.db_for_write(Queue)):
                queue = Queue.objects.create(name=asked.name, description=asked.description)
        except IntegrityError:
            raise DuplicateQueue(f"queue {asked.name!r} exists", field="name") from None
        self._show(queue)

    def pause(self, asked: Namespace) -> None:
        queue = find(asked.name)
        check_length("pause_reason", asked.reason)
        rows = Queue.objects.filter(pk=queue.pk).pause(by=operator(), reason=asked.reason)
        if not rows:
            self.say("It was paused before; nothing has changed.")
        self._show(find(asked.name))

    def resume(self, asked: Namespace) -> None:
        queue = find(asked.name)
        if not Queue.objects.filter(pk=queue.pk).resume():
            self.say("It was not paused; nothing has changed.")
        self._show(find(asked.name))

    def _show(self, queue: Queue) -> None:
        document = queue_to_json(queue)
        self.show(document, lambda: self.print_record(document))


def check_length(column: str, text: str) -> None:
    limit = getattr(Queue._meta.get_field(column), "max_length", None) or 0
    if len(text) > limit:
        raise UsageError(f"{column} may have {limit} characters", field=column)


def find(name: str) -> Queue:
    try:
        return Queue.objects.get(name=name)
    except Queue.DoesNotExist:
        raise QueueNotFound(f"there is no queue {name[:100]!r}") from None
