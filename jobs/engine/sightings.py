"""Sightings of failures become groups, and how often each was seen where, by the minute and the hour.

Folding is one transaction, like that of tallies. Groups are locked in the order of their keys; of those
that are there already the row is read first, so that what a fold saw is added to where they were seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connections, models, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

from clusters.models import Node
from clusters.policy import ClusterPolicy
from jobs import fingerprints
from jobs.models import Attempt, Failure, FailureHour, FailureMinute, FailureSighting, Job
from jobs.models.failure import MOST_SEEN_ON, RETURNS_AFTER
from jobs.states import State

FOLD_SIGHTINGS = 1000


def fold_sightings(using: str, policy: ClusterPolicy) -> int:
    """Add some sightings to their groups of failures, each exactly once; returns how many."""
    if not FailureSighting.objects.using(using).exists():
        return 0
    with transaction.atomic(using=using):
        rows = _take_sightings(connections[using])
        if rows:  # another node may have been faster
            jobs = _jobs(using, {job_id for _, job_id, _, _ in rows})
            seen: dict[str, _Seen] = {}
            for fingerprint, job_id, fence, seen_at in rows:
                group = seen.setdefault(fingerprint, _Seen())
                group.add(job_id, fence, seen_at, jobs.get(job_id))
            _add_to_groups(using, seen, jobs)
        return len(rows)


class _OfJob(NamedTuple):
    queue: str
    type: str
    state: str
    fence: int


class _Seen:
    """What some sightings of one group say."""

    # So many of the latest are tried for one whose attempt is still there.
    CANDIDATES = 3

    def __init__(self) -> None:
        self.times: list[datetime] = []
        self.by_hour: dict[datetime, int] = {}
        # By minute, queue and type: how often, and of these the ends of jobs.
        self.by_minute: dict[tuple[datetime, str, str], list[int]] = {}
        self.tries: list[tuple[datetime, UUID, int]] = []

    def add(self, job_id: UUID, fence: int, seen_at: datetime, job: _OfJob | None) -> None:
        minute = seen_at.replace(second=0, microsecond=0)
        hour = minute.replace(minute=0)
        self.times.append(seen_at)
        self.by_hour[hour] = self.by_hour.get(hour, 0) + 1
        self.tries.append((seen_at, job_id, fence))
        if job is not None:
            cell = self.by_minute.setdefault((minute, job.queue, job.type), [0, 0])
            cell[0] += 1
            cell[1] += job.state == State.FAILED and job.fence == fence

    @property
    def latest(self) -> list[tuple[datetime, UUID, int]]:
        return sorted(self.tries, reverse=True)[: self.CANDIDATES]


def _take_sightings(connection: BaseDatabaseWrapper) -> list[tuple[str, UUID, int, datetime]]:
    sightings = FailureSighting.objects.using(connection.alias)
    skips = connection.features.has_select_for_update_skip_locked
    taken = sightings.select_for_update(skip_locked=skips).order_by("pk")
    rows = list(
        taken.values_list("pk", "fingerprint", "job_id", "fence", "seen_at")[:FOLD_SIGHTINGS]
    )
    sightings.filter(pk__in=[row[0] for row in rows])._raw_delete(connection.alias)
    return [row[1:] for row in rows]


def _jobs(using: str, ids: Iterable[UUID]) -> dict[UUID, _OfJob]:
    """Of these jobs, by their keys, no more than is counted."""
    rows = Job.objects.using(using).filter(pk__in=ids)
    columns = ("pk", "queue", "type", "state", "fence")
    return {pk: _OfJob(*others) for pk, *others in rows.values_list(*columns)}


def _add_to_groups(using: str, seen: dict[str, _Seen], jobs: Mapping[UUID, _OfJob]) -> None:
    examples = _examples(using, seen, jobs)
    places = _places(using, seen, jobs)
    # In the order of their keys: two nodes that add to the same groups wait, and never for each other.
    order = sorted(seen)
    rows = Failure.objects.using(using).filter(pk__in=order).order_by("pk")
    known = {row.pk: row for row in rows.select_for_update(no_key=True)}
    groups, hours, minutes, returned = [], [], [], []
    for fingerprint in order:
        group = seen[fingerprint]
        last, job_id, _ = group.latest[0]
        example = examples.get(fingerprint) or Failure(job_id=job_id)
        example.fingerprint = fingerprint
        example.count = len(group.times)
        example.first_seen_at, example.last_seen_at = min(group.times), last
        before = known.get(fingerprint)
        example.seen_on = _merged(before.seen_on if before else {}, places[fingerprint])
        groups.append(example)
        hours += [(fingerprint, hour, group.by_hour[hour]) for hour in sorted(group.by_hour)]
        minutes += [(fingerprint, *key, *group.by_minute[key]) for key in sorted(group.by_minute)]
        if before and example.first_seen_at - before.last_seen_at >= RETURNS_AFTER:
            returned.append(fingerprint)
    _upsert_groups(using, groups)
    _upsert(using, FailureHour, ("fingerprint", "starts_at", "count"), hours, _MORE_HOURS)
    _upsert(using, FailureMinute, _MINUTE, minutes, _MORE_MINUTES)
    if returned:
        Failure.objects.using(using).all().say_returned(returned)


def _examples(
    using: str, seen: Mapping[str, _Seen], jobs: Mapping[UUID, _OfJob]
) -> dict[str, Failure]:
    """For each group the newest attempt that is still there, in the columns of a group."""
    wanted = {key[1:] for group in seen.values() for key in group.latest}
    ids = {job_id for job_id, _ in wanted if job_id in jobs}
    tries = Attempt.objects.using(using).filter(job_id__in=ids)
    attempts = {(row.job_id, row.fence): row for row in tries if (row.job_id, row.fence) in wanted}
    found = {}
    for fingerprint, group in seen.items():
        for _, job_id, fence in group.latest:
            if (attempt := attempts.get((job_id, fence))) is not None:
                found[fingerprint] = _example(job_id, jobs[job_id], attempt)
                break
    return found


def _example(job_id: UUID, job: _OfJob, attempt: Attempt) -> Failure:
    text = attempt.error or ""
    parts = fingerprints.parts(attempt.error_type, fingerprints.message_of(text), text)
    return Failure(
        error_type=parts.error_type,
        message=parts.message,
        frame=parts.frame,
        type=job.type,
        queue=job.queue,
        job_id=job_id,
        example=text,
    )


# -- Where it was seen -----------------------------------------------------------------------------


def _places(
    using: str, seen: Mapping[str, _Seen], jobs: Mapping[UUID, _OfJob]
) -> dict[str, dict[str, list[str]]]:
    """The types, nodes and versions of each group's sightings, the latest last."""
    rows = Attempt.objects.using(using).filter(job_id__in=list(jobs))
    ran_on = {(job, fence): node for job, fence, node in rows.values_list(*_OF_ATTEMPTS)}
    columns = Node.objects.using(using).filter(pk__in={*ran_on.values()})
    nodes: dict[Any, tuple[str, str]] = {
        pk: (f"{host}:{pid}", version)
        for pk, host, pid, version in columns.values_list("pk", "host", "pid", "version")
    }
    found = {}
    for fingerprint, group in seen.items():
        types: list[str] = []
        names: list[str] = []
        versions: list[str] = []
        for _, job_id, fence in sorted(group.tries):
            if (job := jobs.get(job_id)) is not None:
                types.append(job.type)
            if (node_id := ran_on.get((job_id, fence))) in nodes:
                name, version = nodes[node_id]
                names.append(name)
                versions.append(version)
        found[fingerprint] = {"types": types, "nodes": names, "versions": versions}
    return found


