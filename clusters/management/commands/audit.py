"""Read the audit: who did what to a cluster, or to users, keys and roles."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from typing import Any

from django.apps import apps

from clusters.audit import MAX_EXPORTED, csv_lines, entry_to_json, newest
from clusters.management.base import (
    OperatorCommand,
    UsageError,
    check_database_is_there,
    moment,
)
from clusters.models import TRACE_WORDS, AuditEntry, TraceQuerySet
from clusters.routers import CONTROL

SHOWN = ("at", "actor", "surface", "verb", "target_type", "target_id", "count", "reason")
DEFAULT_LIMIT, MAX_LIMIT = 50, 1000


class Command(OperatorCommand):
    help = "Who did what to a cluster, and with --access to users, API keys and roles."

    def add_verbs(self) -> None:
        listed = self.verb("list", self.list_entries, "what was done, the newest first")
        listed.add_argument(
            "--limit", type=int, default=DEFAULT_LIMIT, help=f"1 to {MAX_LIMIT}, default 50"
        )
        self._add_words(listed)
        export = self.verb("export", self.export, "all columns as CSV, the newest first")
        self._add_words(export)

    def _add_words(self, parser: ArgumentParser) -> None:
        for name in TRACE_WORDS:
            # `verb` is what was typed, `list` or `export`.
            dest = f"word_{name}"
            parser.add_argument(f"--{name.replace('_', '-')}", dest=dest, metavar="TEXT")
        parser.add_argument("--since", type=moment, metavar="TIME", help="done then or later")
        parser.add_argument("--until", type=moment, metavar="TIME", help="done before then")
        parser.add_argument(
            "--access",
            action="store_true",
            help="what was done to users, groups, API keys and roles, which belong to no cluster",
        )

    def list_entries(self, asked: Namespace) -> None:
        if not 1 <= asked.limit <= MAX_LIMIT:
            raise UsageError(f"--limit must be between 1 and {MAX_LIMIT}", field="limit")
        entries = [*newest(_rows(asked), asked.limit)]
        items = [entry_to_json(entry) for entry in entries]
        rows = (
            [item[name] if name != "verb" else entry.what for name in SHOWN]
            for entry, item in zip(entries, items, strict=True)
        )
        self.show({"items": items}, lambda: self.print_table(SHOWN, rows))

    def export(self, asked: Namespace) -> None:
        if self.format not in ("table", "csv"):
            raise UsageError("an export is CSV; `list` has JSON and YAML", field="output")
        lines = -1
        for line in csv_lines(_rows(asked)):
            self.stdout.write(line, ending="")
            lines += 1
        if lines >= MAX_EXPORTED:
            self.say(f"Cut off after {MAX_EXPORTED} rows; go on with --until.")

    def _bound(self, asked: Namespace) -> Any:
        # What is in the control database is asked for without any cluster.
        self.acts_on_cluster = not asked.access
        return super()._bound(asked)


def _rows(asked: Namespace) -> TraceQuerySet:
    values = {name: getattr(asked, f"word_{name}") for name in TRACE_WORDS}
    values |= {"since": asked.since, "until": asked.until}
    values = {name: value for name, value in values.items() if value is not None}
    rows: TraceQuerySet
    if asked.access:
        check_database_is_there(CONTROL)
        rows = apps.get_model("authn", "AccessAuditEntry")._default_manager.all()
    else:
        rows = AuditEntry.objects.all()
    return rows.matching(values)
