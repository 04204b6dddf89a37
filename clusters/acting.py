"""Who acts: on whose behalf the running request or command does what it does.

A context variable, like the binding of the cluster: surfaces bind it and threads start without one. The
engine's own work has nobody; it asks for no right and leaves no trace, see ``clusters.deeds``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

NATIVE, ADMIN, COMMAND = "native", "admin", "command"


def _no_kinds(cluster_id: str) -> frozenset[str]:
    return frozenset()


@dataclass(frozen=True, slots=True)
class Acting:
    """Somebody at a surface, with what the audit tells of him."""

    # As the records name him, such as `key:ci` or `cli:root`.
    actor: str
    # Whether he may do what a verb of ``authn.permissions`` names on a cluster; `*` means all of them.
    may: Callable[[str, str], bool]
    # How he showed who he is.
    credential: str = ""
    # Where he asked: native, admin, command, or the name of a dialect.
    surface: str = ""
    address: str = ""
    request_id: str = ""
    # Of the kinds of work that need a grant those that he may start on a cluster.
    kinds: Callable[[str], frozenset[str]] = _no_kinds
    # Users, groups and the list of clusters are his; he may hand out what he has not.
    is_superuser: bool = False


_acting: ContextVar[Acting | None] = ContextVar("yardmaster_acting", default=None)


def who_acts() -> Acting | None:
    """Who acts, or None where the program itself does."""
    return _acting.get()


@contextmanager
def acting_as(somebody: Acting | None) -> Iterator[None]:
    """Let somebody act for the length of the block; whoever acted before comes back in any case."""
    token = _acting.set(somebody)
    try:
        yield
    finally:
        _acting.reset(token)
