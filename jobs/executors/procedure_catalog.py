"""Which procedures may be called, and where: read once at start from a TOML file.

    [connections.billing]
    url_file = "billing.url"            # or url

    [[connections.billing.allowed]]
    name = "reports.close_month"        # without a schema: public
    kind = "procedure"                  # or function
    commits = false                     # whether the procedure ends transactions itself
    arguments = [
        {name = "month", type = "date"},
        {name = "note", type = "text", is_optional = true},
        {name = "rows_closed", type = "bigint", mode = "out"},
    ]

Imported by the settings, so it knows nothing of models. Addresses hold passwords and are never quoted.
"""

from __future__ import annotations

import stat
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.executors.procedure_types import ArgumentType, find_type, is_name

VARIABLE = "YARDMASTER_PROCEDURES_CONFIG"
PROCEDURE, FUNCTION = "procedure", "function"
IN, INOUT, OUT = "in", "inout", "out"
DEFAULT_SCHEMA = "public"
MAX_ALIAS = 40

_CONNECTION_KEYS = ("url", "url_file", "allowed")
_ROUTINE_KEYS = ("name", "kind", "commits", "arguments")
_ARGUMENT_KEYS = ("name", "type", "mode", "is_optional")


@dataclass(frozen=True, slots=True)
class Argument:
    name: str
    type: ArgumentType
    mode: str = IN
    # Left out of the call when it is not given, so that the database's own default stands.
    is_optional: bool = False


@dataclass(frozen=True, slots=True)
class Routine:
    """A procedure or function that may be called."""

    schema: str
    name: str
    is_function: bool
    commits: bool
    arguments: tuple[Argument, ...]

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"


@dataclass(frozen=True, slots=True)
class Connection:
    """A database by its name here, with what may be called in it."""

    alias: str
    url: str = field(repr=False)
    allowed: Mapping[str, Routine]


def full_name(name: str) -> str:
    """Return the name with its schema."""
    return name if "." in name else f"{DEFAULT_SCHEMA}.{name}"


def read_procedures(path: str, problems: list[str]) -> dict[str, Connection]:
    """Return the connections of the file by alias; without a file there are none."""
    if not path:
        return {}
    return _File(Path(path), problems).read()


