"""Declared: schedules that stand in code beside their handlers come to the cluster, and go.

Each node brings what its handlers declare: when it starts it makes what is missing and changes what
differs, after that it only says now and then that the declarations still hold. What no node has said for
an hour is deleted, as people delete, and comes back with its declaration. Any number of nodes may start
at once: what one of them has done is nothing to do for the others.

Operators keep their word: whether a schedule is enabled or paused is theirs once it exists, and one that
they made under the same name is left alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.db.models.functions import Lower, Now

from clusters.policy import ClusterPolicy
from jobs.declarations import Declaration
from jobs.engine import arm, schedules
from jobs.engine.clock import countdown
from jobs.engine.definition import COMPANION
from jobs.errors import DuplicateSchedule, JobError, ScheduleNotFound
from jobs.models import Schedule, Source, Timing

logger = logging.getLogger(__name__)

BY = "code"
# How often a node says that its declarations hold.
SAY_SECONDS = 300.0
# What no node has declared for so long goes.
FORGOTTEN_AFTER = timedelta(hours=1)
LOOK_SECONDS = 60.0
RETIRED_AT_ONCE = 200
# Another node may be quicker; then there is something new to look at.
TRIES = 3


class Declared:
    """A duty of one node: bring its declarations, and keep them."""

    def __init__(self, declarations: Sequence[Declaration]) -> None:
        self._declarations = declarations
        # Of the schedules that are ours, by name in lower case; None before the first time.
        self._kept: set[str] | None = None
        self._told: set[str] = set()

    def __call__(self, using: str, policy: ClusterPolicy) -> int:
        for _ in range(TRIES):
            if self._kept is not None and refresh(using, self._kept) == len(self._kept):
                break
            # The first time, or one has been deleted since.
            self._kept = self._bring_all(using)
        return 0

    def _bring_all(self, using: str) -> set[str]:
        kept: set[str] = set()
        for one in self._declarations:
            try:
                if bring(using, one) is not None:
                    kept.add(one.key)
                    self._told.discard(one.key)
                    continue
                why = "there is a schedule of this name that code has not made; it is left alone"
            except JobError as error:
                why = f"{error.field or 'definition'}: {error}"
            if one.key not in self._told:
                logger.warning("declared schedule %r: %s", one.name, why)
                self._told.add(one.key)
        return kept


class Retirement:
    """A duty of one node: retire what nobody has declared for an hour.

    Not in the node's first hour: after a time without any node everything would look forgotten, and a
    schedule that is deleted and brought back has lost the runs that it missed.
    """

    def __init__(self) -> None:
        self._begun_at = countdown()

    def __call__(self, using: str, policy: ClusterPolicy) -> int:
        if countdown() - self._begun_at < FORGOTTEN_AFTER.total_seconds():
            return 0
        return retire_forgotten(using)


def bring(using: str, declaration: Declaration) -> Schedule | None:
    """Let the schedule be as declared; None where people have one of this name."""
    values = _values_of(declaration)
    for attempt in range(TRIES):
        try:
            return _bring(using, declaration, values)
        except (DuplicateSchedule, ScheduleNotFound):
            if attempt == TRIES - 1:
                raise
    return None


def _bring(using: str, declaration: Declaration, values: Mapping[str, Any]) -> Schedule | None:
    # The look without a lock: a node that finds nothing to do writes nothing.
    found: Schedule | None = _named(using, declaration).first()
    if found is not None:
        if found.source != Source.CODE:
            return None
        if not _differing(found, values):
            return found
    with transaction.atomic(using=using):
        if found is None:
            found = _back_or_new(using, declaration, values)
        else:
            found = _named(using, declaration).select_for_update(no_key=True).first()
            if found is None or found.source != Source.CODE:
                raise ScheduleNotFound
        # Another node may have done it while we waited for the row.
        if differing := _differing(found, values):
            found = schedules.change(found.pk, differing, by=BY, source=Source.CODE)
        Schedule.objects.using(using).filter(pk=found.pk).update(declared_at=Now())
    return found


def _named(using: str, declaration: Declaration) -> Any:
    rows = Schedule.objects.using(using).kept().alias(key=Lower("name"))
    return rows.filter(key=declaration.key)


def _back_or_new(using: str, declaration: Declaration, values: Mapping[str, Any]) -> Schedule:
    gone = Schedule.objects.using(using).filter(source=Source.CODE, deleted_at__isnull=False)
    gone = gone.alias(key=Lower("name")).filter(key=declaration.key)
    pk = gone.order_by("-deleted_at").values_list("pk", flat=True).first()
    if pk is not None:
        logger.info("schedule %r is declared again and comes back", declaration.name)
        return schedules.restore(pk, by=BY)
    return schedules.create({**values, "name": declaration.name}, by=BY, source=Source.CODE)


def _differing(found: Schedule, values: Mapping[str, Any]) -> dict[str, Any]:
    """What must be changed for the schedule to be as declared; what is not said has its default."""
    wanted = schedules.draft({**values, "name": found.name})
    names = schedules.EDITABLE - {"name", "is_enabled", "anchor_at"}
    differing = {
        name: getattr(wanted, name)
        for name in sorted(names)
        if getattr(wanted, name) != getattr(found, name)
    }
    if not differing.keys().isdisjoint(arm.TIMING_FIELDS):
        # A timing is changed as a whole.
        companion = COMPANION[Timing(wanted.timing)]
        for name in arm.TIMING_FIELDS:
            differing.pop(name, None)
        differing |= {"timing": wanted.timing, companion: getattr(wanted, companion)}
    return differing


def _values_of(declaration: Declaration) -> dict[str, Any]:
    values = dict(declaration.values)
    for name in ("starts_at", "ends_at"):
        if values.get(name) is not None:
            values[name] = datetime.fromisoformat(values[name])
    return values


def refresh(using: str, keys: set[str]) -> int:
    """Say that these are still declared; returns how many there are. Changes nothing else of them."""
    if not keys:
        return 0
    rows = Schedule.objects.using(using).kept().filter(source=Source.CODE)
    rows = rows.alias(key=Lower("name")).filter(key__in=keys)
    return rows.update(declared_at=Now())


def retire_forgotten(using: str) -> int:
    """Delete schedules of code that no node has declared for an hour; returns how many."""
    rows = Schedule.objects.using(using).kept().filter(source=Source.CODE)
    forgotten = rows.filter(declared_at__lt=Now() - FORGOTTEN_AFTER).order_by("declared_at")
    retired = 0
    for pk, name in forgotten.values_list("pk", "name")[:RETIRED_AT_ONCE]:
        with transaction.atomic(using=using):
            # Once more under its lock: a node may have come back to it.
            if not forgotten.filter(pk=pk).select_for_update(no_key=True).exists():
                continue
            schedules.delete(pk, by=BY)
        logger.info("schedule %r is declared by no node any more and is retired", name)
        retired += 1
    return retired
