"""Keep queues, calendars, schedules and workflows of a cluster in files: export, plan, apply."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.db import router

from clusters.csv_text import printable
from clusters.management.base import (
    CONFLICT,
    CommandFailed,
    NotFound,
    UsageError,
    operator,
)
from jobs.definitions import document, plan, stored, text
from jobs.definitions.changes import CHANGE, CREATE, DELETE, Change, Outcome
from jobs.definitions.document import Definitions, InvalidDefinitions
from jobs.management.base import JobsCommand
from jobs.models import Schedule

ENVIRONMENT = "YARDMASTER_ENVIRONMENT"
MARKS = {CREATE: "+", CHANGE: "~"}
MAX_SHOWN = 200
# What `plan` ends with where something differs.
DIFFERS = CONFLICT


class _Invalid(UsageError):
    """All that is wrong with files, each with its place."""

    def __init__(self, error: InvalidDefinitions) -> None:
        super().__init__(str(error), field=error.field)
        self._problems = error.problems

    def problem(self) -> dict[str, Any]:
        errors = [{"field": p.path, "code": "invalid", "message": p.text} for p in self._problems]
        return {**super().problem(), "errors": errors}


class Command(JobsCommand):
    help = (
        "Keep queues, calendars, schedules and workflows of a cluster in YAML files. Payloads are "
        "written as they are stored: keep secrets out of them, or the files to yourself."
    )

    def add_verbs(self) -> None:
        self.verb(
            "export",
            self.export,
            "write what the cluster has, where it differs from the defaults, to stdout; payloads as "
            "they are stored, secrets in them included",
        )
        compare = self.verb(
            "plan",
            self.plan,
            f"show what apply would change; exit code 0: nothing, {DIFFERS}: something, 2: the files "
            "are wrong",
        )
        _add_files(compare)
        bring = self.verb(
            "apply", self.apply, "let the cluster be as the files say, or change nothing"
        )
        _add_files(bring)
        bring.add_argument("--yes", action="store_true", help="do not ask")
        bring.add_argument("--dry-run", action="store_true", help="only show what would change")

    def failure(self, error: Exception) -> CommandFailed | None:
        if isinstance(error, InvalidDefinitions):
            return _Invalid(error)
        return super().failure(error)

    def export(self, asked: Namespace) -> None:
        found, remarks = stored.export(router.db_for_read(Schedule))
        for remark in remarks:
            self.say(remark)
        written = found.to_document()
        self.show(written, lambda: self.stdout.write(text.write(written), ending=""))

    def plan(self, asked: Namespace) -> None:
        outcome = plan.plan(_read(asked.files), **_options(asked))
        self._show(outcome)
        if outcome.changes:
            self.stdout.flush()
            sys.exit(DIFFERS)

    def apply(self, asked: Namespace) -> None:
        wanted = _read(asked.files)
        if asked.dry_run or not asked.yes:
            outcome = plan.plan(wanted, **_options(asked))
            if asked.dry_run or not outcome.changes:
                self._show(outcome)
                return
            for line in _lines(outcome):
                self.say(line)
            self.confirm(f"Make {_count(outcome)}?", is_confirmed=False)
        self._show(plan.apply(wanted, **_options(asked)))

    def _show(self, outcome: Outcome) -> None:
        for remark in outcome.remarks:
            self.say(remark)
        said = {
            "changes": [one.to_json() for one in outcome.changes],
            "remarks": outcome.remarks,
        }
        self.show(said, lambda: self.stdout.write("\n".join(_lines(outcome))))


def _add_files(parser: ArgumentParser) -> None:
    parser.add_argument("files", nargs="+", metavar="FILE", help="YAML; - is standard input")
    parser.add_argument(
        "--environment",
        metavar="NAME",
        help="whose word holds in `enabled: {production: true, default: false}`; "
        f"default: {ENVIRONMENT}",
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="delete schedules and workflows that came from files and are in none of these",
    )


def _options(asked: Namespace) -> dict[str, Any]:
    return {
        "by": operator(),
        "environment": asked.environment or os.environ.get(ENVIRONMENT) or None,
        "prune": asked.prune,
    }


def _read(files: list[str]) -> Definitions:
    documents = []
    for name in files:
        try:
            if name == "-":
                data = sys.stdin.read(text.MAX_BYTES + 1)
            else:
                with Path(name).open(encoding="utf-8") as file:
                    data = file.read(text.MAX_BYTES + 1)
            documents.append((name, text.read(data)))
        except FileNotFoundError:
            raise NotFound(f"there is no file {name!r}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{name}: cannot be read: {error}", field="files") from None
        except text.Unreadable as error:
            raise UsageError(f"{name}: {error}", field="files") from None
    return document.merge(documents)


def _lines(outcome: Outcome) -> list[str]:
    if not outcome.changes:
        return ["nothing differs"]
    return [line for change in outcome.changes for line in _told(change)]


def _told(change: Change) -> list[str]:
    mark = MARKS.get(change.action, "-")
    lines = [f"{mark} {change.section.removesuffix('s')} {printable(change.name)}"]
    for name, (old, new) in change.fields.items():
        shown = _value(new) if change.action == CREATE else f"{_value(old)} -> {_value(new)}"
        lines.append(f"    {name}: {shown}")
    return lines


def _value(value: Any) -> str:
    if value is None or value == []:
        return "(none)"
    if value == "":
        # No bytes at all are a payload, too, and another one than none.
        return '""'
    shown = value if isinstance(value, str) else _json(value)
    shown = " ".join(printable(shown).split())
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _count(outcome: Outcome) -> str:
    counted: Mapping[str, int] = {
        action: sum(one.action == action for one in outcome.changes)
        for action in (CREATE, CHANGE, DELETE)
    }
    return ", ".join(f"{n} to {action}" for action, n in counted.items() if n)