class _File:
    """Reads one file and adds all that is wrong with it to ``problems``."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        self.path = path
        self._problems = problems

    def read(self) -> dict[str, Connection]:
        try:
            mode = self.path.stat().st_mode
            document = tomllib.loads(self.path.read_text())
        except (OSError, UnicodeDecodeError) as error:
            self._complain("", f"cannot be read: {error}")
            return {}
        except tomllib.TOMLDecodeError as error:
            self._complain("", f"is no TOML: {error}")
            return {}
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            self._complain("", "others can write it, and it says what may be called; chmod go-w")
        self._check_keys("", document, ("connections",))
        tables = document.get("connections", {})
        if not isinstance(tables, dict):
            self._complain("", "'connections' must be a table")
            return {}
        if mode & stat.S_IROTH and any("url" in t for t in tables.values() if isinstance(t, dict)):
            self._complain("", "others can read it, and it holds an address; chmod o-r")
        found = (self._connection(alias, table) for alias, table in tables.items())
        return {connection.alias: connection for connection in found if connection}

    def _connection(self, alias: str, table: Any) -> Connection | None:
        where = f"[connections.{alias[:MAX_ALIAS]}]"
        if not is_name(alias.replace("-", "_")) or len(alias) > MAX_ALIAS:
            self._complain(
                where,
                f"a name has up to {MAX_ALIAS} letters, digits, '_' and '-', a letter first",
            )
            return None
        if not isinstance(table, dict):
            self._complain(where, "must be a table")
            return None
        self._check_keys(where, table, _CONNECTION_KEYS)
        url = self._url(where, table)
        allowed: dict[str, Routine] = {}
        entries = table.get("allowed", [])
        if not isinstance(entries, list) or not entries:
            self._complain(where, f"allows nothing; add [[connections.{alias}.allowed]]")
            return None
        for number, entry in enumerate(entries, 1):
            routine = self._routine(f"[[connections.{alias}.allowed]] {number}", entry)
            if routine is None:
                continue
            if routine.full_name in allowed:
                self._complain(where, f"{routine.full_name} is allowed twice")
            allowed[routine.full_name] = routine
        return None if url is None else Connection(alias, url, allowed)

    def _url(self, where: str, table: Mapping[str, Any]) -> str | None:
        url, url_file = table.get("url"), table.get("url_file")
        if (url is None) == (url_file is None):
            self._complain(where, "needs exactly one of url and url_file")
            return None
        if url_file is not None:
            path = self.path.parent / str(url_file)
            try:
                mode = path.stat().st_mode
                url = path.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                # Not its name either: it may be an address under the wrong key.
                why = error.strerror if isinstance(error, OSError) else "it is no text"
                self._complain(where, f"url_file: cannot be read: {why}")
                return None
            if mode & (stat.S_IWGRP | stat.S_IROTH | stat.S_IWOTH):
                self._complain(where, "url_file: others can read or write it; chmod g-w,o-rw")
        if not isinstance(url, str) or not _is_address(url):
            self._complain(where, "not the address of a PostgreSQL database: postgresql://…")
            return None
        return url

    def _routine(self, where: str, entry: Any) -> Routine | None:
        if not isinstance(entry, dict):
            self._complain(where, "must be a table")
            return None
        self._check_keys(where, entry, _ROUTINE_KEYS)
        name = entry.get("name")
        parts = full_name(name).split(".") if isinstance(name, str) else []
        if len(parts) != 2 or not all(map(is_name, parts)):
            self._complain(where, f"name: expected schema.name, got {str(name)[:80]!r}")
            return None
        kind = self._one_of(where, entry, "kind", (PROCEDURE, FUNCTION))
        commits = self._boolean(where, entry, "commits")
        if commits and kind == FUNCTION:
            self._complain(where, "commits: a function cannot end a transaction")
        rows = entry.get("arguments", [])
        if not isinstance(rows, list):
            self._complain(where, "arguments: expected a list")
            return None
        found = [self._argument(f"{where} arguments:", row, kind) for row in rows]
        arguments = tuple(argument for argument in found if argument)
        if len({argument.name for argument in arguments}) < len(arguments):
            self._complain(where, "arguments: a name is there twice")
        return Routine(parts[0], parts[1], kind == FUNCTION, commits, arguments)

    def _argument(self, where: str, row: Any, kind: str) -> Argument | None:
        if not isinstance(row, dict):
            self._complain(where, 'each is a table such as {name = "month", type = "date"}')
            return None
        self._check_keys(where, row, _ARGUMENT_KEYS)
        name, type_name = row.get("name"), row.get("type")
        if not isinstance(name, str) or not is_name(name):
            self._complain(where, f"name: {str(name)[:40]!r} is none")
            return None
        if not isinstance(type_name, str):
            self._complain(where, f"{name}: needs a type")
            return None
        try:
            found = find_type(type_name)
        except ValueError as error:
            self._complain(where, f"{name}: type: {error}")
            return None
        mode = self._one_of(f"{where} {name}:", row, "mode", (IN, INOUT, OUT))
        if mode == OUT and kind == FUNCTION:
            self._complain(where, f"{name}: what a function gives out is not among its arguments")
        return Argument(name, found, mode, self._boolean(f"{where} {name}:", row, "is_optional"))

    def _one_of(
        self, where: str, table: Mapping[str, Any], key: str, choices: tuple[str, ...]
    ) -> str:
        value = table.get(key, choices[0])
        if value in choices:
            return str(value)
        self._complain(where, f"{key}: expected one of {', '.join(choices)}")
        return choices[0]

    def _boolean(self, where: str, table: Mapping[str, Any], key: str) -> bool:
        value = table.get(key, False)
        if not isinstance(value, bool):
            self._complain(where, f"{key}: expected true or false")
        return value is True

    def _check_keys(self, where: str, table: Mapping[str, Any], known: Collection[str]) -> None:
        for key in table.keys() - set(known):
            self._complain(where, f"unknown key {key[:40]!r}; known are {', '.join(known)}")

    def _complain(self, where: str, text: str) -> None:
        self._problems.append(f"{VARIABLE}: {self.path} {where} {text}".replace("  ", " "))


def _is_address(url: str) -> bool:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    if not url.startswith(("postgresql://", "postgres://")):
        return False
    try:
        conninfo_to_dict(url)
    except psycopg.Error:
        return False
    return True
