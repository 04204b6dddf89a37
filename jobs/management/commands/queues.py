"""Look at the queues of a cluster, make them, change their policies, pause, purge and delete them."""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import Any

from clusters.management.base import UsageError, duration, moment, operator
from jobs.api.bulk_wire import dry_run_to_json
from jobs.api.queue_wire import queue_detail_to_json, queue_to_json
from jobs.engine import purge
from jobs.errors import QueueNotFound
from jobs.management.bulk import BulkVerbs
from jobs.models import Queue
from jobs.models.queue import QueueQuerySet
from jobs.models.queue_policies import POLICIES, Policy
from jobs.queue_load import load_of
from jobs.states import UNSTARTED

NO_LIMIT = "none"


class Command(BulkVerbs):
    help = (
        "Look at the queues of a cluster, make them, change their policies, pause and resume them."
    )

    def add_verbs(self) -> None:
        self.verb("list", self.list_queues, "all queues")
        self.verb("show", self.show_queue, "one queue and its load").add_argument("name")
        create = self.verb("create", self.create, "make a queue")
        create.add_argument("name")
        add_policies(create)
        change = self.verb("change", self.change, "change the policies of a queue")
        change.add_argument("name")
        add_policies(change)
        self._add_pause()
        self.verb("resume", self.resume, "let nodes take from it again").add_argument("name")
        self._add_purge()
        delete = self.verb("delete", self.delete, "delete a queue whose jobs have all ended")
        delete.add_argument("name")
        delete.add_argument("--yes", action="store_true", help="do not ask")

    def list_queues(self, asked: Namespace) -> None:
        queues = [*Queue.objects.order_by("name")]
        self.show(
            {"items": [queue_to_json(q) for q in queues], "next": None, "previous": None},
            lambda: self.print_table(
                ("name", "paused", "until", "reason", "concurrency", "rate", "description"),
                (
                    (
                        q.name,
                        q.is_paused,
                        q.resume_at,
                        q.pause_reason,
                        q.max_concurrency,
                        q.rate_limit and f"{q.rate_limit} / {q.rate_period_seconds:g} s",
                        q.description,
                    )
                    for q in queues
                ),
            ),
        )

    def show_queue(self, asked: Namespace) -> None:
        queue = find(asked.name)
        document = queue_detail_to_json(queue, load_of(queue))
        flat = {name: value for name, value in document.items() if name != "load"}
        self.show(document, lambda: self.print_record({**flat, **document["load"]}))

    def create(self, asked: Namespace) -> None:
        self._show(queues().create_queue(asked.name, **policies(asked)))

    def change(self, asked: Namespace) -> None:
        if not policies(asked):
            raise UsageError("change what? Give an option such as --max-concurrency 4")
        queues().named(asked.name).change(**policies(asked))
        self._show(find(asked.name))

    def _add_pause(self) -> None:
        parser = self.verb("pause", self.pause, "let nodes take nothing more from a queue")
        parser.add_argument("name")
        parser.add_argument("--reason", default="")
        end = parser.add_mutually_exclusive_group()
        end.add_argument("--until", type=moment, metavar="TIME", help="resume by itself then")
        end.add_argument("--for", type=duration, metavar="2h", dest="seconds", help="so long")

    def pause(self, asked: Namespace) -> None:
        queues().named(asked.name).pause(
            by=operator(),
            reason=asked.reason,
            resume_at=asked.until,
            resume_in_seconds=asked.seconds,
        )
        self._show(find(asked.name))

    def resume(self, asked: Namespace) -> None:
        queue = queues().named(asked.name)
        if not queue.resume() and queue.exists():
            self.say("It was not paused; nothing has changed.")
        self._show(find(asked.name))

    def _add_purge(self) -> None:
        parser = self.verb("purge", self.purge, "cancel all jobs that wait in a queue")
        parser.add_argument("name")
        parser.add_argument("--state", action="append", choices=[str(one) for one in UNSTARTED])
        parser.add_argument("--reason", default="", help="why; kept with the bulk operation")
        parser.add_argument("--dry-run", action="store_true", help="only say what it is about")
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def purge(self, asked: Namespace) -> None:
        if asked.dry_run:
            found = dry_run_to_json(purge.dry_run(asked.name, states=asked.state))
            self.show(found, lambda: self._print_dry_run(found))
            return
        queue = find(asked.name)
        self.confirm(f"Cancel what waits in queue {queue.name}?", is_confirmed=asked.yes)
        self._show_operation(
            purge.purge(queue.name, states=asked.state, reason=asked.reason, by=operator())
        )

    def delete(self, asked: Namespace) -> None:
        queue = find(asked.name)
        self.confirm(f"Delete queue {queue.name}?", is_confirmed=asked.yes)
        queue.delete_unused()
        self.show({"deleted": 1}, lambda: self.stdout.write(f"{queue.name} deleted"))

    def _show(self, queue: Queue) -> None:
        document = queue_to_json(queue)
        self.show(document, lambda: self.print_record(document))


# -- Arguments -------------------------------------------------------------------------------------


def add_policies(parser: ArgumentParser) -> None:
    """An option for each policy: `--max-age 2h` is `max_age_seconds`, `none` takes a limit away."""
    for name, policy in POLICIES.items():
        option = name.removeprefix("is_").removesuffix("_enabled").removesuffix("_seconds")
        parser.add_argument(
            f"--{option.replace('_', '-')}",
            dest=name,
            # Only what was said is changed.
            default=SUPPRESS,
            type=reader(name, policy),
            metavar=word(name, policy),
            help=policy.about.replace("`", "").replace("null:", f"{NO_LIMIT}:"),
        )


def policies(asked: Namespace) -> dict[str, Any]:
    return {name: getattr(asked, name) for name in POLICIES if hasattr(asked, name)}


def reader(name: str, policy: Policy) -> Callable[[str], Any]:
    """How an option is read; what a queue may have is the model's to say."""

    def read(text: str) -> Any:
        if policy.is_nullable and text == NO_LIMIT:
            return None
        if policy.kind is bool:
            return yes_or_no(text)
        if policy.kind is int:
            return whole(text)
        return duration(text) if name.endswith("_seconds") else text

    return read


def word(name: str, policy: Policy) -> str:
    if policy.choices:
        return "|".join(policy.choices)
    if policy.kind is bool:
        return "yes|no"
    if policy.kind is str:
        return "TEXT"
    return "2h" if name.endswith("_seconds") else "N"


def yes_or_no(text: str) -> bool:
    if text not in ("yes", "no"):
        raise ArgumentTypeError(f"{text[:40]!r} is neither yes nor no")
    return text == "yes"


def whole(text: str) -> int:
    try:
        return int(text[:20])
    except ValueError:
        raise ArgumentTypeError(f"{text[:40]!r} is no whole number") from None


# -- Queues ----------------------------------------------------------------------------------------


def queues() -> QueueQuerySet:
    rows: QueueQuerySet = Queue.objects.all()
    return rows


def find(name: str) -> Queue:
    queue = queues().named(name).first()
    if queue is None:
        raise QueueNotFound(f"there is no queue {name[:100]!r}")
    return queue
