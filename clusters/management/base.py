"""What operators type: `manage.py NOUN VERB`.

One base class for all such commands: which cluster is meant, how results and errors are shown, and
the exit codes. Data goes to stdout and everything else to stderr; under ``-o json`` data has the
shape of the native API, and an error is a problem object.
"""

from __future__ import annotations

import getpass
import io
import json
import os
import re
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import yaml
from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser
from django.db import DatabaseError, InterfaceError, OperationalError, connections
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clusters.acting import COMMAND, Acting, acting_as
from clusters.binding import cluster_bound
from clusters.csv_text import csv_line, formula_safe, printable
from clusters.routers import CONTROL
from jobs.executors import GRANTED_KINDS

DONE, FAILED, USAGE, NOT_FOUND, CONFLICT, UNREACHABLE = range(6)
INTERRUPTED = 130
# The HTTP status that goes with each exit code in a problem object.
_STATUS = {
    FAILED: (500, "Failed"),
    USAGE: (400, "Bad Request"),
    NOT_FOUND: (404, "Not Found"),
    CONFLICT: (409, "Conflict"),
    UNREACHABLE: (503, "Service Unavailable"),
}
_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(s|m|h|d|w)?\Z")
LONGEST_DURATION = 10 * 366 * 86400
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class CommandFailed(Exception):
    """Ends a command: ``code`` and ``field`` as in the native API, and the exit code."""

    def __init__(
        self,
        message: str,
        *,
        exit_code: int = FAILED,
        code: str = "failed",
        field: str | None = None,
    ) -> None:
        # An option is known by its name; a place inside of a document is told.
        is_place = bool(field) and "." in str(field) and str(field) not in message
        super().__init__(f"{field}: {message}" if is_place else message)
        self.message = message
        self.exit_code = exit_code
        self.code = code
        self.field = field

    def problem(self) -> dict[str, Any]:
        status, title = _STATUS[self.exit_code]
        error = {"field": self.field, "code": self.code, "message": self.message}
        return {
            "type": "about:blank",
            "title": title,
            "status": status,
            "code": self.code,
            "detail": self.message,
            "request_id": None,
            "errors": [error] if self.field else [],
        }


class UsageError(CommandFailed):
    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message, exit_code=USAGE, code="invalid", field=field)


class NotFound(CommandFailed):
    def __init__(self, message: str) -> None:
        super().__init__(message, exit_code=NOT_FOUND, code="not_found")


class Conflict(CommandFailed):
    def __init__(self, message: str, *, code: str = "conflict") -> None:
        super().__init__(message, exit_code=CONFLICT, code=code)


class _Parser(CommandParser):
    """Says usage errors as a problem object where JSON was asked for."""

    def error(self, message: str) -> NoReturn:
        if self.called_from_command_line and _wants_json(sys.argv):
            sys.stderr.write(json.dumps(UsageError(message).problem()) + "\n")
        else:
            super().error(message)
        raise SystemExit(USAGE)


def _wants_json(argv: Sequence[str]) -> bool:
    pairs = pairwise(argv)
    joined = ("-ojson", "--output=json")
    return any(word in joined for word in argv) or any(
        one in ("-o", "--output") and other == "json" for one, other in pairs
    )


FORMATS = ("table", "json", "yaml", "csv")
Verb = Callable[[Namespace], None]


