"""A real database with procedures, and attempts that call them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import psycopg

from jobs.executors import Outcome, procedure
from jobs.executors.procedure_catalog import Connection, read_procedures
from tests import settings as test_settings
from tests.jobs.executors.attempts import Recorder, make_assignment
from tests.postgres import EmbeddedPostgres

DATABASE = f"ym_procedures_{os.getpid()}"
CALLER = f"ym_caller_{os.getpid()}"
CANARY = "canary-7f3a-word"

SETUP = """
CREATE SCHEMA work;
CREATE TABLE work.done (id bigserial PRIMARY KEY, what text NOT NULL UNIQUE);
CREATE TYPE work.colour AS ENUM ('red', 'green blue');
CREATE DOMAIN work.price AS numeric(10, 2);
CREATE TYPE work.item AS (name text, price work.price, tags text[]);

CREATE FUNCTION public.twice(number integer) RETURNS integer LANGUAGE sql AS 'SELECT number * 2';
CREATE FUNCTION work.numbers(upto integer) RETURNS TABLE (n integer, square bigint) LANGUAGE sql
  AS 'SELECT i, i::bigint * i FROM generate_series(1, upto) AS i';
CREATE FUNCTION work.wide(count integer, width integer) RETURNS SETOF text LANGUAGE sql
  AS $$SELECT repeat('"', width) FROM generate_series(1, count)$$;
CREATE FUNCTION work.note(what text) RETURNS void LANGUAGE sql
  AS 'INSERT INTO work.done (what) VALUES (what)';
CREATE FUNCTION work.note_each(upto integer) RETURNS SETOF integer LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1..upto LOOP
    INSERT INTO work.done (what) VALUES ('each ' || i);
    RETURN NEXT i;
  END LOOP;
END $$;
CREATE FUNCTION work.echo(t text DEFAULT 'its default') RETURNS text LANGUAGE sql AS 'SELECT t';
CREATE FUNCTION work.everything(
  a smallint, b bigint, c numeric, d real, e boolean, f date, g time, h timestamp, i timestamptz,
  j interval, k uuid, l jsonb, m bytea, n work.colour, o integer[], p text[], q double precision
) RETURNS TABLE (
  a smallint, b bigint, c numeric, d real, e boolean, f date, g time, h timestamp, i timestamptz,
  j interval, k uuid, l jsonb, m bytea, n work.colour, o integer[], p text[], q double precision
) LANGUAGE sql AS 'SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17';
CREATE FUNCTION work.odd() RETURNS TABLE (
  item work.item, items work.item[], matrix integer[], price work.price, endless date,
  nan double precision, nothing text, blobs bytea[], anonymous record, nul json, shifted integer[],
  ancient timestamptz, spread int4range
) LANGUAGE sql AS $$
  SELECT ROW('a "quoted", \\ one', 1.50, ARRAY['x', NULL, 'NULL', '{y}'])::work.item,
    ARRAY[ROW('first', 2, NULL)::work.item, NULL], ARRAY[[1, 2], [3, NULL]], 3::work.price,
    'infinity'::date, 'NaN'::float8, NULL::text, ARRAY['\\x00ff'::bytea], ROW(1, 'two'),
    '{"a": "\\u0000"}'::json, '[0:1]={5,6}'::integer[], '0044-03-15 BC'::timestamptz,
    int4range(1, 5)
$$;
CREATE FUNCTION work.fail(code text, words text) RETURNS void LANGUAGE plpgsql
  AS 'BEGIN RAISE EXCEPTION USING ERRCODE = code, MESSAGE = words; END';
CREATE FUNCTION work.divide(by_number integer) RETURNS integer LANGUAGE sql AS 'SELECT 1 / by_number';
CREATE FUNCTION work.talk() RETURNS void LANGUAGE plpgsql AS $$
BEGIN RAISE NOTICE 'it is said'; RAISE WARNING 'and warned'; RAISE DEBUG 'not this'; END $$;
CREATE FUNCTION work.crash_session() RETURNS void LANGUAGE sql
  AS 'SELECT pg_terminate_backend(pg_backend_pid())';
