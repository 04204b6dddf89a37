"""Deeds that were refused, in the audit: one rule for every surface.

A surface calls ``tell`` where it turns an exception into its answer. The transaction of the deed has
been rolled back by then, so the row stays. It is written to the audit of the cluster in the address;
what names no cluster is told in the audit of access. Who may not see a cluster does not come this far:
for him it is not there, and nothing is written to it.

Only what would change something is told, and not everything of a flood: of one caller at one address,
who asks for one verb, a process writes one row a minute. Of one caller it writes twenty at once and then
one a minute; what there is no room for is told every ten minutes in a row about ``others``. ``count`` is
how many requests there were since the row before.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied
from django.db import DatabaseError, InterfaceError, transaction
from rest_framework import exceptions

from authn.addresses import origin_of
from clusters import deeds
from clusters.acting import Acting
from clusters.health import watch
from clusters.models import REFUSED
from clusters.registry import alias_of
from clusters.routers import CONTROL

logger = logging.getLogger(__name__)

REFUSALS = (PermissionDenied, exceptions.PermissionDenied)
# The role would do, and it takes a grant for work of a kind: an error of the jobs' own.
NOT_GRANTED = "kind_not_granted"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
SECONDS_A_ROW = 60.0
ROWS_AT_ONCE = 20
SECONDS_OF_OTHERS = 600.0
OTHERS = "others"
MOST_CALLERS = 1000
# A verb, and where it was asked for.
Sort = tuple[str, str]


@dataclass(slots=True)
class _Sort:
    """Requests that are told of by the same row, when one was written last, and those left out since."""

    at: float = -math.inf
    left_out: int = 0

    def due(self, now: float, seconds: float) -> int:
        """For how many requests a row is due now; 0: for none, this one is left out."""
        self.left_out += 1
        if now - self.at < seconds:
            return 0
        self.at, count = now, self.left_out
        self.left_out = 0
        return count


class _Caller:
    """What one caller was refused on one cluster."""

    def __init__(self, now: float) -> None:
        self._left, self._since = float(ROWS_AT_ONCE), now
        self._sorts: dict[Sort, _Sort] = {}
        # What there was no room for.
        self._others = _Sort()

    def due(self, sort: Sort, now: float) -> tuple[_Sort, int, bool]:
        """The row, for how many requests it is due, and whether it is of this sort alone."""
        known = self._sorts.get(sort)
        if known is not None and now - known.at < SECONDS_A_ROW:
            return known, known.due(now, SECONDS_A_ROW), True
        if self._has_room(now):
            self._forget(now)
            known = self._sorts.setdefault(sort, _Sort())
            return known, known.due(now, SECONDS_A_ROW), True
        return self._others, self._others.due(now, SECONDS_OF_OTHERS), False

    def _has_room(self, now: float) -> bool:
        self._left = min(ROWS_AT_ONCE, self._left + (now - self._since) / SECONDS_A_ROW)
        self._since = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def _forget(self, now: float) -> None:
        """No more sorts stay than there was room for of late; what was left out of others counts on."""
        if len(self._sorts) < 2 * ROWS_AT_ONCE:
            return
        for sort, known in [*self._sorts.items()]:
            if now - known.at >= SECONDS_A_ROW:
                self._others.left_out += known.left_out
                del self._sorts[sort]


class _Told:
    """Who was told of; of so many callers at most, those who were refused last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callers: OrderedDict[tuple[str, str], _Caller] = OrderedDict()

    def __len__(self) -> int:
        return len(self._callers)

    def due(self, who: tuple[str, str], sort: Sort) -> tuple[_Sort, int, bool]:
        now = time.monotonic()
        with self._lock:
            caller = self._callers.setdefault(who, _Caller(now))
            self._callers.move_to_end(who)
            if len(self._callers) > MOST_CALLERS:
                self._callers.popitem(last=False)
            return caller.due(sort, now)

    def was_not_written(self, row: _Sort, count: int) -> None:
        """Count them to the next row."""
        with self._lock:
            row.left_out += count

    def forget(self) -> None:
        with self._lock:
            self._callers.clear()


told = _Told()


def tell(
    request: Any,
    error: Exception,
    somebody: Acting,
    *,
    cluster_id: str | None,
    verb: str = "",
) -> None:
    """Write that somebody was refused, if he was; nobody is answered differently if that fails.

    ``verb`` is what the address is for; an error that knows better has its own.
    """
    is_refusal = isinstance(error, REFUSALS) or getattr(error, "code", "") == NOT_GRANTED
    if request.method in SAFE_METHODS or not is_refusal:
        return
    verb = getattr(error, "verb", "") or verb
    where = cluster_id or deeds.EVERYWHERE
    row, count, is_apart = told.due((where, somebody.actor), (verb, origin_of(somebody.address)))
    if not count:
        return
    if is_apart:
        trace = deeds.Trace(count=count, after=_lacking(verb, getattr(error, "kind", "")))
        target_type, trace.target_id = _target(request, verb)
    else:
        trace, target_type = deeds.Trace(target_id=OTHERS, count=count), "address"
    using = alias_of(cluster_id) if cluster_id else CONTROL
    try:
        if watch.is_down(using):
            raise InterfaceError("it did not answer a moment ago")
        with transaction.atomic(using=using):
            deeds.write(somebody, using, REFUSED, target_type, trace, "")
    except (DatabaseError, InterfaceError):
        told.was_not_written(row, count)
        logger.warning(
            "that %s was refused %s on %s was not told", somebody.actor, verb, where, exc_info=True
        )


def _lacking(verb: str, kind: str) -> dict[str, str]:
    return {"verb": verb, "kind": kind} if kind else {"verb": verb}


def _target(request: Any, verb: str) -> tuple[str, str]:
    """What the address names first, such as a job by its id; else the address itself."""
    match = getattr(request, "resolver_match", None)
    named: Mapping[str, Any] = match.kwargs if match is not None else {}
    for name, value in named.items():
        if name == "cluster_id":
            continue
        noun = name.removesuffix("_id")
        if noun in (name, "object"):
            # Not an id of something, but a name: of what the verb is about.
            noun = verb.partition(".")[0].removesuffix("s")
        return _TYPES.get(noun, noun)[:40], str(value).replace("\0", "")
    return "address", str(request.path).replace("\0", "")


# What the traces of deeds call a thing, where its address has another word.
_TYPES = {"key": "api_key"}
