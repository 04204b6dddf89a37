"""A list that goes on: all tasks that match, oldest first, then each of them again whenever it changes.

After all there are, every round looks for new tasks by the time of their making and for those that run,
and looks again at the tasks that are watched: those that have not ended, the oldest first, and the last
ones that stopped without success. It runs after the middleware, perhaps in another process, so every
question names its database. Each is a short one outside of any transaction, and what is kept between
them is bounded.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.db import DatabaseError, InterfaceError, connections

from jobs import listing
from jobs.dialects.asyncjobs.views.slices import task_slices
from jobs.dialects.asyncjobs.wire.states import state_to_wire
from jobs.engine.clock import database_now
from jobs.filters import filtered
from jobs.models import Job
from jobs.models.job_queryset import JobQuerySet
from jobs.raw import read_id, read_moment
from jobs.states import FINAL, State

logger = logging.getLogger(__name__)

# The original ends a stream after about a minute, and clients come again.
STREAM_SECONDS = 55.0
POLL_SECONDS = 1.0
# A round that takes long is followed by so many times as long a rest.
REST = 5
PAGE = 500
# So much later than it is dated a new task may become visible, and so many are looked at for that. Where
# more come within one round the stream ends: the next one begins with them.
OVERLAP, RECENT = timedelta(seconds=30), 5_000
# Tasks of which is known what was said last, and those that are looked at again: open ones, and those
# that only a person moves.
REMEMBERED, WATCHED, STOPPED = 20_000, 5_000, 500
OPEN = tuple(state for state in State if state not in FINAL)


class Mark(NamedTuple):
    """What differs when there is something new to say."""

    word: str
    attempts: int


class Feed:
    """Tasks as lines in the form of this API; an empty one says that nothing has happened for a while."""

    def __init__(self, using: str, asked: Mapping[str, Any], limit: int | None) -> None:
        self.using = using
        self.asked = asked
        # Tasks may come into the states that are asked for, and leave them.
        self.scope = {word: value for word, value in asked.items() if word != "sorts"}
        self.left = limit
        self._said: OrderedDict[UUID, Mark] = OrderedDict()
        self._open: OrderedDict[UUID, Mark] = OrderedDict()
        self._stopped: OrderedDict[UUID, Mark] = OrderedDict()
        # New tasks of the last round, which the next one reads again, the newest first.
        self._recent: dict[UUID, None] = {}

    def __iter__(self) -> Iterator[bytes]:
        ends_at = time.monotonic() + STREAM_SECONDS
        try:
            for lines in self._rounds():
                for line in lines:
                    yield line + b"\n"
                    if self.left is not None:
                        self.left -= 1
                        if self.left <= 0:
                            return
                if time.monotonic() >= ends_at:
                    return
                if not lines:
                    yield b""
        except (DatabaseError, InterfaceError):
            # What was sent is whole; the client comes again.
            logger.warning("a stream of tasks ends: its database does not answer", exc_info=True)

    def _rounds(self) -> Iterator[list[bytes]]:
        yield from self._all_there_are()
        while True:
            began = time.monotonic()
            new = self._new()
            if new is None:
                return
            watched = [*self._open, *self._stopped]
            ids = [*dict.fromkeys((*watched, *new, *self._running()))]
            yield from self._tell(self._moved(ids))
            yield []
            # Twenty of these must not take the machine from others, however much they watch.
            time.sleep(POLL_SECONDS * max(1.0, REST * (time.monotonic() - began)))

    def _all_there_are(self) -> Iterator[list[bytes]]:
        self._new()
        if "sorts" in self.asked:
            open_ = self._ids({**self.scope, "state": OPEN}, WATCHED, is_backwards=True)
            self._moved([*dict.fromkeys((*open_, *reversed(self._recent)))])
        beyond: listing.Position | None = None
        while True:
            columns = "j.created_at, j.id"
            rows = listing.newest(
                self.using, self.asked, columns, PAGE, beyond=beyond, is_backwards=True
            )
            ids = [read_id(pk) for _, pk in rows]
            self._moved(ids)
            yield from self._tell(ids)
            if len(rows) < PAGE:
                return
            beyond = listing.Position(read_moment(rows[-1][0]), ids[-1])

    def _new(self) -> list[UUID] | None:
        """Tasks that were not there in the last round, the oldest first; None where some were missed."""
        since = database_now(connections[self.using]) - OVERLAP
        since = max(since, self.scope.get("created_after", since))
        ids = self._ids({**self.scope, "created_after": since}, RECENT)
        before = self._recent
        self._recent = dict.fromkeys(ids)
        new = [pk for pk in reversed(ids) if pk not in before]
        return None if len(new) >= RECENT else new

    def _running(self) -> list[UUID]:
        """Those that run and are not watched: they waited behind more than can be watched."""
        ids = self._ids({**self.scope, "state": (State.RUNNING,)}, WATCHED)
        return [pk for pk in ids if pk not in self._open]

    def _ids(self, asked: Mapping[str, Any], limit: int, is_backwards: bool = False) -> list[UUID]:
        rows = listing.newest(self.using, asked, "j.id", limit, is_backwards=is_backwards)
        return [read_id(pk) for (pk,) in rows]

    def _moved(self, ids: Sequence[UUID]) -> list[UUID]:
        """Those that are not any more as they were when they were last looked at."""
        if not ids:
            return []
        words = ("pk", "state", "reason", "attempts", "max_attempts")
        rows = self._jobs().filter(pk__any_of=ids).values_list(*words, named=True)
        found = {row.pk: row for row in rows}
        moved = []
        for pk in ids:
            row, before = found.get(pk), self._open.get(pk) or self._stopped.get(pk)
            mark = None if row is None else _mark(row)
            if mark is None or mark != before:
                moved.append(pk)
                self._watch(pk, row.state if row else None, mark)
        return moved

    def _watch(self, pk: UUID, state: str | None, mark: Mark | None) -> None:
        is_known = self._open.pop(pk, None) is not None
        self._stopped.pop(pk, None)
        if mark is None or state is None or state == State.SUCCEEDED:
            return
        if state in FINAL:
            _keep(self._stopped, pk, mark, STOPPED)
            return
        # The oldest run first: who came last goes, but never one that has started.
        if len(self._open) >= WATCHED and not is_known and state == State.RUNNING:
            self._open.popitem()
        if len(self._open) < WATCHED:
            self._open[pk] = mark
            if state in (State.RUNNING, State.WAITING):
                self._open.move_to_end(pk, last=False)

    def _tell(self, ids: Sequence[UUID]) -> Iterator[list[bytes]]:
        """What these are now, as far as they match and it was not said before."""
        jobs = filtered(self._jobs(), self.asked)
        for told in task_slices(jobs, ids):
            lines = []
            for job, text in told:
                mark = _mark(job)
                if self._said.get(job.pk) != mark:
                    lines.append(text)
                    _keep(self._said, job.pk, mark, REMEMBERED)
            if lines:
                yield lines

    def _jobs(self) -> JobQuerySet:
        jobs: JobQuerySet = Job.objects.using(self.using)
        return jobs


def _mark(job: Any) -> Mark:
    return Mark(state_to_wire(job), job.attempts)


def _keep(kept: OrderedDict[UUID, Mark], pk: UUID, mark: Mark, most: int) -> None:
    kept[pk] = mark
    kept.move_to_end(pk)
    if len(kept) > most:
        kept.popitem(last=False)
