"""Database settings from addresses: limits on every connection, safe SQLite pragmas."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dj_database_url
from django.db.backends.base.base import BaseDatabaseWrapper

# Seconds and milliseconds; one hung call must not hold a process for ever.
CONNECT_TIMEOUT = 5
STATEMENT_SECONDS = 5
POSTGRES_LIMITS = {
    "statement_timeout": f"{STATEMENT_SECONDS}s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "15s",
    # Our statements run for microseconds; to compile one or to start processes for it takes longer.
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
}
KEEPALIVES = {
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 10_000,
}
SQLITE_PRAGMAS = """
PRAGMA journal_mode=WAL;
PRAGMA synchronous=FULL;
PRAGMA foreign_keys=ON;
PRAGMA journal_size_limit=67108864;
"""
EMPTY = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}


def database_settings(
    where: str, url: str, *, is_pooled: bool, problems: list[str]
) -> dict[str, Any]:
    """One entry of Django's DATABASES. The address is never quoted in a problem: it holds a password."""
    try:
        parsed: dict[str, Any] = dict(dj_database_url.parse(url))
    except Exception as error:
        problems.append(f"{where}: not a database address ({type(error).__name__})")
        return dict(EMPTY)
    engine = parsed["ENGINE"].rpartition(".")[2]
    if engine == "postgresql" and not (parsed["NAME"] or "service" in parsed.get("OPTIONS", {})):
        problems.append(f"{where}: the address names no database")
        return dict(EMPTY)
    if engine == "postgresql":
        return _postgresql(parsed, is_pooled)
    if engine == "sqlite3":
        return _sqlite(where, parsed, problems)
    problems.append(f"{where}: {engine} is not supported; use postgresql:// or sqlite://")
    return dict(EMPTY)


def limit_calls(connection: BaseDatabaseWrapper, seconds: float, *, is_pooled: bool) -> None:
    """Give a connection that is not open yet shorter limits than others have. It is one thread's own."""
    options = dict(connection.settings_dict["OPTIONS"])
    if connection.vendor == "sqlite":
        options["timeout"] = seconds
    else:
        milliseconds = max(int(seconds * 1000), 1)
        # The driver takes no shorter one.
        options["connect_timeout"] = max(math.ceil(seconds), 2)
        options["tcp_user_timeout"] = milliseconds
        if not is_pooled:
            limits = (f"-c {name}={milliseconds}" for name in ("statement_timeout", "lock_timeout"))
            options["options"] = " ".join([options.get("options", ""), *limits]).strip()
    connection.settings_dict = {**connection.settings_dict, "OPTIONS": options}


def shared_databases(databases: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Two clusters in one database would see each other's jobs; so would the control data."""
    owners: dict[tuple[str, ...], str] = {}
    problems = []
    for alias, database in databases.items():
        if database["NAME"] == EMPTY["NAME"]:
            continue  # what could not be read has been complained of
        place = ("ENGINE", "NAME", "HOST", "PORT")
        key = tuple(str(database.get(part) or "") for part in place)
        key += (str(database.get("OPTIONS", {}).get("host", "")),)
        if key in owners:
            problems.append(
                f"{owners[key]} and {alias} are in the same database; each needs its own"
            )
        owners.setdefault(key, alias)
    return problems


def _postgresql(parsed: dict[str, Any], is_pooled: bool) -> dict[str, Any]:
    options: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, **KEEPALIVES}
    if not is_pooled:
        # A pooler in transaction mode refuses start-up options; there the role carries the limits.
        options["options"] = " ".join(f"-c {k}={v}" for k, v in POSTGRES_LIMITS.items())
        # Statements of our own cursors are prepared when they are first used; Django's never are.
        options["prepare_threshold"] = 0
    given = dict(parsed.get("OPTIONS", {}))
    if "options" in given and "options" in options:
        # Later ones win, so an address may change a limit but not drop the others.
        given["options"] = f"{options['options']} {given['options']}"
    options.update(given)
    return {
        **parsed,
        "ENGINE": "clusters.postgresql",
        "OPTIONS": options,
        "CONN_MAX_AGE": None,
        "CONN_HEALTH_CHECKS": True,
        "DISABLE_SERVER_SIDE_CURSORS": is_pooled,
    }


def _sqlite(where: str, parsed: dict[str, Any], problems: list[str]) -> dict[str, Any]:
    name = str(parsed["NAME"])
    if not name or name == ":memory:":
        problems.append(f"{where}: an SQLite database needs a file; several processes share it")
        return dict(EMPTY)
    # Resolved, so that two names of one file are seen to be one.
    parsed["NAME"] = str(Path(name).resolve())
    parsed["OPTIONS"] = {
        "timeout": 10,
        "transaction_mode": "IMMEDIATE",
        "init_command": SQLITE_PRAGMAS,
        **parsed.get("OPTIONS", {}),
    }
    return {**parsed, "CONN_MAX_AGE": None}