class OperatorCommand(BaseCommand):
    """A noun. Subclasses name their verbs in ``add_verbs`` and write a method for each."""

    # Start at once: what checks would find concerns servers, not this one question.
    requires_system_checks: list[str] = []
    # False for nouns that live in the control database.
    acts_on_cluster = True

    def add_verbs(self) -> None:
        raise NotImplementedError

    def verb(self, name: str, run: Verb, help: str) -> ArgumentParser:  # noqa: A002  argparse's word
        """Add a verb and return its parser for the arguments of its own."""
        parser: ArgumentParser = self._verbs.add_parser(name, help=help, description=help)
        parser.set_defaults(run=run, verb=name)
        self.add_common(parser)
        return parser

    def add_common(self, parser: ArgumentParser) -> None:
        """The options that all verbs take."""
        parser.add_argument(
            "-o", "--output", choices=FORMATS, default="table", help="default: table"
        )
        if self.acts_on_cluster:
            parser.add_argument(
                "--cluster", metavar="ID", help="default: YARDMASTER_CLUSTER, or the only one"
            )

    # -- Running ----------------------------------------------------------------------------------

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        parser.__class__ = _Parser
        self.shape(parser)
        return parser

    def shape(self, parser: ArgumentParser) -> None:
        """Give the parser its verbs. A command without verbs says here what it takes and runs."""
        self._verbs = parser.add_subparsers(
            dest="verb", metavar="VERB", required=True, title="verbs", parser_class=_Parser
        )
        self.add_verbs()

    def handle(self, *args: Any, **options: Any) -> None:
        asked = Namespace(**options)
        self.format = asked.output
        self.is_json = self.format == "json"
        self._plain = bool(options.get("no_color")) or "NO_COLOR" in os.environ
        try:
            _check_encoding(options)
            with self._bound(asked), acting_as(_acting()):
                asked.run(asked)
            self.stdout.flush()
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            # Whoever read our output has seen enough; Python must not complain at exit either.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.exit(FAILED)
        except Exception as error:
            failure = self.failure(error)
            if failure is None:
                raise
            self._say_failure(failure)
            sys.exit(failure.exit_code)

    def failure(self, error: Exception) -> CommandFailed | None:
        """How an error ends the command; None where it is a fault of ours. Extended by the apps."""
        if isinstance(error, CommandFailed):
            return error
        if isinstance(error, DatabaseError | InterfaceError):
            return database_failure(error)
        return None

    def _bound(self, asked: Namespace) -> Any:
        if not self.acts_on_cluster:
            return nullcontext()
        cluster_id = self._cluster_id(asked)
        check_database_is_there(settings.CLUSTERS[cluster_id].alias)
        return cluster_bound(cluster_id)

    def _cluster_id(self, asked: Namespace) -> str:
        known = sorted(settings.CLUSTERS)
        cluster_id = asked.cluster or os.environ.get("YARDMASTER_CLUSTER")
        if cluster_id:
            if cluster_id not in settings.CLUSTERS:
                raise NotFound(f"there is no cluster {cluster_id!r}; known: {', '.join(known)}")
            return str(cluster_id)
        if len(known) == 1:
            return known[0]
        raise UsageError(
            f"which cluster? --cluster ID or YARDMASTER_CLUSTER, one of: {', '.join(known)}",
            field="cluster",
        )

    # -- Talking ----------------------------------------------------------------------------------

    def show(self, document: Any, table: Callable[[], None]) -> None:
        """Print the result: the document as JSON or YAML, or the table, which may be CSV."""
        if self.is_json:
            self.print_json(document)
        elif self.format == "yaml":
            self.stdout.write(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
        else:
            table()

    def print_json(self, document: Any) -> None:
        self.stdout.write(json.dumps(document, indent=2, ensure_ascii=False, default=str))

    def print_table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Aligned columns under headings; nothing is cut off where the output is no terminal."""
        if self.format == "csv":
            self._print_csv([columns, *rows])
            return
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_edge=False)
        for column in columns:
            table.add_column(column.upper(), overflow="fold")
        for row in rows:
            table.add_row(*(cell(value) for value in row))
        self._print(table)

    def print_record(self, record: Mapping[str, Any]) -> None:
        """One thing, a line for each of its fields; in CSV a column."""
        if self.format == "csv":
            self._print_csv([[*record], [*record.values()]])
            return
        table = Table(box=None, pad_edge=False, show_header=False, show_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in record.items():
            table.add_row(Text(name), cell(value, is_single_line=False))
        self._print(table)

    def _print_csv(self, lines: Iterable[Sequence[Any]]) -> None:
        for line in lines:
            self.stdout.write(csv_line(csv_cell(value) for value in line), ending="")

    def say(self, text: str) -> None:
        """A remark beside the data."""
        self.stderr.write(printable(text), style_func=str)

    def confirm(self, question: str, *, is_confirmed: bool) -> None:
        """Ask on the terminal, or insist on --yes where nobody can answer."""
        if is_confirmed:
            return
        if not sys.stdin.isatty():
            told = "Nothing was done: no terminal can answer that, so say --yes."
            raise UsageError(f"{question} {told}", field="yes")
        self.stderr.write(f"{question} [y/N] ", style_func=str, ending="")
        self.stderr.flush()
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise CommandFailed("nothing was done")

    def progress_console(self) -> Console:
        """Where progress is drawn: on stderr, and only if that is a terminal."""
        return Console(stderr=True, no_color=self._plain)

    def _print(self, table: Table) -> None:
        is_terminal = self.stdout.isatty()
        console = Console(
            file=io.StringIO(),
            force_terminal=is_terminal and not self._plain,
            no_color=self._plain,
            width=None if is_terminal else 100_000,
        )
        console.print(table)
        lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
        self.stdout.write("\n".join(line.rstrip() for line in lines))

    def _say_failure(self, failure: CommandFailed) -> None:
        text = (
            json.dumps(failure.problem()) if self.is_json else f"Error: {printable(str(failure))}"
        )
        self.stderr.write(text, style_func=None if not self.is_json and not self._plain else str)


def _check_encoding(options: Mapping[str, Any]) -> None:
    """Refuse arguments with bytes that are no UTF-8; nothing behind us could store or show them."""
    for name, value in options.items():
        for text in value if isinstance(value, list) else [value]:
            try:
                if isinstance(text, str):
                    text.encode()
            except UnicodeEncodeError:
                raise UsageError(f"{name} is not valid UTF-8", field=name) from None


def operator() -> str:
    """Who acts, for the records: the operating-system user."""
    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a container whose uid has no name
        return f"cli:uid-{os.getuid()}"


def _acting() -> Acting:
    # Whoever may run management commands has the databases themselves.
    return Acting(
        operator(),
        may=lambda *_: True,
        credential="os_user",
        surface=COMMAND,
        kinds=lambda _: frozenset(GRANTED_KINDS),
        is_superuser=True,
    )


def check_database_is_there(alias: str) -> None:
    """Refuse a missing SQLite file; a connection would create it, empty and readable for all."""
    connection = connections[alias]
    if connection.vendor == "sqlite" and not connection.is_in_memory_db():  # type: ignore[attr-defined]
        path = Path(connection.settings_dict["NAME"])
        if not path.exists():
            raise CommandFailed(
                f"{_database(alias)} is not there: {path} (manage.py migrate creates it)",
                exit_code=UNREACHABLE,
                code="cluster_unreachable",
            )


def database_failure(error: Exception) -> CommandFailed:
    """What a database error means to somebody at a command line."""
    text = str(error).strip()
    state = getattr(error.__cause__, "sqlstate", None) or ""
    if state in ("42P01", "42703") or "no such table" in text or "no such column" in text:
        return CommandFailed(f"the database is not up to date, run manage.py migrate ({text})")
    if state == "57014":
        return CommandFailed("the database took too long", code="timeout")
    # Errors with a state come from a server that answered; a lock says that SQLite's file is there.
    is_connection = state[:2] in ("", "08", "53", "57") and "locked" not in text
    if isinstance(error, OperationalError | InterfaceError) and is_connection:
        return CommandFailed(
            f"the database is unreachable: {text}",
            exit_code=UNREACHABLE,
            code="cluster_unreachable",
        )
    return CommandFailed(f"the database refused: {text}")


def _database(alias: str) -> str:
    name = "the control database" if alias == CONTROL else None
    return name or f"the database of cluster {alias.removeprefix('cluster-')}"


# -- Cells and arguments ---------------------------------------------------------------------------

_COLOURS = {
    "succeeded": "green",
    "running": "cyan",
    "live": "green",
    "failed": "red",
    "dead": "red",
    "cancelled": "yellow",
    "draining": "yellow",
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
}


def cell(value: Any, *, is_single_line: bool = True) -> Text:
    """A value as people read it; text that came from outside cannot steer the terminal."""
    if value is None or value == "" or value == []:
        return Text("-", style="dim")
    if isinstance(value, bool):
        return Text("yes" if value else "no")
    if isinstance(value, datetime):
        return Text(value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ"))
    if isinstance(value, float):
        return Text(f"{value:g}")
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        value = ", ".join(value)
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = printable(text)
    if is_single_line:
        text = " ".join(text.split())
    return Text(text, style=_COLOURS.get(text, ""))


def csv_cell(value: Any) -> str:
    """A value in CSV; what a spreadsheet would take for a formula is marked as text."""
    if value is None or isinstance(value, bool | int | float):
        return "" if value is None else json.dumps(value)
    return formula_safe(
        value if isinstance(value, str) else cell(value, is_single_line=False).plain
    )


def duration(text: str) -> float:
    """`90`, `30s`, `5m`, `2h`, `7d`, `1w` as seconds."""
    match = _DURATION.match(text.strip())
    if not match:
        raise ArgumentTypeError(f"{text[:40]!r} is no duration such as 30s, 5m, 2h or 7d")
    seconds = float(match[1]) * _SECONDS[match[2] or "s"]
    if seconds > LONGEST_DURATION:
        raise ArgumentTypeError(f"{text[:40]!r} is more than ten years")
    return seconds


def moment(text: str) -> datetime:
    """An RFC 3339 time with its zone."""
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentTypeError(f"{text[:40]!r} is no time such as 2030-01-31T12:00:00Z") from None
    if value.tzinfo is None:
        raise ArgumentTypeError(f"{text[:40]!r} needs a time zone, such as a trailing Z")
    return value