CREATE FUNCTION work.slow(what text, seconds double precision) RETURNS void LANGUAGE plpgsql AS $$
BEGIN INSERT INTO work.done (what) VALUES (what); PERFORM pg_sleep(seconds); END $$;
CREATE FUNCTION work.stubborn(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO work.done (what) VALUES (what);
  FOR i IN 1..300 LOOP
    BEGIN PERFORM pg_sleep(0.1); EXCEPTION WHEN query_canceled THEN NULL; END;
  END LOOP;
END $$;
CREATE FUNCTION work.slow_to_check() RETURNS trigger LANGUAGE plpgsql
  AS 'BEGIN PERFORM pg_sleep(1.5); RETURN NULL; END';
CREATE TABLE work.checked (what text);
CREATE CONSTRAINT TRIGGER late AFTER INSERT ON work.checked DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION work.slow_to_check();
CREATE FUNCTION work.note_checked(what text) RETURNS void LANGUAGE sql
  AS 'INSERT INTO work.checked (what) VALUES (what)';

CREATE PROCEDURE work.add(a integer, INOUT b integer, OUT total integer, OUT said work.item)
  LANGUAGE plpgsql AS $$
BEGIN total := a + b; b := b + 1; said := ROW('sum', total, ARRAY['x']); END $$;
CREATE PROCEDURE work.quiet(what text) LANGUAGE sql AS 'INSERT INTO work.done (what) VALUES (what)';
CREATE PROCEDURE work.in_steps(what text, seconds double precision) LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO work.done (what) VALUES (what || ' 1');
  COMMIT;
  PERFORM pg_sleep(seconds);
  INSERT INTO work.done (what) VALUES (what || ' 2');
  COMMIT;
END $$;
CREATE FUNCTION work.not_listed() RETURNS integer LANGUAGE sql AS 'SELECT 1';
"""

CONFIG = """
[connections.main]
url = "{url}"
allowed = [
  {{name = "twice", kind = "function", arguments = [{{name = "number", type = "integer"}}]}},
  {{name = "work.numbers", kind = "function", arguments = [{{name = "upto", type = "integer"}}]}},
  {{name = "work.wide", kind = "function", arguments = [
    {{name = "count", type = "integer"}}, {{name = "width", type = "integer"}}]}},
  {{name = "work.note", kind = "function", arguments = [{{name = "what", type = "text"}}]}},
  {{name = "work.note_each", kind = "function", arguments = [{{name = "upto", type = "integer"}}]}},
  {{name = "work.note_checked", kind = "function", arguments = [{{name = "what", type = "text"}}]}},
  {{name = "work.echo", kind = "function", arguments = [
    {{name = "t", type = "text", is_optional = true}}]}},
  {{name = "work.everything", kind = "function", arguments = [
    {{name = "a", type = "smallint"}}, {{name = "b", type = "bigint"}},
    {{name = "c", type = "numeric"}}, {{name = "d", type = "real"}},
    {{name = "e", type = "boolean"}}, {{name = "f", type = "date"}},
    {{name = "g", type = "time"}}, {{name = "h", type = "timestamp"}},
    {{name = "i", type = "timestamptz"}}, {{name = "j", type = "interval"}},
    {{name = "k", type = "uuid"}}, {{name = "l", type = "jsonb"}},
    {{name = "m", type = "bytea"}}, {{name = "n", type = "work.colour"}},
    {{name = "o", type = "integer[]"}}, {{name = "p", type = "text[]"}},
    {{name = "q", type = "double precision"}}]}},
  {{name = "work.odd", kind = "function"}},
  {{name = "work.fail", kind = "function", arguments = [
    {{name = "code", type = "text"}}, {{name = "words", type = "text"}}]}},
  {{name = "work.divide", kind = "function", arguments = [{{name = "by_number", type = "integer"}}]}},
  {{name = "work.talk", kind = "function"}},
  {{name = "work.crash_session", kind = "function"}},
  {{name = "work.slow", kind = "function", arguments = [
    {{name = "what", type = "text"}}, {{name = "seconds", type = "double precision"}}]}},
  {{name = "work.stubborn", kind = "function", arguments = [{{name = "what", type = "text"}}]}},
  {{name = "work.missing", kind = "function"}},
  {{name = "work.add", arguments = [
    {{name = "a", type = "integer"}}, {{name = "b", type = "integer", mode = "inout"}},
    {{name = "total", type = "integer", mode = "out"}},
    {{name = "said", type = "work.item", mode = "out"}}]}},
  {{name = "work.quiet", arguments = [{{name = "what", type = "text"}}]}},
  {{name = "work.in_steps", commits = true, arguments = [
    {{name = "what", type = "text"}}, {{name = "seconds", type = "double precision"}}]}},
]
"""


@dataclass
class ProcedureDatabase:
    """The database, as its owner sees it."""

    base: str

    def url(self, user: str = "postgres", database: str = DATABASE) -> str:
        parts = urlsplit(self.base)
        netloc = f"{user}:{CANARY}@{parts.netloc.rpartition('@')[2]}"
        return urlunsplit(parts._replace(netloc=netloc, path=f"/{database}"))

    def ask(self, statement: str, *values: Any, database: str = DATABASE) -> list[Any]:
        with psycopg.connect(self.url(database=database), autocommit=True) as connection:
            cursor = connection.execute(statement, values)  # type: ignore[arg-type]
            return [row[0] for row in cursor.fetchall()] if cursor.description else []

    def done(self) -> list[str]:
        return self.ask("SELECT what FROM work.done ORDER BY id")

    def sessions(self) -> list[str]:
        """What our sessions do in this database."""
        return self.ask(
            "SELECT coalesce(state, 'starting') || ': ' || query FROM pg_stat_activity WHERE datname = %s"
            " AND application_name LIKE 'yardmaster-%%'",
            DATABASE,
        )

    def write_config(self, path: Path, url: str = "", text: str = CONFIG) -> Path:
        path.write_text(text.format(url=url or self.url()))
        path.chmod(0o600)
        return path

    def connections(self, path: Path, url: str = "") -> dict[str, Connection]:
        problems: list[str] = []
        found = read_procedures(str(self.write_config(path, url)), problems)
        assert problems == []
        return found


@contextlib.contextmanager
def procedure_database() -> Iterator[ProcedureDatabase]:
    """Use the run's own server where it has one, and else start one."""
    server = None
    base = os.environ.get("YARDMASTER_TEST_POSTGRES_URL", "")
    if not base:
        where = test_settings.EMBEDDED_POSTGRES_DIR
        if test_settings.BACKEND != "postgresql":
            # A directory of its own around it, because the server's libraries are copied beside it.
            where = test_settings.TEST_DIR / f"procedures-{os.getpid()}" / "postgresql"
            where.parent.mkdir()
            test_settings.TEST_DIR.chmod(test_settings.TEST_DIR.stat().st_mode | 0o011)
            server = EmbeddedPostgres(where)
            server.start()
        base = f"postgresql://postgres@/postgres?host={quote(str(where / 'socket'))}"
    database = ProcedureDatabase(base)
    try:
        database.ask(f"CREATE DATABASE {DATABASE}", database="postgres")
        database.ask(SETUP)
        yield database
    finally:
        if server is not None:
            server.stop()
        else:
            database.ask(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)", database="postgres")
            database.ask(f"DROP ROLE IF EXISTS {CALLER}", database="postgres")


def payload(name: str, connection: str = "main", **more: Any) -> dict[str, Any]:
    parameters = more.pop("parameters", {})
    return {"connection": connection, "procedure": name, "parameters": parameters, **more}


async def call(
    name: str,
    recorder: Recorder | None = None,
    assignment: dict[str, Any] | None = None,
    **more: Any,
) -> Outcome:
    given = make_assignment(payload(name, **more), **(assignment or {}))
    return await procedure.run(given, recorder or Recorder())


@contextlib.asynccontextmanager
async def started(name: str, **more: Any) -> AsyncIterator[asyncio.Task[Outcome]]:
    """A call that runs beside the block."""
    task = asyncio.create_task(call(name, **more))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not (value := await asyncio.to_thread(condition)):
        assert time.monotonic() < deadline, value
        await asyncio.sleep(0.02)
