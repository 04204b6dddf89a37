"""Kind ``procedure``: one call of a stored procedure or function of a PostgreSQL database.

Every call has a connection of its own. Nothing that one job has set, locked or created can reach another,
its name in the database's list of sessions is that of its job, and to connect costs little beside what
procedures are for.

A call runs inside one transaction, so that a stop undoes it; procedures that commit by themselves cannot,
and what is cut off there is in doubt. The server has the limits too: it gives up in time, or as soon
as it sees that nobody listens, though this process may be gone.

What the driver says of a connection names hosts and users. Only the server's own first line about a call
is passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import AsyncIterator
from enum import Enum, auto
from typing import Any

import psycopg
from psycopg import sql
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Loader
from psycopg.types.none import NoneDumper
from psycopg.types.string import StrDumperUnknown

from jobs.errors import InvalidJob
from jobs.executors import RESULT_BYTES, Assignment, Outcome, Output
from jobs.executors.doubt import StoppedInDoubt
from jobs.executors.procedure_call import Call, read
from jobs.executors.procedure_errors import HOPELESS, LOST, QUERY_CANCELED, why_no_connection
from jobs.executors.procedure_rows import (
    TYPES_QUERY,
    VOID,
    Types,
    as_json,
    read_types,
    unknown_types,
)

CONNECT_SECONDS = 5.0
# The node stops what is out of time and says so on the attempt; the server comes after that.
BACKSTOP_SECONDS = 1.0
# For a lock; a procedure that may wait longer sets its own `lock_timeout`.
LOCK_SECONDS = 10.0
IDLE_SECONDS = 15.0
# How often the server looks whether somebody still waits for its answer.
LISTENER_SECONDS = 1.0
LISTENER_VERSION = 140_000
# A request to cancel does nothing when it overtakes the call, so it is sent until the call ends.
CANCEL_EVERY_SECONDS = 0.25
MOST_STOP_SECONDS = 5.0
# How soon the driver notices that its connection was broken off.
CUT_SECONDS = 1.0
KEEPALIVES: dict[str, Any] = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
}
# What a result has beside its rows.
ENVELOPE_BYTES = 256

_LEVELS = {"DEBUG": "debug", "WARNING": "warning", "ERROR": "error"}


class _TextLoader(Loader):
    """Values as the server wrote them, even from a database that does not know its own encoding."""

    def load(self, data: Buffer) -> str:
        return bytes(data).decode("utf-8", "replace")


# Texts go out and texts come in, whatever their types.
_TEXT_ONLY = AdaptersMap()
_TEXT_ONLY.register_dumper(str, StrDumperUnknown)
_TEXT_ONLY.register_dumper(type(None), NoneDumper)
_TEXT_ONLY.register_loader(0, _TextLoader)


async def run(assignment: Assignment, output: Output) -> Outcome:
    """Make the call and return how it ended. Cancel the task to have the server stop it."""
    try:
        call = read(assignment.payload)
    except InvalidJob as error:
        text = f"{error.field}: {error}"
        return Outcome(False, error=text, error_type="InvalidJob", is_permanent=True)
    attempt = _Attempt(assignment, call, output)
    work = asyncio.create_task(attempt.run())
    try:
        # The call goes on while it is stopped in its own way.
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        return await attempt.stop(work)


class _Phase(Enum):
    """How far an attempt has come."""

    CONNECTING = auto()
    CALLING = auto()
    COMMITTING = auto()
    OVER = auto()


class _Attempt:
    def __init__(self, assignment: Assignment, call: Call, output: Output) -> None:
        self._assignment = assignment
        self._call = call
        self._output = output
        self._began_at = time.monotonic()
        self._phase = _Phase.CONNECTING
        self._is_stopping = False
        self._connection: psycopg.AsyncConnection[Any] | None = None

    # -- Run ---------------------------------------------------------------------------------------

    async def run(self) -> Outcome:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._connect()
        except (psycopg.Error, OSError) as error:  # no answer in time is an OSError as well
            await self._close()
            text = f"no connection to {self._alias}: {why_no_connection(error)}"
            return Outcome(False, error=text, error_type="ConnectionError")
        except BaseException:
            await self._close()
            raise
        try:
            outcome = await self._make_call()
        except psycopg.Error as error:
            if error.sqlstate is None and isinstance(error, psycopg.ProgrammingError):
                raise  # ours, and not the wire's
            outcome = self._failure(error)
            # What is idle in a transaction that failed ends with it; locks are gone when this is told.
            if self._phase is _Phase.CALLING and not self._call.routine.commits:
                with contextlib.suppress(psycopg.Error):
                    await self._execute("ROLLBACK")
        finally:
            await self._close()
        self._phase = _Phase.OVER
        level = "info" if outcome.ok else "warning"
        self._output.write("log", self._line(outcome), level)
        return outcome

    @property
    def _alias(self) -> str:
        return self._call.connection.alias

    @property
    def _elapsed_seconds(self) -> float:
        return round(time.monotonic() - self._began_at, 3)

    @property
    def _session_name(self) -> str:
        """What the server's list of sessions shows; it keeps no more characters."""
        return f"yardmaster-{self._assignment.id}-{self._assignment.fence}"[:63]

    def _line(self, outcome: Outcome) -> str:
        return (
            f"{self._call.routine.full_name} on {self._alias}"
            f" {'ended well' if outcome.ok else 'failed'} in {round(self._elapsed_seconds * 1000)} ms"
        )

    async def _connect(self) -> None:
        """Open a connection, give it its limits and, where that can be, a transaction."""
        self._connection = await psycopg.AsyncConnection.connect(
            self._call.connection.url,
            autocommit=True,
            prepare_threshold=None,
            context=_TEXT_ONLY,
            application_name=self._session_name,
            client_encoding="utf8",
            connect_timeout=int(CONNECT_SECONDS),
            **KEEPALIVES,
        )
        session = self._session_settings(self._connection.info.server_version)
        each = sql.SQL("pg_catalog.set_config(%s, %s, false)")
        await self._execute(
            sql.SQL("SELECT {}").format(sql.SQL(", ").join([each] * len(session))),
            [text for pair in session.items() for text in pair],
        )
        if not self._call.routine.commits:
            await self._execute("BEGIN")
        self._connection.add_notice_handler(self._notice)

    def _session_settings(self, server_version: int) -> dict[str, str]:
        session = {
            "statement_timeout": _milliseconds(self._statement_seconds),
            "lock_timeout": _milliseconds(min(LOCK_SECONDS, self._statement_seconds)),
            "idle_in_transaction_session_timeout": _milliseconds(IDLE_SECONDS),
            "datestyle": "ISO",
            # What a procedure may use to refuse a stale or second call.
            "yardmaster.job_id": self._assignment.id,
            "yardmaster.fence": str(self._assignment.fence),
            "yardmaster.attempt": str(self._assignment.attempt),
        }
        if server_version >= LISTENER_VERSION:
            session["client_connection_check_interval"] = _milliseconds(LISTENER_SECONDS)
        return session

    @property
    def _statement_seconds(self) -> float:
        left = self._assignment.timeout_seconds + BACKSTOP_SECONDS - self._elapsed_seconds
        own = self._call.timeout_seconds
        return max(left if own is None else min(own, left), 0.001)

    async def _make_call(self) -> Outcome:
        self._phase = _Phase.CALLING
        routine = self._call.routine
        if routine.is_function:
            result = await self._call_function()
        else:
            result = await self._call_procedure()
        if not routine.commits:
            if self._is_stopping:
                # The request to cancel came too late for the call, and in time for its effect.
                await self._execute("ROLLBACK")
                return Outcome(False, error="stopped", error_type="Cancelled")
            self._phase = _Phase.COMMITTING
            await self._execute("COMMIT")
        result["elapsed_seconds"] = self._elapsed_seconds
        return Outcome(True, result)

    async def _call_function(self) -> dict[str, Any]:
        """Return the rows that fit. All are read: to stop reading would undo the call."""
        most = self._call.max_rows
        arguments, values = self._arguments()
        statement = sql.SQL("SELECT * FROM {}({}) LIMIT %s::pg_catalog.int8").format(
            self._name, arguments
        )
        room = RESULT_BYTES.get() - ENVELOPE_BYTES
        kept: list[tuple[str | None, ...]] = []
        count = size = 0
        async with self._cursor() as cursor:
            async for row in cursor.stream(statement, [*values, str(most + 1)]):
                count += 1
                size += sum(len(value.encode()) for value in row if value is not None)
                if count <= most and size <= room:
                    kept.append(row)
            columns = _columns(cursor)
        types = await self._types([oid for _, oid in columns])
        if [oid for _, oid in columns] == [VOID]:
            # A function that returns nothing still answers with one row.
            kept, count = [], 0
        rows = [_object(row, columns, types) for row in kept]
        while rows and len(json.dumps(rows, ensure_ascii=False).encode()) > room:
            rows = rows[: len(rows) * 3 // 4]
        return {"rows": rows, "row_count": len(rows), "is_truncated": count > len(rows)}

    async def _call_procedure(self) -> dict[str, Any]:
        """Return what the procedure gives out."""
        arguments, values = self._arguments()
        statement = sql.SQL("CALL {}({})").format(self._name, arguments)
        async with self._cursor() as cursor:
            await cursor.execute(statement, values)
            columns = _columns(cursor)
            row = await cursor.fetchone() if columns else None
        if row is None:
            return {"output": None, "is_truncated": False}
        types = await self._types([oid for _, oid in columns])
        given = _object(row, columns, types)
        size = len(json.dumps(given, ensure_ascii=False).encode())
        fits = size <= RESULT_BYTES.get() - ENVELOPE_BYTES
        return {"output": given if fits else None, "is_truncated": not fits}

    async def _types(self, oids: list[int]) -> Types:
        unknown = unknown_types(oids)
        if not unknown:
            return {}
        try:
            async with self._cursor() as cursor:
                listed = "{" + ",".join(map(str, unknown)) + "}"
                await cursor.execute(TYPES_QUERY, [listed])
                return read_types(await cursor.fetchall())
        except psycopg.Error:
            if not self._call.routine.commits:
                raise
            # The work is done; its values stay as the server wrote them.
            return {}

    @property
    def _name(self) -> sql.Composable:
        return sql.Identifier(self._call.routine.schema, self._call.routine.name)

    def _arguments(self) -> tuple[sql.Composable, list[str | None]]:
        """Return the list of named arguments and the values for its places."""
        listed = [
            sql.SQL("{} => %s::{}{}").format(
                sql.Identifier(argument.name),
                sql.Identifier(*argument.type.names),
                sql.SQL("[]" if argument.type.is_array else ""),
            )
            for argument, _ in self._call.values
        ]
        return sql.SQL(", ").join(listed), [value for _, value in self._call.values]

    @contextlib.asynccontextmanager
    async def _cursor(self) -> AsyncIterator[psycopg.AsyncCursor[Any]]:
        assert self._connection is not None
        async with self._connection.cursor() as cursor:
            yield cursor

    async def _execute(
        self, statement: str | sql.Composed, values: list[str] | None = None
    ) -> None:
        assert self._connection is not None
        await self._connection.execute(statement, values)

    async def _close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    def _notice(self, notice: psycopg.errors.Diagnostic) -> None:
        level = _LEVELS.get(notice.severity_nonlocalized or "", "info")
        self._output.write("log", notice.message_primary or "", level)

    # -- Errors ------------------------------------------------------------------------------------

    def _failure(self, error: psycopg.Error) -> Outcome:
        code = error.sqlstate
        is_lost = code is None or code.startswith(LOST)
        commits = self._call.routine.commits
        if code == QUERY_CANCELED:
            return Outcome(
                False,
                error=f"{self._call.routine.full_name}: {error.diag.message_primary}",
                error_type="Timeout" if self._is_late else "Cancelled",
                effect_unknown=commits,
            )
        # Before its COMMIT a transaction that is lost is undone, whatever happened to the wire.
        in_doubt = is_lost and (commits or self._phase is _Phase.COMMITTING)
        if code is None:
            text = f"the connection to {self._alias} was lost"
            return Outcome(False, error=text, error_type="ConnectionError", effect_unknown=in_doubt)
        hint = "; declare commits = true for it" if code == "2D000" else ""
        return Outcome(
            False,
            error=f"{code}: {error.diag.message_primary}{hint}",
            error_type=type(error).__name__,
            is_permanent=code.startswith(HOPELESS),
            effect_unknown=in_doubt,
        )

    @property
    def _is_late(self) -> bool:
        seconds = self._assignment.timeout_seconds
        own = self._call.timeout_seconds
        return self._elapsed_seconds >= (seconds if own is None else min(own, seconds)) * 0.9

    # -- Stop --------------------------------------------------------------------------------------

    async def stop(self, work: asyncio.Task[Outcome]) -> Outcome:
        """Have the server stop the call; return its outcome if it was faster.

        Cancelling once more cuts this short.
        """
        self._is_stopping = True
        if self._phase is _Phase.CONNECTING:
            work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._wait_for_the_end(work)
        if not work.done():
            # Nobody listens from here on, and a transaction ends with its connection.
            self._cut()
            await asyncio.wait({work}, timeout=CUT_SECONDS)
        if work.done() and not work.cancelled():
            outcome = work.result()
            if outcome.ok:
                return outcome
            in_doubt = outcome.effect_unknown
        else:
            commits = self._call.routine.commits
            in_doubt = self._phase is (_Phase.CALLING if commits else _Phase.COMMITTING)
        if in_doubt:
            raise StoppedInDoubt
        raise asyncio.CancelledError

    async def _wait_for_the_end(self, work: asyncio.Task[Outcome]) -> None:
        grace = min(max(self._assignment.grace_seconds, 1.0), MOST_STOP_SECONDS)
        until = time.monotonic() + grace
        asked_for = 0.0
        while not work.done() and (left := until - time.monotonic()) > 0:
            # A COMMIT is not interrupted: its answer is the truth.
            if self._phase is _Phase.CALLING:
                if asked_for < grace / 2:
                    await self._ask_to_cancel(left)
                else:
                    # A procedure may catch the request and go on.
                    await self._ask_to_end(left)
            pause = min(CANCEL_EVERY_SECONDS, left)
            asked_for += pause
            await asyncio.wait({work}, timeout=pause)

    async def _ask_to_cancel(self, seconds: float) -> None:
        assert self._connection is not None
        with contextlib.suppress(psycopg.Error, OSError):
            await self._connection.cancel_safe(timeout=max(min(1.0, seconds), 0.1))

    async def _ask_to_end(self, seconds: float) -> None:
        """End our own session from another one; every role may do that to its own."""
        assert self._connection is not None
        pid = self._connection.info.backend_pid
        with contextlib.suppress(psycopg.Error, OSError):
            async with asyncio.timeout(max(seconds, 0.1)):
                other = await psycopg.AsyncConnection.connect(
                    self._call.connection.url, autocommit=True, context=_TEXT_ONLY
                )
                async with other:
                    await other.execute(
                        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity"
                        " WHERE pid = %s::pg_catalog.int4 AND application_name = %s",
                        [str(pid), self._session_name],
                    )

    def _cut(self) -> None:
        """Break the connection off under the driver, whose call then ends by itself."""
        if self._connection is None or self._connection.closed:
            return
        with contextlib.suppress(OSError, psycopg.Error):
            wire = socket.socket(fileno=os.dup(self._connection.fileno()))
            with wire:
                wire.shutdown(socket.SHUT_RDWR)


# -- Words and values ------------------------------------------------------------------------------


def _columns(cursor: psycopg.AsyncCursor[Any]) -> list[tuple[str, int]]:
    return [(column.name, column.type_code) for column in cursor.description or ()]


def _object(
    row: tuple[str | None, ...], columns: list[tuple[str, int]], types: Types
) -> dict[str, Any]:
    return {
        name: as_json(value, oid, types) for (name, oid), value in zip(columns, row, strict=True)
    }


def _milliseconds(seconds: float) -> str:
    return str(max(int(seconds * 1000), 1))
