"""Django's backend for PostgreSQL, with a health check that sends nothing where nothing has happened."""

from __future__ import annotations

import select

from django.db.backends.postgresql import base
from psycopg.pq import TransactionStatus


class DatabaseWrapper(base.DatabaseWrapper):
    def is_usable(self) -> bool:
        """Whether the kept connection still serves; asked once a request.

        A server that ends a connection says so, and a host that is gone is found by the keepalives:
        both make the socket readable. Only then is the server asked, which would cost each request
        a round trip.
        """
        return self._is_silent() or super().is_usable()

    def _is_silent(self) -> bool:
        raw = self.connection
        if raw is None or raw.closed:
            return False
        if raw.pgconn.transaction_status != TransactionStatus.IDLE:
            return False
        poll = select.poll()
        poll.register(raw.fileno(), select.POLLIN)
        return not poll.poll(0)
