"""Wake-ups for idle nodes. A hint may be lost, doubled or late: polling is the truth.

A node hears at once of what its own process has committed, without the database; NOTIFY tells all
others. That takes a database-wide lock when its transaction commits, so it is sent after the enqueue's
own commit and at most fifty times a second per process and queue. What is left unsaid in between is
found by the poll that follows a node's wake-up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connections, transaction

from jobs.raw import fetch

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
# The node of this process, if it is one's.
_nodes: dict[str, Callable[[str], None]] = {}
# Sessions of this process that have notified, by their process at the server, and when they did.
_senders: dict[int, float] = {}
OURS_SECONDS = 30.0
MOST_KEPT = 10_000


def tell_node(alias: str, hinted: Callable[[str], None] | None) -> None:
    """From now on call ``hinted``, in any thread, with each queue of the alias that this process hints
    at; None: no more."""
    if hinted is None:
        _nodes.pop(alias, None)
    else:
        _nodes[alias] = hinted


def is_ours(server_process: int) -> bool:
    """Whether a notification comes from this process, whose node has been told already."""
    sent_at = _senders.get(server_process)
    return sent_at is not None and time.monotonic() - sent_at < OURS_SECONDS


def hint_ready(alias: str, queues: set[str]) -> None:
    """After the running transaction commits, tell nodes that these queues have ready jobs."""
    is_notified = connections[alias].vendor == "postgresql" and settings.NOTIFY
    if is_notified or alias in _nodes:
        transaction.on_commit(lambda: _hint(alias, queues, is_notified), using=alias)


def hint_steps(alias: str) -> None:
    """The same for jobs that can go on because steps of theirs have ended."""
    hint_ready(alias, {STEPS})


def _hint(alias: str, queues: set[str], is_notified: bool) -> None:
    # First of all: this node may begin while the others are being told.
    if (hinted := _nodes.get(alias)) is not None:
        for queue in queues:
            hinted(queue)
    if is_notified:
        _notify(alias, queues)


def _notify(alias: str, queues: set[str]) -> None:
    now = time.monotonic()
    due = [q for q in queues if now - _last_sent.get((alias, q), -1.0) >= QUIET_SECONDS]
    if not due:
        return
    if len(_last_sent) > MOST_KEPT:
        _last_sent.clear()
    _last_sent.update({(alias, queue): now for queue in due})
    try:
        if alias in _nodes:
            _note_sender(alias, now)
        fetch(connections[alias], _NOTIFY, [CHANNEL, due])
    except (DatabaseError, InterfaceError):
        # The jobs are committed and will be found; the caller must not be told otherwise.
        logger.warning("a wake-up could not be sent", exc_info=True)


def _note_sender(alias: str, now: float) -> None:
    connection = connections[alias]
    connection.ensure_connection()
    if len(_senders) > MOST_KEPT:
        _senders.clear()
    _senders[connection.connection.info.backend_pid] = now
