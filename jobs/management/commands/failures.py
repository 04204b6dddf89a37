"""Look at the failures of a cluster, in groups of those that are alike, and say what they are."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from datetime import timedelta
from typing import Any

from django.db import connections

from clusters.binding import current_cluster
from clusters.management.base import UsageError, Verb, duration, operator
from jobs import failure_figures
from jobs.api.failures import DETAIL_HOURS, failure_detail_to_json, failure_to_json
from jobs.engine.clock import database_now
from jobs.errors import FailureNotFound
from jobs.management.base import JobsCommand
from jobs.models import Failure, Mark

MAX_LIMIT = 1000


class Command(JobsCommand):
    help = "Look at the failures of a cluster, in groups of those that are alike, and say what they are."

    def add_verbs(self) -> None:
        listing = self.verb("list", self.list_failures, "groups of failures, the newest first")
        listing.add_argument("--queue", help="the latest was of this queue")
        listing.add_argument("--type", help="the latest was of this type")
        listing.add_argument(
            "--since", type=duration, metavar="AGE", help="seen within, such as 2h"
        )
        listing.add_argument("--limit", type=int, default=50, metavar="N", help="default: 50")
        listing.add_argument("--mark", choices=Mark.values, help="what the group is said to be")
        self.verb("show", self.show_failure, "one group").add_argument("fingerprint")
        self._about_one("known", self.mark_known, "somebody knows of it")
        muted = self._about_one("mute", self.mute, "it makes no alert and is no trouble")
        muted.add_argument(
            "--for", dest="lasts", type=duration, metavar="TIME", help="such as 8h; else for good"
        )
        self._about_one("unmute", self.mark_known, "it counts again")
        own = self._about_one("own", self.own, "whose it is, and where that is written down")
        own.add_argument("--owner", help="a name; empty: nobody")
        own.add_argument("--ticket", metavar="URL", help="an address; empty: none")

    def _about_one(self, name: str, run: Verb, help: str) -> ArgumentParser:  # noqa: A002
        parser = self.verb(name, run, help)
        parser.add_argument("fingerprint")
        parser.add_argument("--reason", default="", help="kept in the audit")
        return parser

    def list_failures(self, asked: Namespace) -> None:
        if not 1 <= asked.limit <= MAX_LIMIT:
            raise UsageError(f"--limit is between 1 and {MAX_LIMIT}", field="limit")
        groups = Failure.objects.order_by("-last_seen_at", "-fingerprint")
        if asked.queue is not None:
            groups = groups.filter(queue=asked.queue)
        if asked.type is not None:
            groups = groups.filter(type=asked.type)
        if asked.mark is not None:
            groups = groups.filter(mark=asked.mark)
        if asked.since is not None:
            now = database_now(connections[groups.db])
            groups = groups.filter(last_seen_at__gte=now - timedelta(seconds=asked.since))
        rows = list(groups[: asked.limit])
        recent = failure_figures.recent_failures(groups.db, [row.fingerprint for row in rows])
        cluster_id = current_cluster().id
        items = [failure_to_json(row, recent[row.fingerprint], cluster_id) for row in rows]
        self.show(
            {"items": items, "next": None, "previous": None},
            lambda: self.print_table(
                (
                    "fingerprint",
                    "mark",
                    "1 h",
                    "24 h",
                    "all",
                    "last seen",
                    "queue",
                    "error",
                    "message",
                    "where",
                ),
                (
                    (
                        row.fingerprint,
                        row.mark,
                        recent[row.fingerprint].in_1_hour,
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

    def mark_known(self, asked: Namespace) -> None:
        self._say(asked, mark=Mark.KNOWN)

    def mute(self, asked: Namespace) -> None:
        until = None
        if asked.lasts is not None:
            now = database_now(connections[Failure.objects.all().db])
            until = now + timedelta(seconds=asked.lasts)
        self._say(asked, mark=Mark.MUTED, until=until)

    def own(self, asked: Namespace) -> None:
        if asked.owner is None and asked.ticket is None:
            raise UsageError("--owner or --ticket", field="owner")
        self._say(asked, owner=asked.owner, ticket=asked.ticket)

    def _say(self, asked: Namespace, **said: Any) -> None:
        groups = Failure.objects.all()
        self._show(
            groups.annotate_group(
                asked.fingerprint[:17], by=operator(), reason=asked.reason, **said
            )
        )

    def show_failure(self, asked: Namespace) -> None:
        row = Failure.objects.filter(pk=asked.fingerprint[:17]).first()
        if row is None:
            raise FailureNotFound(f"there is no group {asked.fingerprint[:100]!r}")
        self._show(row)

    def _show(self, row: Failure) -> None:
        using = Failure.objects.all().db
        recent = failure_figures.recent_failures(using, [row.fingerprint])[row.fingerprint]
        hours = failure_figures.failure_hours(using, row.fingerprint, DETAIL_HOURS)
        document = failure_detail_to_json(row, recent, hours, current_cluster().id)
        record = {name: value for name, value in document.items() if name != "hours"}
        self.show(document, lambda: self.print_record(record))
