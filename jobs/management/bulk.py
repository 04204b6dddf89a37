"""`manage.py jobs bulk`: ask for bulk operations, follow them, stop them. The nodes do the work."""

from __future__ import annotations

import re
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from django.db.models.functions import Now
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from clusters.management.base import CommandFailed, UsageError, duration, operator
from clusters.models import Node
from config.problems import InvalidInput
from jobs.api.bulk_wire import dry_run_to_json, operation_to_json
from jobs.api.filters import read_pairs
from jobs.engine import bulk
from jobs.filter_text import MAX_LINE, LineError, pairs_of
from jobs.management.base import JobsCommand
from jobs.models import BulkAction, BulkOperation, BulkStatus
from jobs.models.bulk_operation import OPEN

MAX_LISTED = 50
_EQUALS = re.compile(r"([a-z_]+)=(.*)\Z", re.DOTALL)


class BulkVerbs(JobsCommand):
    """The verbs about bulk operations, for the command about jobs."""

    def add_bulk_verbs(self) -> None:
        parser = self.verb("bulk", self.bulk, "let the nodes act on all jobs that match a filter")
        parser.add_argument("--action", required=True, choices=BulkAction.values, metavar="ACTION")
        add_line(parser)
        parser.add_argument("--all", action="store_true", help="every job, instead of a filter")
        parser.add_argument("--reason", default="", help="why; kept with the operation")
        _add_arguments(parser)
        parser.add_argument("--dry-run", action="store_true", help="only say what it is about")
        parser.add_argument("--wait", action="store_true", help="follow it to its end")
        self.verb("bulk-list", self.bulk_list, "the newest bulk operations")
        stop = self.verb("bulk-stop", self.bulk_stop, "stop a bulk operation before its next batch")
        stop.add_argument("id", type=operation_id)

    def bulk(self, asked: Namespace) -> None:
        words = {"all": True, **line_words(asked.filter)} if asked.all else line_words(asked.filter)
        given = {
            "queue": asked.to_queue,
            "priority": asked.priority,
            "spread_seconds": asked.spread,
            "limit": asked.limit,
        }
        arguments = {name: value for name, value in given.items() if value is not None}
        if asked.dry_run:
            document = dry_run_to_json(bulk.dry_run(asked.action, words, arguments))
            self.show(document, lambda: self._print_dry_run(document))
            return
        operation = bulk.request(
            asked.action, words, reason=asked.reason, by=operator(), arguments=arguments
        )
        has_node = Node.objects.all().alive().filter(lease_until__gt=Now()).exists()
        if not has_node:
            self.say("No node is live on this cluster; the operation begins when one is.")
        if asked.wait and has_node:
            operation = self._follow(operation)
        self._show_operation(operation)
        if operation.status in (BulkStatus.FAILED, BulkStatus.CANCELLED):
            raise CommandFailed(operation.error or f"it was stopped by {operation.cancelled_by}")
        if asked.wait and not has_node:
            raise CommandFailed("there is no live node to wait for", code="no_live_node")

    def bulk_list(self, asked: Namespace) -> None:
        found = [*BulkOperation.objects.order_by("-created_at", "-id")[:MAX_LISTED]]
        self.show(
            {"items": [operation_to_json(one) for one in found], "next": None, "previous": None},
            lambda: self.print_table(
                ("id", "action", "filter", "status", "seen", "by", "created", "reason"),
                (
                    (
                        str(one.pk),
                        one.action,
                        one.filter,
                        one.status,
                        one.seen,
                        one.requested_by,
                        one.created_at,
                        one.reason,
                    )
                    for one in found
                ),
            ),
        )

    def bulk_stop(self, asked: Namespace) -> None:
        self._show_operation(bulk.cancel(asked.id, by=operator()))

    def _follow(self, operation: BulkOperation) -> BulkOperation:
        """The operation once it has ended. Ctrl-C ends the following, not the operation."""
        pause = 0.05
        with self._bar() as draw:
            while operation.status in OPEN:
                draw(operation)
                time.sleep(pause)
                pause = min(pause * 1.5, 1.0)
                operation.refresh_from_db()
        return operation

    @contextmanager
    def _bar(self) -> Iterator[Callable[[BulkOperation], None]]:
        console = self.progress_console()
        if not console.is_terminal:
            yield lambda operation: None
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("", total=None)

            def draw(operation: BulkOperation) -> None:
                progress.update(
                    task,
                    description=f"{operation.action}: {operation.seen} jobs",
                    completed=operation.seen,
                    total=operation.expected,
                )

            yield draw

    def _show_operation(self, operation: BulkOperation) -> None:
        document = operation_to_json(operation)
        self.show(document, lambda: self.print_record(document))

    def _print_dry_run(self, document: dict[str, Any]) -> None:
        count = document["count"]
        number = "More than could be counted" if count is None else f"{count}"
        at_least = "" if document["is_exact"] or count is None else "at least "
        by_state = ", ".join(f"{n} {state}" for state, n in document["by_state"].items())
        self.stdout.write(f"{at_least}{number} jobs match" + (f": {by_state}" if by_state else ""))
        if document["eligible"] not in (None, count):
            self.stdout.write(f"{document['eligible']} of them would be done")
        if document["sample"]:
            self.print_table(
                ("id", "state", "type", "queue"),
                ((j["id"], j["state"], j["type"], j["queue"]) for j in document["sample"]),
            )


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--to-queue", metavar="QUEUE", help="for move")
    parser.add_argument("--priority", type=int, help="for set_priority")
    parser.add_argument(
        "--spread",
        type=duration,
        metavar="10m",
        help="for retry: each job at a moment of its own within this time",
    )
    parser.add_argument("--limit", type=int, help="only the oldest so many that the action is for")


def add_line(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        type=condition,
        metavar="WORDS",
        help="as on the screen, such as 'state:failed queue:mail'; several must all be true",
    )


def condition(text: str) -> list[tuple[str, str]]:
    """The words of a line such as ``state:failed queue:mail``, or of ``state=failed``."""
    if match := _EQUALS.match(text):
        return [(match[1], match[2])]
    try:
        pairs = pairs_of(text[: MAX_LINE + 1])
    except LineError as error:
        raise ArgumentTypeError(f"{error.word!r}: {error.message}") from None
    if not pairs or len(text) > MAX_LINE:
        raise ArgumentTypeError(f"{text[:60]!r} is no condition such as state:failed")
    return pairs


def operation_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise ArgumentTypeError(f"{text[:60]!r} is no id of an operation") from None


def line_words(conditions: list[list[tuple[str, str]]]) -> dict[str, Any]:
    try:
        return read_pairs(pair for pairs in conditions for pair in pairs)
    except InvalidInput as error:
        first = error.errors[0]
        raise UsageError(f"{first.field}: {first.message}", field=f"filter.{first.field}") from None
