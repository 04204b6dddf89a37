"""The database itself: does it answer, is it up to date, can it clean up, does it keep what it says."""

from __future__ import annotations

import sqlite3
from typing import Any

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.executor import MigrationExecutor

from clusters.checks import SQLITE_FLOOR
from clusters.management.base import CommandFailed, check_database_is_there
from jobs.doctor.findings import Check, Finding, doubtful, failed, fine, span

# PostgreSQL's own maintenance of older ones has ended or is about to.
POSTGRES_FLOOR = 140000
# One snapshot that is held for so long keeps vacuum from cleaning up behind everybody.
SNAPSHOT_WARN_SECONDS, SNAPSHOT_FAIL_SECONDS = 300.0, 3600.0
SLOT_WARN_BYTES = 1 << 30
DEAD_ROWS, DEAD_SHARE = 10_000, 0.2
# An index of a small table may be as large as it likes.
LARGE_INDEX_BYTES = 64 << 20
TABLES = ("job", "job_listing", "attempt", "job_log", "tally")


def check_reachable(alias: str) -> list[Finding]:
    try:
        check_database_is_there(alias)
    except CommandFailed as error:
        return [failed("reachable", str(error), "create it with manage.py migrate")]
    connection = connections[alias]
    try:
        connection.ensure_connection()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except Exception as error:  # whatever it is, nobody can work with it
        advice = "start the database, or mend its address and password"
        return [failed("reachable", f"no answer: {str(error).strip()}", advice)]
    return [fine("reachable", f"{connection.display_name} answers")]


def check_schema(alias: str) -> list[Finding]:
    connection = connections[alias]
    executor = MigrationExecutor(connection)
    known = executor.loader.graph
    pending = [f"{m.app_label}.{m.name}" for m, _ in executor.migration_plan(known.leaf_nodes())]
    if pending:
        found = f"{len(pending)} migrations are not applied, first {pending[0]}"
        return [failed("schema", found, "run manage.py migrate", pending=pending)]
    ours = {label for label, _ in known.nodes}
    newer = sorted(
        f"{label}.{name}"
        for label, name in executor.loader.applied_migrations
        if label in ours and (label, name) not in known.nodes
    )
    if newer:
        return [
            doubtful(
                "schema",
                f"a newer version has migrated it: {newer[-1]}",
                "finish the roll-out: this process runs an older version",
                newer=newer,
            )
        ]
    return [fine("schema", "up to date")]


def check_version(alias: str) -> list[Finding]:
    connection = connections[alias]
    if connection.vendor == "sqlite":
        version = sqlite3.sqlite_version
        if sqlite3.sqlite_version_info < SQLITE_FLOOR:
            found = f"SQLite {version} can corrupt a database when its log is reset"
            return [doubtful("version", found, "install the pinned pysqlite3 wheel")]
        return [fine("version", f"SQLite {version}")]
    number = connection.pg_version  # type: ignore[attr-defined]
    found = f"PostgreSQL {number // 10000}.{number % 10000}"
    if number < POSTGRES_FLOOR:
        return [doubtful("version", f"{found} is no longer maintained", "upgrade the server")]
    return [fine("version", found)]


# -- PostgreSQL: what keeps vacuum from its work ---------------------------------------------------


