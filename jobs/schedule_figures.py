"""Figures of the runs of schedules, worked out by the database: of the last day, over time, and tags.

Roll-ups know queues and types but no schedules, so runs are counted here, each question along an index of
those jobs alone that schedules made.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import Avg, Count, DurationField, ExpressionWrapper, F, Q

from jobs.engine.clock import database_now
from jobs.models import Job, Schedule
from jobs.states import State

DAY = timedelta(days=1)
MAX_TAGS_SHOWN = 1000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Dashboard:
    """Schedules as they are, and what became of their runs in the last 24 hours."""

    total: int
    enabled: int
    active: int
    paused: int
    # Their last run failed, or several did.
    failing: int
    # Of these schedules the next run is due within a day.
    upcoming: int
    made_today: int
    succeeded: int
    failed: int
    average_seconds: float | None

    @property
    def judged(self) -> int:
        return self.succeeded + self.failed


@dataclass(slots=True)
class Point:
    """Runs that began in one stretch of time, by what became of them."""

    starts_at: datetime
    succeeded: int = 0
    failed: int = 0
    running: int = 0
    cancelled: int = 0


def dashboard(using: str, kinds: Sequence[str]) -> Dashboard:
    """Figures of all schedules of these kinds of work."""
    now = database_now(connections[using])
    schedules = Schedule.objects.using(using).kept().filter(kind__in=kinds)
    counts = schedules.aggregate(
        total=Count("pk"),
        enabled=Count("pk", filter=Q(is_enabled=True)),
        active=Count("pk", filter=Q(is_enabled=True, is_paused=False)),
        paused=Count("pk", filter=Q(is_paused=True)),
        failing=Count("pk", filter=Q(consecutive_failures__gt=0)),
        upcoming=Count("pk", filter=Q(next_run_at__lt=now + DAY)),
    )
    runs = Job.objects.using(using).filter(schedule_id__isnull=False, kind__in=kinds)
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    took = ExpressionWrapper(F("finished_at") - F("started_at"), output_field=DurationField())
    ended = runs.filter(finished_at__gte=now - DAY).aggregate(
        succeeded=Count("pk", filter=Q(state=State.SUCCEEDED)),
        failed=Count("pk", filter=Q(state=State.FAILED)),
        average=Avg(took, filter=Q(started_at__isnull=False)),
    )
    average = ended.pop("average")
    return Dashboard(
        **counts,
        **ended,
        made_today=runs.filter(created_at__gte=midnight).count(),
        average_seconds=None if average is None else average.total_seconds(),
    )


# The buckets as the database cuts them; a run that has not begun is in none.
_BUCKET = {
    "postgresql": "CAST(floor(extract(epoch FROM started_at) / %s) AS bigint)",
    "sqlite": "CAST(strftime('%%s', started_at) AS integer) / %s",
}


def timeline(
    using: str,
    kinds: Sequence[str],
    length: timedelta,
    bucket_seconds: int,
    *,
    schedule_id: UUID | None = None,
) -> list[Point]:
    """Runs by when they began, bucket by bucket, those in which none did too; the last is the present."""
    connection = connections[using]
    now = database_now(connection)
    last = int((now - _EPOCH).total_seconds()) // bucket_seconds
    number = max(int(length.total_seconds()) // bucket_seconds, 1)
    first = last - number + 1
    points = {index: _point(index, bucket_seconds) for index in range(first, last + 1)}
    adapt = connection.ops.adapt_datetimefield_value
    places = ", ".join(["%s"] * len(kinds))
    condition = ""
    values: list[Any] = [bucket_seconds, adapt(points[first].starts_at), *kinds]
    if schedule_id is not None:
        condition = " AND schedule_id = %s"
        values.append(schedule_id if connection.vendor == "postgresql" else schedule_id.hex)
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {_BUCKET[connection.vendor]}, state, count(*) FROM job"
            " WHERE schedule_id IS NOT NULL AND started_at IS NOT NULL AND started_at >= %s"
            f" AND kind IN ({places}){condition} GROUP BY 1, 2",
            values,
        )
        rows = cursor.fetchall()
    for index, state, count in rows:
        if point := points.get(int(index)):
            _add(point, state, count)
    return list(points.values())


def _point(index: int, bucket_seconds: int) -> Point:
    return Point(_EPOCH + timedelta(seconds=index * bucket_seconds))


def _add(point: Point, state: str, count: int) -> None:
    if state == State.SUCCEEDED:
        point.succeeded += count
    elif state == State.FAILED:
        point.failed += count
    elif state in (State.CANCELLED, State.SKIPPED):
        point.cancelled += count
    elif state in (State.RUNNING, State.WAITING):
        point.running += count


def tags(using: str, kinds: Iterable[str]) -> list[tuple[str, int]]:
    """The tags of schedules by name, and how many bear each."""
    connection = connections[using]
    wanted: list[Any] = [*kinds]
    places = ", ".join(["%s"] * len(wanted))
    each = {
        "postgresql": "CROSS JOIN LATERAL jsonb_array_elements_text(schedule.tags) AS t(tag)",
        "sqlite": "JOIN json_each(schedule.tags) AS t",
    }[connection.vendor]
    tag = "t.tag" if connection.vendor == "postgresql" else "t.value"
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT {tag}, count(*) FROM schedule {each}"
            f" WHERE schedule.deleted_at IS NULL AND schedule.kind IN ({places})"
            f" GROUP BY 1 ORDER BY 1 LIMIT {MAX_TAGS_SHOWN:d}",
            wanted,
        )
        return [(str(name), int(count)) for name, count in cursor.fetchall()]
