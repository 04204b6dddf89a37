"""The PostgreSQL server that is measured on, and databases of our own in it."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote, urlencode

import psycopg
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict


class Server:
    """A server. Databases made here have names nobody else uses, and are dropped at the end."""

    def __init__(self, url: str) -> None:
        address = {name: str(value) for name, value in conninfo_to_dict(url).items() if value}
        self.host = address.get("host", "127.0.0.1")
        self.port = address.get("port", "5432")
        self.user = address.get("user", "postgres")
        self.password = address.get("password", "")
        self._maintenance = address.get("dbname", "postgres")
        self._prefix = f"bench_{secrets.token_hex(4)}"
        self._made: set[str] = set()

    def url(self, name: str) -> str:
        password = f":{quote(self.password, safe='')}" if self.password else ""
        where = urlencode({"host": self.host, "port": self.port})
        return f"postgresql://{quote(self.user, safe='')}{password}@/{name}?{where}"

    def name(self, purpose: str) -> str:
        return f"{self._prefix}_{purpose}"

    def create(self, purpose: str, template: str | None = None) -> str:
        """Make an empty database, or a copy of another; returns its name."""
        name = self.name(purpose)
        self.drop(name)
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        self._made.add(name)
        self._execute(statement)
        return name

    def drop(self, name: str) -> None:
        assert name.startswith(self._prefix), name
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} (FORCE)").format(sql.Identifier(name)))
        self._made.discard(name)

    def drop_all(self) -> None:
        for name in list(self._made):
            self.drop(name)

    def checkpoint(self) -> None:
        """Begin each run with nothing left to write of the one before, where we may ask for it."""
        with suppress(errors.InsufficientPrivilege):
            self._execute(sql.SQL("CHECKPOINT"))

    def describe(self) -> dict[str, str]:
        """The version, and the settings that make a figure what it is."""
        names = ("server_version", "fsync", "synchronous_commit", "full_page_writes")
        names += ("shared_buffers", "max_wal_size")
        with psycopg.connect(self.url(self._maintenance), connect_timeout=5) as connection:
            rows = [connection.execute(f"SHOW {name}").fetchone() for name in names]
        return {name: str(row[0]) for name, row in zip(names, rows, strict=True) if row}

    def _execute(self, statement: sql.Composable) -> None:
        url = self.url(self._maintenance)
        with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
            connection.execute(statement)


@contextmanager
def running_server(url: str | None, directory: Path) -> Iterator[Server]:
    """The server at ``url``; without one a durable server of our own, for the length of the block."""
    if url:
        server = Server(url)
        try:
            yield server
        finally:
            server.drop_all()
        return
    from tests.postgres import EmbeddedPostgres

    embedded = EmbeddedPostgres(directory / "postgres", fsync=True)
    embedded.start()
    try:
        yield Server(f"postgresql://postgres@/postgres?{urlencode({'host': embedded.socket})}")
    finally:
        embedded.stop()
