"""Look at the queues of a cluster, create them, pause and resume them."""

from __future__ import annotations

from argparse import Namespace

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from clusters.management.base import UsageError, operator
from jobs.api.serializers import queue_to_json
from jobs.errors import DuplicateQueue, QueueNotFound
from jobs.management.base import JobsCommand
from jobs.models import Queue


class Command(JobsCommand):
    help = "Look at the queues of a cluster, create them, pause and resume them."

    def add_verbs(self) -> None:
        self.verb("list", self.list, "all queues")
        self.verb("show", self.show_queue, "one queue").add_argument("name")
        create = self.verb("create", self.create, "make a queue")
        create.add_argument("name")
        create.add_argument("--description", default="")
        pause = self.verb("pause", self.pause, "let nodes take nothing more from a queue")
        pause.add_argument("name")
        pause.add_argument("--reason", default="")
        self.verb("resume", self.resume, "let nodes take from it again").add_argument("name")

    def list(self, asked: Namespace) -> None:
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
        queue = Queue(name=asked.name, description=asked.description)
        try:
            queue.clean_fields()
            # A transaction of its own: the refusal must not spoil one around us.
            with transaction.atomic(using=Queue.objects.db):
                queue.save(force_insert=True)
        except ValidationError as error:
            field, messages = next(iter(error.message_dict.items()))
            raise UsageError(f"{field}: {messages[0]}", field=field) from None
        except IntegrityError:
            raise DuplicateQueue(f"queue {asked.name!r} exists") from None
        self._show(find(asked.name))

    def pause(self, asked: Namespace) -> None:
        queue = find(asked.name)
        limit = Queue._meta.get_field("pause_reason").max_length
        if len(asked.reason) > (limit or 0):
            raise UsageError(f"--reason may have {limit} characters", field="reason")
        rows = Queue.objects.filter(pk=queue.pk).pause(by=operator(), reason=asked.reason)  # type: ignore[attr-defined]
        if not rows:
            self.say("It was paused before; nothing has changed.")
        self._show(find(asked.name))

    def resume(self, asked: Namespace) -> None:
        queue = find(asked.name)
        if not Queue.objects.filter(pk=queue.pk).resume():  # type: ignore[attr-defined]
            self.say("It was not paused; nothing has changed.")
        self._show(find(asked.name))

    def _show(self, queue: Queue) -> None:
        document = queue_to_json(queue)
        self.show(document, lambda: self.print_record(document))


def find(name: str) -> Queue:
    try:
        return Queue.objects.get(name=name)
    except Queue.DoesNotExist:
        raise QueueNotFound(f"there is no queue {name[:100]!r}") from None