def check_snapshots(alias: str) -> list[Finding]:
    """Who holds the oldest snapshot: nothing that was deleted since can be cleaned up."""
    if connections[alias].vendor != "postgresql":
        return []
    rows = _rows(
        connections[alias],
        """SELECT pid, usename, application_name, state,
                  extract(epoch FROM clock_timestamp() - xact_start) AS age_seconds,
                  extract(epoch FROM clock_timestamp() - query_start) AS query_age_seconds
             FROM pg_stat_activity
            WHERE backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
              AND datname = current_database()
            ORDER BY age(backend_xmin) DESC, xact_start LIMIT 1""",
    )
    if not rows or rows[0]["age_seconds"] is None:
        return [fine("snapshots", "nobody holds one")]
    oldest = {k: float(v) if k.endswith("_seconds") and v else v for k, v in rows[0].items()}
    age = oldest["age_seconds"]
    found = (
        f"the oldest is {span(age)} old: pid {oldest['pid']}, {oldest['usename']},"
        f" {oldest['application_name'] or 'no name'}, {oldest['state']}"
    )
    if age < SNAPSHOT_WARN_SECONDS:
        return [fine("snapshots", found, **oldest)]
    judge = failed if age >= SNAPSHOT_FAIL_SECONDS else doubtful
    advice = f"end that transaction, or SELECT pg_terminate_backend({oldest['pid']})"
    return [judge("snapshots", found, advice, **oldest)]


def check_prepared_transactions(alias: str) -> list[Finding]:
    if connections[alias].vendor != "postgresql":
        return []
    rows = _rows(
        connections[alias],
        """SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8 AS age_seconds
             FROM pg_prepared_xacts WHERE database = current_database()
            ORDER BY prepared LIMIT 1""",
    )
    if not rows or rows[0]["age_seconds"] < SNAPSHOT_WARN_SECONDS:
        return [fine("prepared_transactions", "none is old")]
    found = f"{rows[0]['gid']!r} waits for {span(rows[0]['age_seconds'])}"
    advice = "COMMIT PREPARED or ROLLBACK PREPARED it; it holds locks and a snapshot"
    return [doubtful("prepared_transactions", found, advice, **rows[0])]


def check_replication_slots(alias: str) -> list[Finding]:
    if connections[alias].vendor != "postgresql":
        return []
    rows = _rows(
        connections[alias],
        """SELECT slot_name, active, (xmin IS NOT NULL) AS holds_rows,
                  CASE WHEN pg_is_in_recovery() THEN NULL
                       ELSE pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint
                  END AS behind_bytes
             FROM pg_replication_slots ORDER BY slot_name""",
    )
    idle = [
        row
        for row in rows
        if not row["active"] and (row["holds_rows"] or (row["behind_bytes"] or 0) > SLOT_WARN_BYTES)
    ]
    if not idle:
        return [fine("replication_slots", f"{len(rows)}, none in the way")]
    names = ", ".join(row["slot_name"] for row in idle)
    found = f"nobody reads {names}, which keep old rows and the log"
    advice = "start the replica, or SELECT pg_drop_replication_slot(…)"
    return [doubtful("replication_slots", found, advice, slots=idle)]


def check_dead_rows(alias: str) -> list[Finding]:
    connection = connections[alias]
    if connection.vendor != "postgresql":
        return []
    found = []
    (setting,) = _rows(connection, "SELECT current_setting('autovacuum') AS autovacuum")
    if setting["autovacuum"] != "on":
        found.append(failed("vacuum", "autovacuum is off", "ALTER SYSTEM SET autovacuum = on"))
    rows = _rows(
        connection,
        """SELECT relname AS table, n_live_tup AS live, n_dead_tup AS dead, last_autovacuum,
                  last_vacuum, last_autoanalyze, pg_total_relation_size(relid) AS bytes
             FROM pg_stat_user_tables WHERE relname = ANY(%s) ORDER BY relname""",
        [list(TABLES)],
    )
    bloated = [row for row in rows if row["dead"] > max(DEAD_ROWS, DEAD_SHARE * row["live"])]
    for row in bloated:
        last = max(filter(None, (row["last_autovacuum"], row["last_vacuum"])), default=None)
        when = f"vacuumed last {last:%Y-%m-%d %H:%M:%S}Z" if last else "never vacuumed"
        text = f"{row['table']}: {row['dead']:,} dead rows beside {row['live']:,}, {when}"
        advice = f"see the oldest snapshot above; then VACUUM (ANALYZE) {row['table']}"
        found.append(doubtful("dead_rows", text, advice, **row))
    if not bloated:
        job = next((row for row in rows if row["table"] == "job"), None)
        text = f"job: {job['dead']:,} dead beside {job['live']:,}" if job else "no figures yet"
        found.append(fine("dead_rows", text, tables=rows))
    return found


