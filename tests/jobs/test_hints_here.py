"""A node hears of what its own process has committed: at once, in order, and once."""

from __future__ import annotations

import selectors
from collections.abc import Iterator

import pytest
from django.db import connections, transaction

from jobs import hints
from jobs.engine.listening import Listener

pytestmark = pytest.mark.django_db(transaction=True)
USING = "cluster-alpha"


@pytest.fixture
def heard(monkeypatch) -> Iterator[list[str]]:
    monkeypatch.setattr(hints, "_last_sent", {})
    monkeypatch.setattr(hints, "_senders", {})
    queues: list[str] = []
    hints.tell_node(USING, queues.append)
    yield queues
    hints.tell_node(USING, None)


def test_a_node_hears_of_its_own_process_when_that_commits(heard):
    with transaction.atomic(using=USING):
        hints.hint_ready(USING, {"mail"})
        assert heard == []
    assert heard == ["mail"]


def test_a_node_hears_nothing_of_what_is_rolled_back(heard):
    with pytest.raises(RuntimeError), transaction.atomic(using=USING):
        hints.hint_ready(USING, {"mail"})
        raise RuntimeError
    assert heard == []


def test_a_node_hears_each_hint_of_its_own_however_fast_they_come(heard):
    for _ in range(5):
        hints.hint_steps(USING)
    assert heard == [hints.STEPS] * 5


def test_a_node_that_is_gone_is_told_nothing(heard):
    hints.tell_node(USING, None)
    hints.hint_ready(USING, {"mail"})
    assert heard == []


def test_a_node_listens_to_others_and_not_to_its_own_process(heard, is_postgresql):
    if not is_postgresql:
        pytest.skip("SQLite has no notifications")
    listened: list[str] = []
    with selectors.DefaultSelector() as selector:
        listener = Listener(USING, selector, "database", listened.append)
        try:
            connections[USING].ensure_connection()
            assert listener.follow()
            hints.hint_ready(USING, {"own"})
            other = connections[USING].copy()
            try:
                with other.cursor() as cursor:
                    cursor.execute("SELECT pg_notify(%s, 'foreign')", [hints.CHANNEL])
            finally:
                other.close()
            while not listened:
                assert selector.select(timeout=30)
                listener.take()
        finally:
            listener.stop()
            connections[USING].close()
    assert listened == ["foreign"]
    assert heard == ["own"]
