"""A list that goes on: all tasks that match, oldest first, then each of them again whenever it changes.

It runs after the middleware, perhaps in another process, so every question names its database. Each is a
short one outside of any transaction, and what is kept between them is bounded.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connections

from jobs import listing
from jobs.changes import SOURCES, Change, changes, read_id, read_moment
from jobs.dialects.asyncjobs.wire.states import state_to_wire
from jobs.dialects.asyncjobs.wire.tasks import COLUMNS, tasks_to_wire
from jobs.engine.clock import database_now
from jobs.filters import filtered
from jobs.models import Job
from jobs.models.job import JobQuerySet
from jobs.states import State

logger = logging.getLogger(__name__)

# The original ends a stream after about a minute, and clients come again.
STREAM_SECONDS = 55.0
POLL_SECONDS = 1.0
PAGE = 500
# So much later than it is dated something may become visible.
OVERLAP = timedelta(seconds=3)
# Tasks of which is known what was said last, and of those the ones that only a person or another task
# moves: they are looked at again by their ids.
REMEMBERED, WATCHED = 20_000, 500
_WATCHED_STATES = (State.BLOCKED, State.FAILED, State.CANCELLED, State.SKIPPED)
_NOBODY = UUID(int=0)


class Feed:
    """Tasks in the form of this API; None says that nothing has happened for a while."""

    def __init__(self, using: str, asked: Mapping[str, Any], limit: int | None) -> None:
        self.using = using
        self.asked = asked
        self.left = limit
        self._said: OrderedDict[UUID, tuple[str, int]] = OrderedDict()
        self._watched: OrderedDict[UUID, tuple[str, int]] = OrderedDict()
        # Of the last round, which the next one partly reads again; as small as it can be.
        self._seen: dict[str, set[bytes]] = {source: set() for source in SOURCES}

    def __iter__(self) -> Iterator[dict[str, Any] | None]:
        ends_at = time.monotonic() + STREAM_SECONDS
        try:
            since = database_now(connections[self.using]) - OVERLAP
            for tasks in self._rounds(since):
                for task in tasks:
                    yield task
                    if self.left is not None:
                        self.left -= 1
                        if self.left <= 0:
                            return
                if time.monotonic() >= ends_at:
                    return
                if not tasks:
                    yield None
        except (DatabaseError, InterfaceError):
            # What was sent is whole; the client comes again.
            logger.warning("a stream of tasks ends: its database does not answer", exc_info=True)

    def _rounds(self, since: datetime) -> Iterator[list[dict[str, Any]]]:
        yield from self._all_there_are(since)
        while True:
            now = database_now(connections[self.using])
            yield from self._changed_since(since)
            yield self._read_again()
            since = now - OVERLAP
            time.sleep(POLL_SECONDS)

    def _all_there_are(self, since: datetime) -> Iterator[list[dict[str, Any]]]:
        beyond: listing.Position | None = None
        while True:
            rows = listing.newest(
                self.using,
                self.asked,
                "j.created_at, j.id",
                PAGE,
                beyond=beyond,
                is_backwards=True,
            )
            positions = [listing.Position(read_moment(at), read_id(pk)) for at, pk in rows]
            self._seen["created"].update(
                _key(Change(*position)) for position in positions if position.created_at > since
            )
            yield self._tell([position.id for position in positions])
            if len(positions) < PAGE:
                return
            beyond = positions[-1]

    def _changed_since(self, since: datetime) -> Iterator[list[dict[str, Any]]]:
        for source, before in self._seen.items():
            seen = self._seen[source] = set()
            beyond = Change(since, _NOBODY)
            while True:
                page = changes(self.using, source, beyond, PAGE)
                keys = [_key(change) for change in page]
                seen.update(keys)
                pairs = zip(page, keys, strict=True)
                yield self._tell([change.job_id for change, key in pairs if key not in before])
                if len(page) < PAGE:
                    break
                beyond = page[-1]

    def _read_again(self) -> list[dict[str, Any]]:
        """Those that nothing above tells of, by their ids."""
        ids = [*self._watched]
        if not ids:
            return []
        jobs = self._jobs().filter(pk__any_of=ids)
        moved = [
            job.pk
            for job in jobs.only("id", "state", "reason", "attempts", "max_attempts")
            if _mark(job) != self._watched[job.pk]
        ]
        for pk in moved:
            del self._watched[pk]
        return self._tell(moved)

    def _tell(self, ids: Sequence[UUID]) -> list[dict[str, Any]]:
        """What these are now, as far as they match and it was not said before."""
        if not ids:
            return []
        jobs = filtered(self._jobs().filter(pk__any_of=[*dict.fromkeys(ids)]), self.asked)
        fresh = []
        for job in jobs.only(*COLUMNS).order_by("created_at", "pk"):
            mark = _mark(job)
            if self._said.get(job.pk) != mark:
                fresh.append(job)
                self._remember(job, mark)
        return tasks_to_wire(self.using, fresh) if fresh else []

    def _remember(self, job: Job, mark: tuple[str, int]) -> None:
        _keep(self._said, job.pk, mark, REMEMBERED)
        if job.state in _WATCHED_STATES:
            _keep(self._watched, job.pk, mark, WATCHED)
        else:
            self._watched.pop(job.pk, None)

    def _jobs(self) -> JobQuerySet:
        jobs: JobQuerySet = Job.objects.using(self.using)
        return jobs


def _mark(job: Job) -> tuple[str, int]:
    """What differs when there is something new to say."""
    return state_to_wire(job), job.attempts


def _key(change: Change) -> bytes:
    micros = round(change.at.timestamp() * 1e6)
    return change.job_id.bytes + micros.to_bytes(8)


def _keep(
    kept: OrderedDict[UUID, tuple[str, int]], pk: UUID, mark: tuple[str, int], most: int
) -> None:
    kept[pk] = mark
    kept.move_to_end(pk)
    if len(kept) > most:
        kept.popitem(last=False)
