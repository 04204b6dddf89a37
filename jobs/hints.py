"""Wake-ups for idle nodes. A hint may be lost, doubled or late: polling is the truth.

NOTIFY takes a database-wide lock when its transaction commits, so it is sent after the enqueue's own
commit and at most fifty times a second per process and queue. What is left unsaid in between is found
by the poll that follows a node's wake-up.
"""

from __future__ import annotations

import logging
import time

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connections, transaction

logger = logging.getLogger(__name__)

CHANNEL = "yardmaster_ready"
# In place of a queue's name: some queue; and a job whose steps are done. No queue can be called so.
ANY_QUEUE = ""
STEPS = "/steps"
QUIET_SECONDS = 0.02
# A hint is a transaction of its own, and not worth a wait for the disk.
_NOTIFY = """
SELECT set_config('synchronous_commit', 'off', true), pg_notify(%s, q)
  FROM unnest(%s::text[]) AS q
"""
_last_sent: dict[tuple[str, str], float] = {}


def hint_ready(alias: str, queues: set[str]) -> None:
    """After the running transaction commits, tell nodes that these queues have ready jobs."""
    if connections[alias].vendor == "postgresql" and settings.NOTIFY:
        transaction.on_commit(lambda: _notify(alias, queues), using=alias)


def hint_steps(alias: str) -> None:
    """The same for jobs that can go on because steps of theirs have ended."""
    hint_ready(alias, {STEPS})


def _notify(alias: str, queues: set[str]) -> None:
    now = time.monotonic()
    due = [q for q in queues if now - _last_sent.get((alias, q), -1.0) >= QUIET_SECONDS]
    if not due:
        return
    if len(_last_sent) > 10_000:
        _last_sent.clear()
    _last_sent.update({(alias, queue): now for queue in due})
    try:
        with connections[alias].cursor() as cursor:
            cursor.execute(_NOTIFY, [CHANNEL, due])
    except (DatabaseError, InterfaceError):
        # The jobs are committed and will be found; the caller must not be told otherwise.
        logger.warning("a wake-up could not be sent", exc_info=True)
