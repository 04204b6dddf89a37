"""The health check of a kept connection to PostgreSQL."""

from __future__ import annotations

import select
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from django.db import connections

from tests import settings as test_settings

pytestmark = [
    pytest.mark.skipif(test_settings.BACKEND != "postgresql", reason="of PostgreSQL"),
    pytest.mark.django_db(transaction=True),
]


@pytest.fixture
def connection() -> Iterator[Any]:
    connection = connections["cluster-alpha"]
    connection.ensure_connection()
    # Django's tests keep connections as they are; requests do this at their beginning.
    connection.health_check_enabled, connection.health_check_done = True, False
    yield connection
    connection.close()


class Spy:
    """Counts what is sent on a connection."""

    def __init__(self, connection: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent = 0
        original = psycopg.ClientCursor._execute_send

        def counted(cursor: Any, *args: Any, **kwargs: Any) -> Any:
            self.sent += 1
            return original(cursor, *args, **kwargs)

        monkeypatch.setattr(psycopg.ClientCursor, "_execute_send", counted)


def end(connection: Any) -> None:
    """Let the server end this connection."""
    pid = connection.connection.info.backend_pid
    with connections["cluster-beta"].cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 5000)", [pid])


def test_a_silent_connection_is_used_without_a_question(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(connection, monkeypatch)
    before = connection.connection
    assert connection.is_usable()
    assert spy.sent == 0
    assert connection.connection is before


def test_a_connection_that_the_server_ended_is_replaced(connection: Any) -> None:
    end(connection)
    assert not connection.is_usable()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
        assert cursor.fetchone() == (1,)


def test_one_with_a_word_from_the_server_is_asked_and_kept(
    connection: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = connection.connection
    before.execute("LISTEN somebody")
    other = connections["cluster-alpha"].copy()
    with other.cursor() as cursor:
        cursor.execute("NOTIFY somebody")
    other.close()
    assert select.select([before.fileno()], [], [], 10)[0]
    spy = Spy(connection, monkeypatch)
    assert connection.is_usable()
    assert spy.sent == 1
    assert connection.connection is before


def test_one_that_was_closed_here_is_not_usable(connection: Any) -> None:
    connection.connection.close()
    assert not connection.is_usable()
