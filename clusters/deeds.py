"""Deeds: what somebody does is what he may do, and it is done with its trace or not at all.

The entry points of the domain say their verb with ``deed``, which takes the place of the transaction
they would open. Where nobody acts it is that transaction and nothing else. Where somebody does, the table
of verbs is asked first, and the trace is written last, in the same transaction, once: what a deed does by
way of other verbs is a part of it.

A surface that tells more than the domain can, such as a thing before and after in its own words, says so
with ``traced``: its trace is the one that is written. It changes nothing of what is allowed.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar

from django.db import transaction

from clusters.acting import Acting, who_acts
from clusters.binding import current_cluster
from clusters.errors import NotAllowed
from clusters.registry import id_of
from clusters.routers import CONTROL

# Of the things that one deed was about, so many are named.
MAX_IDS = 100
LONGEST_VALUE = 8000
EVERYWHERE = "*"
P = ParamSpec("P")
R = TypeVar("R")
Rows = TypeVar("Rows", bound=Any)


class _Within(Enum):
    """What surrounds the running code."""

    # A surface has its own trace: verbs leave none, and ask for rights all the same.
    TRACE = 1
    # A deed that was allowed: what it does by other verbs is a part of it.
    DEED = 2


_within: ContextVar[_Within | None] = ContextVar("yardmaster_within_a_deed", default=None)


@dataclass(slots=True)
class Trace:
    """What will be told; ``before`` and ``after`` hold what differs."""

    target_id: str = ""
    # Who does it, as its surface knows him.
    by: Any = None
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    # Which things were meant, where it is not one that is named.
    filter: Mapping[str, Any] | None = None
    # How many things it changed; None: the one that is named.
    count: int | None = None
    # False: nothing came of it, and nothing is told.
    is_done: bool = True
    # False: nobody will read this; whoever fills it in may save the work.
    is_wanted: bool = True

    def changed(self, count: int) -> None:
        """Say how many things were changed; where it was none there is nothing to tell."""
        self.count, self.is_done = count, count > 0

    def about(self, ids: Sequence[Any]) -> None:
        """Say which things it is about: one by its name, many by a list that may be cut off."""
        if len(ids) == 1:
            self.target_id = str(ids[0])
        elif ids:
            self.filter = {"ids": [str(pk) for pk in ids[:MAX_IDS]]}


def require(verb: str, using: str | None = None) -> None:
    """Refuse whoever acts, if no role of his on this cluster covers the verb.

    Nobody is refused inside of a deed that was allowed, and neither is the program itself.
    """
    somebody = who_acts()
    if somebody is not None and _within.get() is not _Within.DEED:
        _check(somebody, verb, id_of(using) if using else current_cluster().id)


def deed(
    verb: str,
    target_type: str,
    target_id: Any = "",
    *,
    using: str | None = None,
    reason: str = "",
) -> AbstractContextManager[Trace]:
    """A transaction in which whoever acts does what the verb names, if he may, and leaves a trace."""
    using = using or current_cluster().alias
    somebody = who_acts()
    if somebody is None or _within.get() is _Within.DEED:
        return _untold(using)
    _check(somebody, verb, id_of(using))
    if _within.get() is _Within.TRACE:
        return _untold(using, within=_Within.DEED)
    return _told(somebody, using, verb, target_type, target_id, reason, _Within.DEED)


def traced(
    verb: str, target_type: str, target_id: Any = "", *, reason: str = ""
) -> AbstractContextManager[Trace]:
    """What a surface does by verbs of the domain, with a trace in its own words in their place."""
    using = current_cluster().alias
    somebody = who_acts()
    assert somebody is not None, "a surface acts for somebody"
    require(verb, using)
    if _within.get() is not None:
        return _untold(using)
    return _told(somebody, using, verb, target_type, target_id, reason, _Within.TRACE)


def access_deed(
    verb: str, target_type: str, target_id: Any = "", *, on: Sequence[str] = (), reason: str = ""
) -> AbstractContextManager[Trace]:
    """The same for users, keys and roles, which are in the control database.

    ``on`` are the clusters that are concerned; without any, all of them are.
    """
    somebody = who_acts()
    if somebody is None or _within.get() is _Within.DEED:
        return _untold(CONTROL)
    for cluster_id in on or [EVERYWHERE]:
        _check(somebody, verb, cluster_id)
    if _within.get() is _Within.TRACE:
        return _untold(CONTROL, within=_Within.DEED)
    return _told(somebody, CONTROL, verb, target_type, target_id, reason, _Within.DEED)


def tell(
    verb: str,
    target_type: str,
    target_id: Any,
    *,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str = "",
    using: str | None = None,
) -> None:
    """Write the trace of what was done in the running transaction; see ``told_by_caller``."""
    somebody, using = who_acts(), using or current_cluster().alias
    assert somebody is not None, "a surface acts for somebody"
    _check(somebody, verb, EVERYWHERE if using == CONTROL else id_of(using))
    trace = Trace(str(target_id), before=before, after=after)
    write(somebody, using, verb, target_type, trace, reason)


@contextmanager
def told_by_caller() -> Iterator[None]:
    """Verbs in the block leave no trace: whoever calls writes it, in their transaction."""
    with _in(_Within.DEED if _within.get() is _Within.DEED else _Within.TRACE):
        yield


@contextmanager
def part_of_a_deed() -> Iterator[None]:
    """What is left to do of a deed whose trace is written, in transactions of their own."""
    with _in(_Within.DEED):
        yield


def verb_of_rows(
    verb: str, target_type: str, *, key: str = "pk", says: Sequence[str] = ()
) -> Callable[[Callable[Concatenate[Rows, P], R]], Callable[Concatenate[Rows, P], R]]:
    """Make a method of a QuerySet a deed; it returns how many rows it changed.

    ``key`` is the column that the trace names them by, ``says`` are the names of its arguments that the
    trace keeps, and an argument called ``reason`` is the trace's.
    """

    def made(method: Callable[Concatenate[Rows, P], R]) -> Callable[Concatenate[Rows, P], R]:
        @wraps(method)
        def act(rows: Rows, /, *args: P.args, **kwargs: P.kwargs) -> R:
            if who_acts() is None or _within.get() is _Within.DEED:
                return method(rows, *args, **kwargs)
            reason = str(kwargs.get("reason") or "")
            with deed(verb, target_type, using=rows.db, reason=reason) as trace:
                if trace.is_wanted:
                    # Before, while they still are what the rows are chosen by.
                    trace.about([*rows.order_by().values_list(key, flat=True)[: MAX_IDS + 1]])
                done = method(rows, *args, **kwargs)
                trace.changed(int(done))  # type: ignore[call-overload]
                if trace.is_wanted:
                    said = {**dict(zip(says, args, strict=False)), **_only(kwargs, says)}
                    trace.after = {k: v for k, v in said.items() if v is not None} or None
            return done

        return act

    return made


def differences(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of two states of a thing only what is not the same in both."""
    changed = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in changed}, {name: after[name] for name in changed}


