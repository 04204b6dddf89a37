"""What somebody who asked for background work may do now; the answer comes from ``authn``.

The engine knows no callers. Whoever does registers here, when the program starts; before that nobody may
do anything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


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
