"""How often groups of failures were seen, from what upkeep has counted by the minute and by the hour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import connections
from django.db.models import F, Model, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from jobs.engine.clock import database_now
from jobs.metrics import MAX_TAIL, floor
from jobs.models import Failure, FailureHour, FailureMinute, FailureSighting
from jobs.models.rollup import HOUR, MINUTE
from jobs.states import State

# So many groups can be muted and left out of alerts.
MAX_MUTED = 1000


class RecentFailures(NamedTuple):
    in_24_hours: int
    in_7_days: int
    in_1_hour: int = 0


def recent_failures(using: str, fingerprints: Iterable[str]) -> dict[str, RecentFailures]:
    """How often each of these groups was seen of late, by whole hours."""
    now = database_now(connections[using])
    this_hour, wanted = floor(now, HOUR), list(fingerprints)
    a_day = Q(starts_at__gt=this_hour - timedelta(hours=24))
    hours = FailureHour.objects.using(using).filter(
        fingerprint__in=wanted, starts_at__gt=this_hour - timedelta(days=7)
    )
    counted = hours.values_list("fingerprint").annotate(
        in_24_hours=Coalesce(Sum("count", filter=a_day), 0), in_7_days=Sum("count")
    )
    minutes = FailureMinute.objects.using(using).filter(
        fingerprint__in=wanted, starts_at__gt=floor(now, MINUTE) - timedelta(hours=1)
    )
    late = dict(minutes.values_list("fingerprint").annotate(n=Sum("count")))
    found = {
        fingerprint: RecentFailures(day, week, late.get(fingerprint, 0))
        for fingerprint, day, week in counted
    }
    return {fingerprint: found.get(fingerprint, RecentFailures(0, 0)) for fingerprint in wanted}


def recent_of(hours: Sequence[tuple[datetime, int]]) -> RecentFailures:
    """The same of hours that have been read, the last of them being this one."""
    counts = [count for _, count in hours]
    return RecentFailures(sum(counts[-24:]), sum(counts[-168:]))


def with_recent(groups: QuerySet[Failure]) -> QuerySet[Failure]:
    """Groups with ``in_1_hour``, ``in_24_hours`` and ``in_7_days``, read in one with how often they were
    seen ever."""
    now = database_now(connections[groups.db])

    def seen(table: type[Model], length: timedelta, unit: int) -> Coalesce:
        rows = table._default_manager.using(groups.db).filter(
            fingerprint=OuterRef("fingerprint"), starts_at__gt=floor(now, unit) - length
        )
        counted = rows.order_by().values("fingerprint").annotate(n=Sum("count")).values("n")
        return Coalesce(Subquery(counted), 0)

    return groups.annotate(
        in_1_hour=seen(FailureMinute, timedelta(hours=1), MINUTE),
        in_24_hours=seen(FailureHour, timedelta(hours=24), HOUR),
        in_7_days=seen(FailureHour, timedelta(days=7), HOUR),
    )


def muted_failures(
    using: str,
    start: datetime,
    *,
    queue: str | None = None,
    type: str | None = None,  # noqa: A002  the word of the models
) -> int:
    """How many jobs have failed since, by whole minutes, whose failure somebody has muted."""
    muted = Failure.objects.using(using).all().muted()
    names = [*muted.values_list("fingerprint", flat=True)[:MAX_MUTED]]
    if not names:
        return 0
    # What is not folded first: what is folded between the two looks is counted twice, and not never.
    start, of = floor(start, MINUTE), _given(queue=queue, type=type)
    tail = FailureSighting.objects.using(using).filter(
        fingerprint__in=names,
        seen_at__gte=start,
        job__state=State.FAILED,
        job__fence=F("fence"),
        **{f"job__{column}": value for column, value in of.items()},
    )
    unfolded = len(tail.order_by().values_list("pk")[:MAX_TAIL])
    rows = FailureMinute.objects.using(using).filter(
        fingerprint__in=names, starts_at__gte=start, **of
    )
    return unfolded + (rows.aggregate(n=Sum("failed"))["n"] or 0)


class Commonest(NamedTuple):
    fingerprint: str
    seen: int
    of_all: int


def commonest_failure(
    using: str,
    start: datetime,
    *,
    queue: str | None = None,
    type: str | None = None,  # noqa: A002  the word of the models
) -> Commonest | None:
    """The group that was seen most since, among those that nobody has muted."""
    muted = Failure.objects.using(using).all().muted()
    rows = FailureMinute.objects.using(using).filter(
        starts_at__gte=floor(start, MINUTE), **_given(queue=queue, type=type)
    )
    rows = rows.exclude(fingerprint__in=muted.values("fingerprint"))
    counted = rows.order_by().values("fingerprint").annotate(n=Sum("count"))
    first = counted.order_by("-n", "fingerprint").first()
    if first is None:
        return None
    return Commonest(first["fingerprint"], first["n"], rows.aggregate(n=Sum("count"))["n"] or 0)


def _given(**words: str | None) -> dict[str, str]:
    return {name: value for name, value in words.items() if value is not None}


def failure_trends(using: str, fingerprints: Iterable[str], number: int) -> dict[str, list[int]]:
    """How often each of these groups was seen in each of the last hours, oldest first."""
    this_hour = floor(database_now(connections[using]), HOUR)
    first = this_hour - timedelta(hours=number - 1)
    found = {fingerprint: [0] * number for fingerprint in fingerprints}
    rows = FailureHour.objects.using(using).filter(
        fingerprint__in=list(found), starts_at__gte=first, starts_at__lte=this_hour
    )
    for fingerprint, starts_at, count in rows.values_list("fingerprint", "starts_at", "count"):
        found[fingerprint][int((starts_at - first).total_seconds()) // HOUR] += count
    return found


def failure_hours(using: str, fingerprint: str, number: int) -> list[tuple[datetime, int]]:
    """How often a group was seen in each of the last hours, oldest first, those without included."""
    this_hour = floor(database_now(connections[using]), HOUR)
    first = this_hour - timedelta(hours=number - 1)
    hours = FailureHour.objects.using(using).filter(fingerprint=fingerprint, starts_at__gte=first)
    counted = dict(hours.values_list("starts_at", "count"))
    moments = (first + timedelta(hours=index) for index in range(number))
    return [(moment, counted.get(moment, 0)) for moment in moments]