def check_indexes(alias: str) -> list[Finding]:
    connection = connections[alias]
    if connection.vendor != "postgresql":
        return []
    rows = _rows(
        connection,
        """SELECT i.relname AS index, t.relname AS table, x.indisvalid AS is_valid,
                  pg_relation_size(i.oid) AS bytes, pg_table_size(t.oid) AS table_bytes
             FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
             JOIN pg_class t ON t.oid = x.indrelid
            WHERE t.relnamespace = current_schema()::regnamespace
            ORDER BY pg_relation_size(i.oid) DESC, i.relname""",
    )
    found = []
    for row in rows:
        if not row["is_valid"]:
            text = f"{row['index']} on {row['table']} is invalid: it costs and serves nobody"
            advice = f"REINDEX INDEX CONCURRENTLY {row['index']}"
            found.append(failed("indexes", text, advice, **row))
        elif row["bytes"] > max(LARGE_INDEX_BYTES, row["table_bytes"]):
            text = f"{row['index']} has {_size(row['bytes'])}, more than its table {row['table']}"
            advice = f"REINDEX INDEX CONCURRENTLY {row['index']}"
            found.append(doubtful("indexes", text, advice, **row))
    if not found:
        largest = f"largest {rows[0]['index']} with {_size(rows[0]['bytes'])}" if rows else ""
        found.append(fine("indexes", f"{len(rows)}, {largest}", largest=rows[:10]))
    return found


def check_durability(alias: str) -> list[Finding]:
    """Whether what was answered with success is still there after a power cut."""
    connection = connections[alias]
    if connection.vendor == "sqlite":
        return _sqlite_durability(connection)
    (row,) = _rows(
        connection,
        """SELECT current_setting('fsync') AS fsync,
                  current_setting('full_page_writes') AS full_page_writes,
                  current_setting('synchronous_commit') AS synchronous_commit""",
    )
    found = []
    for name in ("fsync", "full_page_writes"):
        if row[name] != "on":
            text = f"{name} is off: a power cut can destroy the database"
            found.append(failed("durability", text, f"ALTER SYSTEM SET {name} = on", **row))
    if row["synchronous_commit"] == "off":
        text = "synchronous_commit is off: a crash can undo the last answers"
        advice = "set it to on, unless losing and doubling a few jobs is fine"
        found.append(doubtful("durability", text, advice, **row))
    return found or [fine("durability", "commits are written through", **row)]


def _sqlite_durability(connection: BaseDatabaseWrapper) -> list[Finding]:
    with connection.cursor() as cursor:
        journal = cursor.execute("PRAGMA journal_mode").fetchone()[0]
        synchronous = cursor.execute("PRAGMA synchronous").fetchone()[0]
    found = []
    if journal != "wal":
        text = f"the journal is {journal}: readers and writers stand in each other's way"
        advice = "a network file system? put the file on a local one; then PRAGMA journal_mode=WAL"
        found.append(failed("durability", text, advice))
    if synchronous < 2:
        text = "synchronous is below FULL: a power cut can undo the last answers"
        found.append(doubtful("durability", text, "leave synchronous=FULL in the address"))
    return found or [fine("durability", "commits are written through")]


CHECKS: tuple[Check, ...] = (
    check_reachable,
    check_schema,
    check_version,
    check_durability,
    check_snapshots,
    check_prepared_transactions,
    check_replication_slots,
    check_dead_rows,
    check_indexes,
)
CHECKS_OF_CONTROL: tuple[Check, ...] = (
    check_reachable,
    check_schema,
    check_version,
    check_durability,
)


def _rows(
    connection: BaseDatabaseWrapper, statement: str, parameters: list[Any] | None = None
) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _size(count: int) -> str:
    return f"{count / (1 << 20):,.1f} MiB"
