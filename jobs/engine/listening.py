"""Hints from PostgreSQL: LISTEN on the connection a node uses anyway, and take in what was notified.

A hint may be lost, doubled or late; polling is the truth. What sends them is ``jobs.hints``.
"""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.db import InterfaceError, connections

from jobs.hints import CHANNEL, is_ours


class Listener:
    """Calls ``hinted`` with the queue of each notification. ``name`` is its place in the selector."""

    def __init__(
        self,
        alias: str,
        selector: selectors.BaseSelector,
        name: str,
        hinted: Callable[[str], None],
    ) -> None:
        self._alias = alias
        self._selector = selector
        self._name = name
        self._hinted = hinted
        self._on: Any = None
        self._descriptor: int | None = None

    def follow(self) -> bool:
        """Listen on the connection in use; tells whether it is a new one, which may have missed some."""
        connection = connections[self._alias]
        if connection.vendor != "postgresql" or not settings.NOTIFY or settings.DB_POOLED:
            return False
        raw = connection.connection
        if raw is None or raw is self._on:
            return False
        self.stop()
        raw.prepare_threshold = 0
        # Keeps those that arrive while a statement runs; without it the node sleeps over them.
        raw.add_notify_handler(lambda note: self._hear(note.pid, note.payload))
        raw.execute(f"LISTEN {CHANNEL}")
        self._on = raw
        # A descriptor of our own: the driver may close its one before we hear of it.
        self._descriptor = os.dup(raw.fileno())
        self._selector.register(self._descriptor, selectors.EVENT_READ, self._name)
        return True

    def take(self) -> None:
        """Take in what has arrived; an error where the connection is gone."""
        raw = connections[self._alias].connection
        if raw is None or raw is not self._on:
            raise InterfaceError("the connection was replaced")
        raw.pgconn.consume_input()
        while (note := raw.pgconn.notifies()) is not None:
            self._hear(note.be_pid, note.extra.decode())

    def _hear(self, sender: int, queue: str) -> None:
        if not is_ours(sender):
            self._hinted(queue)

    def stop(self) -> None:
        if self._descriptor is not None:
            self._selector.unregister(self._descriptor)
            os.close(self._descriptor)
        self._on = self._descriptor = None
