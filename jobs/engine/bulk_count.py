"""How many jobs a filter means, in bounded time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import OperationalError, connections, transaction
from django.db.models import Count

from jobs.engine.clock import countdown
from jobs.filters import COUNT_LIMIT, estimated_count
from jobs.models.job_queryset import JobQuerySet

# SQLite looks at the clock after so many steps of its machine.
_STEPS = 20_000


@dataclass(frozen=True, slots=True)
class Counted:
    # None: not even the first hundred thousand could be counted in time.
    count: int | None
    is_exact: bool
    # Empty where not all could be counted.
    by_state: dict[str, int]


def count_by_state(jobs: JobQuerySet, seconds: float) -> Counted:
    """All of them where that takes no longer than ``seconds``, else as many as a list would count."""
    try:
        with at_most(jobs.db, seconds):
            by_state = dict(jobs.order_by().values_list("state").annotate(count=Count("pk")))
            return Counted(sum(by_state.values()), True, by_state)
    except TooSlow:
        pass
    try:
        with at_most(jobs.db, seconds):
            count = jobs.order_by().values("pk")[: COUNT_LIMIT + 1].count()
            return Counted(min(count, COUNT_LIMIT), count <= COUNT_LIMIT, {})
    except TooSlow:
        return Counted(None, False, {})


def about(jobs: JobQuerySet, seconds: float) -> int | None:
    """How many there are, or are likely to be where counting takes too long."""
    counted = count_by_state(jobs, seconds)
    if counted.is_exact or connections[jobs.db].vendor != "postgresql":
        return counted.count
    return max(int(estimated_count(jobs)["count"]), counted.count or 0)


class TooSlow(Exception):
    """The statement was stopped."""


@contextmanager
def at_most(using: str, seconds: float) -> Iterator[None]:
    """Let the database stop a statement of this block after so many seconds."""
    connection = connections[using]
    connection.ensure_connection()
    if connection.vendor != "postgresql":
        deadline = countdown() + seconds
        connection.connection.set_progress_handler(lambda: countdown() > deadline, _STEPS)
        try:
            yield
        except OperationalError as error:
            if "interrupted" not in str(error):
                raise
            raise TooSlow from error
        finally:
            connection.connection.set_progress_handler(None, 0)
        return
    try:
        with transaction.atomic(using=using), connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('statement_timeout')")
            before = cursor.fetchone()[0]
            limit = f"{round(seconds * 1000)}ms"
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [limit])
            yield
            cursor.execute("SELECT set_config('statement_timeout', %s, true)", [before])
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", None) != "57014":
            raise
        raise TooSlow from error
