"""What somebody who asked for background work may do now; the answer comes from ``authn``.

The engine knows no callers. Whoever does registers here, when the program starts; before that nobody may
do anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from clusters.acting import who_acts


class Rights(NamedTuple):
    is_allowed: bool
    # Kinds that need a grant, and that this one may start.
    kinds: frozenset[str] = frozenset()


NONE = Rights(is_allowed=False)
# Actor, verb and cluster id to rights.
Resolver = Callable[[str, str, str], Rights]
_resolvers: list[Resolver] = []


def answer_with(resolver: Resolver) -> None:
    """Let this function say what actors may do."""
    _resolvers[:] = [resolver]


def rights_of(actor: str, verb: str, cluster_id: str) -> Rights:
    """What an actor, written as in ``requested_by``, may do on a cluster at this moment."""
    for resolver in _resolvers:
        return resolver(actor, verb, cluster_id)
    return NONE


# Refuses rows of jobs among which some start what whoever acts may not start.
Guard = Callable[[Any], None]
_guards: list[Guard] = []


def guard_with(guard: Guard) -> None:
    """Let this function look at jobs that somebody starts again."""
    _guards[:] = [guard]


def check_start(rows: Any) -> None:
    """Refuse whoever acts to start these jobs, if their kinds need a grant that he does not have.

    What jobs start is known to the engine, and models do not know that one.
    """
    if who_acts() is not None:
        # Without a guard nobody starts anything.
        (guard,) = _guards
        guard(rows)
