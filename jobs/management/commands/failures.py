"""Look at the failures of a cluster, in groups of those that are alike."""

from __future__ import annotations

from argparse import Namespace
from datetime import timedelta

from django.db import connections

from clusters.binding import current_cluster
from clusters.management.base import UsageError, duration
from jobs import metrics
from jobs.api.failures import DETAIL_HOURS, failure_detail_to_json, failure_to_json
from jobs.engine.clock import database_now
from jobs.errors import FailureNotFound
from jobs.management.base import JobsCommand
from jobs.models import Failure

MAX_LIMIT = 1000


class Command(JobsCommand):
    help = "Look at the failures of a cluster, in groups of those that are alike."

    def add_verbs(self) -> None:
        listing = self.verb("list", self.list_failures, "groups of failures, the newest first")
        listing.add_argument("--queue", help="the latest was of this queue")
        listing.add_argument("--type", help="the latest was of this type")
        listing.add_argument(
            "--since", type=duration, metavar="AGE", help="seen within, such as 2h"
        )
        listing.add_argument("--limit", type=int, default=50, metavar="N", help="default: 50")
        self.verb("show", self.show_failure, "one group").add_argument("fingerprint")

    def list_failures(self, asked: Namespace) -> None:
        if not 1 <= asked.limit <= MAX_LIMIT:
            raise UsageError(f"--limit is between 1 and {MAX_LIMIT}", field="limit")
        groups = Failure.objects.order_by("-last_seen_at", "-fingerprint")
        if asked.queue is not None:
            groups = groups.filter(queue=asked.queue)
        if asked.type is not None:
            groups = groups.filter(type=asked.type)
        if asked.since is not None:
            now = database_now(connections[groups.db])
            groups = groups.filter(last_seen_at__gte=now - timedelta(seconds=asked.since))
        rows = list(groups[: asked.limit])
        recent = metrics.recent_failures(groups.db, [row.fingerprint for row in rows])
        cluster_id = current_cluster().id
        items = [failure_to_json(row, recent[row.fingerprint], cluster_id) for row in rows]
        self.show(
            {"items": items, "next": None, "previous": None},
            lambda: self.print_table(
                ("fingerprint", "24 h", "all", "last seen", "queue", "error", "message", "where"),
                (
                    (
                        row.fingerprint,
                        recent[row.fingerprint].in_24_hours,
                        row.count,
                        row.last_seen_at,
                        row.queue,
                        row.error_type,
                        row.message,
                        row.frame,
                    )
                    for row in rows
                ),
            ),
        )

    def show_failure(self, asked: Namespace) -> None:
        row = Failure.objects.filter(pk=asked.fingerprint[:17]).first()
        if row is None:
            raise FailureNotFound(f"there is no group {asked.fingerprint[:100]!r}")
        using = Failure.objects.all().db
        recent = metrics.recent_failures(using, [row.fingerprint])[row.fingerprint]
        hours = metrics.failure_hours(using, row.fingerprint, DETAIL_HOURS)
        document = failure_detail_to_json(row, recent, hours, current_cluster().id)
        record = {name: value for name, value in document.items() if name != "hours"}
        self.show(document, lambda: self.print_record(record))
