"""Bring every configured database up to date: the control database and each cluster's own."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError, CommandParser
from django.core.management.commands.migrate import Command as DjangoMigrate
from django.db import DatabaseError, InterfaceError, OperationalError, connections
from django.db.backends.base.base import BaseDatabaseWrapper

from clusters.routers import CONTROL

UNREACHABLE = 5
UNREACHABLE_ERRORS = (OperationalError, InterfaceError, OSError)


class Command(DjangoMigrate):
    help = (
        "Bring all databases up to date: the control database and the one of every cluster. "
        "With --database or an app label it does what Django's migrate does."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        super().add_arguments(parser)
        parser.set_defaults(database=None)

    def get_check_kwargs(self, options: dict[str, Any]) -> Any:
        # Checks that ask a database would end here for all of them when one is unreachable.
        return (
            {"databases": None}
            if options["database"] is None
            else super().get_check_kwargs(options)
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["database"] or options["app_label"]:
            alias = options["database"] or CONTROL
            try:
                _check_reachable(connections[alias])
            except UNREACHABLE_ERRORS as error:
                raise CommandError(_unreachable(alias, error), returncode=UNREACHABLE) from error
            self._migrate(alias, args, options)
            return
        failed: dict[str, int] = {}
        for alias in (CONTROL, *(cluster.alias for cluster in settings.CLUSTERS.values())):
            if options["verbosity"] > 0:
                self.stdout.write(self.style.MIGRATE_LABEL(f"{_called(alias)}:"))
            if status := self._try(alias, args, options):
                failed[alias] = status
        if failed:
            names = ", ".join(_called(alias) for alias in failed)
            raise CommandError(f"not up to date: {names}", returncode=max(failed.values()))

    def _try(self, alias: str, args: Any, options: dict[str, Any]) -> int:
        """Migrate one database; its failure leaves the others theirs and shows in the exit code."""
        try:
            _check_reachable(connections[alias])
        except UNREACHABLE_ERRORS as error:
            self.stderr.write(f"  {_unreachable(alias, error)}")
            return UNREACHABLE
        try:
            self._migrate(alias, args, options)
        except DatabaseError as error:
            self.stderr.write(f"  {_called(alias)} failed: {str(error).strip()}")
            return 1
        except SystemExit as exit_:  # how `migrate --check` says that something is unapplied
            return int(exit_.code or 0)
        return 0

    def _migrate(self, alias: str, args: Any, options: dict[str, Any]) -> None:
        with _without_statement_timeout(connections[alias]):
            super().handle(*args, **{**options, "database": alias})


def create_sqlite_file(connection: BaseDatabaseWrapper) -> None:
    """Create a missing SQLite file, and its directories, for its owner only."""
    if connection.vendor != "sqlite" or connection.is_in_memory_db():  # type: ignore[attr-defined]
        return
    path = Path(connection.settings_dict["NAME"])
    if path.exists():
        return
    umask = os.umask(0o077)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    finally:
        os.umask(umask)


def _check_reachable(connection: BaseDatabaseWrapper) -> None:
    create_sqlite_file(connection)
    connection.ensure_connection()


@contextmanager
def _without_statement_timeout(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """Let a migration build an index on a large table; only waiting for locks stays short."""
    if connection.vendor != "postgresql" or settings.DB_POOLED:
        yield
        return
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = 0")
    try:
        yield
    finally:
        if connection.connection is not None and not connection.needs_rollback:
            with connection.cursor() as cursor:
                cursor.execute("RESET statement_timeout")


def _called(alias: str) -> str:
    return "control database" if alias == CONTROL else f"cluster {alias.removeprefix('cluster-')}"


def _unreachable(alias: str, error: Exception) -> str:
    return f"{_called(alias)} is unreachable: {str(error).strip()}"
