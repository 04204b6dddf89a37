"""Whether a job that has the id of a new one is the same job: asked for once more, or another."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from jobs.engine.insert import Row
from jobs.models import Job, JobDependency
from jobs.sealing import SealError, is_sealed, opened
from jobs.states import State


def is_repeat(old: Job, row: Row) -> bool:
    """Compare all that was asked for, and nothing that queue or cluster filled in."""
    new, terms = row.job.new, row.job.terms
    data = None if old.payload_bytes is None else bytes(old.payload_bytes)
    asked_and_kept = (
        (new.priority, old.priority),
        (terms.timeout_seconds, old.timeout_seconds),
        # An upper limit tells nothing of what the queue's was at that time.
        (None if new.is_limited_by_queue else new.max_attempts, old.max_attempts),
        (terms.progress_timeout_seconds, old.progress_timeout_seconds),
        (terms.retry_base_seconds, old.retry_base_seconds),
        (terms.retry_cap_seconds, old.retry_cap_seconds),
        (terms.retry_curve, old.retry_curve),
        (new.expires_at, old.expires_at),
        (new.deadline_at, old.deadline_at),
        (new.copy_of, old.copy_of),
    )
    return (
        (old.kind, old.type, old.queue) == (terms.kind.name, terms.type, terms.queue)
        and (old.on_lost, old.unique_key, data) == (new.on_lost, new.unique_key, new.payload_bytes)
        and all(asked is None or asked == kept for asked, kept in asked_and_kept)
        and sorted(old.tags) == sorted(row.job.tags)
        and is_same_json(old.metadata, dict(row.job.metadata))
        and _is_same_payload(old.payload, new.payload)
        and (new.run_at is None or _is_due_as_asked(old, new.run_at))
        and is_same_json(old.dialect_notes, new.notes)
        # Where parents may be missing there may be no edges; a dialect's notes tell of all of them.
        and (new.lost_parents is not None or _waits_for_the_same(old, row))
    )


def _is_due_as_asked(old: Job, asked: datetime) -> bool:
    """As far as it can still be told: an attempt or somebody's wish may have changed the time."""
    if old.fence or (old.state != State.SCHEDULED and old.run_at != old.created_at):
        return True
    return old.run_at == max(asked, old.created_at)


def _waits_for_the_same(old: Job, row: Row) -> bool:
    """Edges to jobs that have been deleted since count for nothing."""
    new = row.job.new
    edges = JobDependency.objects.using(old._state.db).filter(child_id=old.pk)
    kept: dict[UUID, tuple[str, str]] = {
        edge.parent_id: (edge.needs, edge.on_failure) for edge in edges
    }
    asked = dict.fromkeys(new.depends_on, (new.needs, new.on_dependency_failure))
    differing = {pk for pk in kept.keys() | asked.keys() if kept.get(pk) != asked.get(pk)}
    return not Job.objects.using(old._state.db).filter(pk__in=differing).exists()


def _is_same_payload(one: Any, other: Any) -> bool:
    """Of sealed ones the text is the same as long as the key is."""
    if is_same_json(one, other):
        return True
    if not (is_sealed(one) and is_sealed(other)):
        return False
    try:
        return is_same_json(opened(one).payload, opened(other).payload)
    except SealError:
        return False


def is_same_json(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal, numbers by their value: PostgreSQL keeps 1e23 as an integer."""
    stack = [(one, other)]
    while stack:
        a, b = stack.pop()
        if isinstance(a, dict) and isinstance(b, dict):
            # JSON has no keys but strings.
            b = {_key(key): value for key, value in b.items()}
            if a.keys() != b.keys():
                return False
            stack += [(value, b[key]) for key, value in a.items()]
        elif isinstance(a, list) and isinstance(b, (list, tuple)):
            if len(a) != len(b):
                return False
            stack += zip(a, b, strict=True)
        elif not _is_same_scalar(a, b):
            return False
    return True


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    return repr(key)


def _is_same_scalar(a: Any, b: Any) -> bool:
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, float) != isinstance(b, float):
        try:
            return float(a) == float(b)
        except (TypeError, ValueError, OverflowError):
            return False
    return bool(a == b)
