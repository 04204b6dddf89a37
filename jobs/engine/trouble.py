"""Trouble with a database: how long a loop holds back, and what it tells of it.

Loops never die of database errors. They back off and try again for as long as it takes, and write one
line per change of condition, however long it lasts.
"""

from __future__ import annotations

import logging
import random

from django.db import DatabaseError, InterfaceError, OperationalError

from jobs.engine.clock import countdown

logger = logging.getLogger(__name__)

SHORTEST_SECONDS, LONGEST_SECONDS = 0.5, 15.0


class Trouble:
    """What one loop knows of its trouble; ``what`` names it in the log."""

    def __init__(
        self, what: str, *, shortest: float = SHORTEST_SECONDS, longest: float = LONGEST_SECONDS
    ) -> None:
        self._what = what
        self._shortest, self._longest = shortest, longest
        self._count = 0
        # None: there is none.
        self.condition: str | None = None
        self.retry_at = 0.0

    @property
    def is_on(self) -> bool:
        return self.condition is not None

    @property
    def must_wait(self) -> bool:
        """Whether it is too early to try again."""
        return self.condition is not None and countdown() < self.retry_at

    def note(self, error: BaseException) -> None:
        """Something failed: tell of it if it is news, and wait longer each time."""
        condition = condition_of(error)
        if self.condition != condition:
            logger.error("%s fails: %s", self._what, error, exc_info=error)
            self.condition = condition
        self._count += 1
        wait = min(self._shortest * 2 ** min(self._count - 1, 10), self._longest)
        self.retry_at = countdown() + wait * random.uniform(0.8, 1.2)  # noqa: S311

    def end(self) -> None:
        """It worked."""
        if self.condition is not None:
            logger.info("%s works again", self._what)
        self.forget()

    def forget(self) -> None:
        """It is no longer ours to know."""
        self.condition = None
        self._count = 0


def condition_of(error: BaseException) -> str:
    """What kind of error it is: errors of one kind in a row are one condition."""
    state = _sqlstate(error)
    return f"{type(error).__name__} {state}" if state else type(error).__name__


# Classes of SQLSTATE that concern the server, not the statement: connection, resources, shutdown, the
# system below, its own faults; and that it may only be read just now. A cancelled statement is its own.
_OUTAGES = ("08", "53", "57", "58", "XX", "25006")
_STATEMENT_CANCELLED = "57014"
_SQLITE_OUTAGES = ("disk", "readonly", "unable to open", "malformed")


def is_outage(error: BaseException) -> bool:
    """Whether the database as a whole cannot be used now, so that nothing else need be tried."""
    if not isinstance(error, DatabaseError | InterfaceError):
        return False
    if state := _sqlstate(error):
        return state.startswith(_OUTAGES) and state != _STATEMENT_CANCELLED
    if "sqlite" in type(error.__cause__).__module__:
        return any(word in str(error) for word in _SQLITE_OUTAGES)
    # No answer from a server at all.
    return isinstance(error, OperationalError | InterfaceError)


def _sqlstate(error: BaseException) -> str | None:
    state: str | None = getattr(error.__cause__, "sqlstate", None)
    return state