# -- How it is written -----------------------------------------------------------------------------


@contextmanager
def _untold(using: str, *, within: Literal[_Within.DEED] | None = None) -> Iterator[Trace]:
    with transaction.atomic(using=using):
        if within is None:
            yield Trace(is_wanted=False)
            return
        with _in(within):
            yield Trace(is_wanted=False)


@contextmanager
def _told(
    somebody: Acting,
    using: str,
    verb: str,
    target_type: str,
    target_id: Any,
    reason: str,
    within: _Within,
) -> Iterator[Trace]:
    with transaction.atomic(using=using):
        trace = Trace(str(target_id))
        with _in(within):
            yield trace
        if trace.is_done:
            write(somebody, using, verb, target_type, trace, reason)


def write(
    somebody: Acting, using: str, verb: str, target_type: str, trace: Trace, reason: str
) -> None:
    """Write a trace in the running transaction."""
    from django.apps import apps

    # By name: models call deeds, and deeds write models.
    model = ("authn", "AccessAuditEntry") if using == CONTROL else ("clusters", "AuditEntry")
    apps.get_model(*model)._default_manager.using(using).create(
        actor=somebody.actor[:200],
        credential=somebody.credential[:40],
        surface=somebody.surface[:20],
        address=somebody.address[:45],
        request_id=somebody.request_id[:128],
        verb=verb,
        target_type=target_type,
        target_id=trace.target_id[:200],
        filter=_short(trace.filter),
        count=trace.count,
        reason=reason[:500],
        before=_short(trace.before),
        after=_short(trace.after),
    )


@contextmanager
def _in(within: _Within) -> Iterator[None]:
    token = _within.set(within)
    try:
        yield
    finally:
        _within.reset(token)


def _check(somebody: Acting, verb: str, cluster_id: str) -> None:
    if not somebody.may(verb, cluster_id):
        raise NotAllowed(verb)


def _only(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: values[name] for name in names if name in values}


def _short(values: Mapping[str, Any] | None) -> Any:
    """What a trace keeps of a thing: of a value that is long, how long it is."""
    if values is None:
        return None
    told = _plain(values)
    for name, value in told.items():
        if isinstance(value, str | list | dict):
            length = len(json.dumps(value, ensure_ascii=False))
            told[name] = value if length <= LONGEST_VALUE else f"{length} characters"
    return told


def _plain(values: Any) -> Any:
    """What a JSON column can hold."""
    if isinstance(values, Mapping):
        return {str(name): _plain(value) for name, value in values.items()}
    if isinstance(values, list | tuple | set | frozenset):
        return [_plain(value) for value in values]
    if isinstance(values, datetime):
        return values.isoformat()
    if isinstance(values, uuid.UUID):
        return str(values)
    if isinstance(values, bytes | memoryview):
        return f"{len(values)} bytes"
    return values