_OF_ATTEMPTS = ("job_id", "fence", "node_id")


def _merged(before: Mapping[str, list[str]], now: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Each name once, at its last place; so many of the latest."""
    both = {what: [*before.get(what, ()), *names] for what, names in now.items()}
    return {
        what: [*dict.fromkeys(reversed(names))][:MOST_SEEN_ON][::-1] for what, names in both.items()
    }


# -- Written ---------------------------------------------------------------------------------------

_EXAMPLE = ("error_type", "message", "frame", "type", "queue", "job_id", "example")
_NEWER = "excluded.last_seen_at >= failure.last_seen_at"
# An example that was not found has no type, and leaves the one that is there.
_GROUP_CHANGES = ", ".join(
    [
        "count = failure.count + excluded.count",
        "seen_on = excluded.seen_on",
        "first_seen_at = CASE WHEN excluded.first_seen_at < failure.first_seen_at"
        " THEN excluded.first_seen_at ELSE failure.first_seen_at END",
        f"last_seen_at = CASE WHEN {_NEWER}"
        " THEN excluded.last_seen_at ELSE failure.last_seen_at END",
        *(
            f"{column} = CASE WHEN {_NEWER} AND excluded.type <> ''"
            f" THEN excluded.{column} ELSE failure.{column} END"
            for column in _EXAMPLE
        ),
    ]
)
_MORE_HOURS = "(fingerprint, starts_at) DO UPDATE SET count = failure_hour.count + excluded.count"
_MINUTE = ("fingerprint", "starts_at", "queue", "type", "count", "failed")
_MORE_MINUTES = (
    "(fingerprint, starts_at, queue, type) DO UPDATE SET"
    " count = failure_minute.count + excluded.count,"
    " failed = failure_minute.failed + excluded.failed"
)


def _upsert_groups(using: str, groups: Sequence[Failure]) -> None:
    columns = ("fingerprint", *_EXAMPLE, "count", "first_seen_at", "last_seen_at", "seen_on")
    rows = [[getattr(group, column) for column in columns] for group in groups]
    _upsert(using, Failure, columns, rows, f"(fingerprint) DO UPDATE SET {_GROUP_CHANGES}")


def _upsert(
    using: str,
    model: type[models.Model],
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
    on_conflict: str,
) -> None:
    if not rows:
        return
    connection = connections[using]
    by_name = {field.column: field for field in model._meta.concrete_fields}
    fields = [by_name[column] for column in columns]
    values = [
        field.get_db_prep_save(value, connection)
        for row in rows
        for field, value in zip(fields, row, strict=True)
    ]
    places = ", ".join([f"({', '.join(['%s'] * len(columns))})"] * len(rows))
    with connection.cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {model._meta.db_table} ({', '.join(columns)}) VALUES {places}"
            f" ON CONFLICT {on_conflict}",
            values,
        )
