"""What time it is: the database says. Nobody else in the engine asks a clock of this host.

On PostgreSQL statements use ``clock_timestamp()`` themselves. SQLite has no clock but the host's, so
there a statement gets the time as a parameter, in the form in which Django stores times.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from django.db.backends.base.base import BaseDatabaseWrapper

# Counts time asleep too, where the system has such a clock.
_COUNTDOWN = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def countdown() -> float:
    """Seconds on a clock that never jumps; the same for all processes of a host."""
    return time.clock_gettime(_COUNTDOWN)


def database_now(connection: BaseDatabaseWrapper) -> datetime:
    """The database's current time, aware and in UTC."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp()")
            now: datetime = cursor.fetchone()[0]
            return now.astimezone(UTC)
    return datetime.now(UTC)


def host_now() -> datetime:
    """This host's own idea of the time; only to be compared with the database's."""
    return datetime.now(UTC)


def sqlite_time(seconds_from_now: float = 0.0) -> str:
    """A time as Django stores it in SQLite."""
    moment = datetime.now(UTC) + timedelta(seconds=seconds_from_now)
    return moment.strftime("%Y-%m-%d %H:%M:%S.%f")


def sqlite_minute() -> str:
    """The minute that has begun, as Django stores it in SQLite: without a fraction, which is none."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:00")
