"""How many jobs wait in each queue, from the indexes alone."""

from __future__ import annotations

from django.db import connections

from jobs.states import State

# How far a look into each queue goes, and how many entries may be read in all by a second, longer look
# into those that are deeper.
FIRST_LOOK, LOOK_BUDGET = 200, 100_000

# The states are written out and the order is that of the index: only so do both databases use it.
_UNREADY = "state IN ('blocked', 'scheduled', 'waiting')"
_WHERE = {
    State.READY: "state = 'ready' AND queue = q.name ORDER BY kind, priority, run_at, id",
    State.SCHEDULED: f"{_UNREADY} AND queue = q.name AND state = 'scheduled'",
    State.BLOCKED: f"{_UNREADY} AND queue = q.name AND state = 'blocked'",
    State.WAITING: f"{_UNREADY} AND queue = q.name AND state = 'waiting'",
}
DEPTHS = tuple(_WHERE)
_COUNTS = ", ".join(
    f"(SELECT count(*) FROM (SELECT 1 AS one FROM job WHERE {where} LIMIT %s) AS {state.value})"
    for state, where in _WHERE.items()
)
_LOOK = f"SELECT name, {_COUNTS} FROM queue AS q"


def depths(using: str) -> dict[str, dict[State, int]]:
    """The jobs of each queue by state, those that run left out; never more than are there, and fewer
    only where there are more than ``LOOK_BUDGET`` in all."""
    with connections[using].cursor() as cursor:
        cursor.execute(_LOOK, [FIRST_LOOK + 1] * len(DEPTHS))
        found = {name: counts for name, *counts in cursor.fetchall()}
        deep = [name for name, counts in found.items() if max(counts) > FIRST_LOOK]
        if deep:
            limit = max(FIRST_LOOK + 1, LOOK_BUDGET // len(deep))
            places = ", ".join(["%s"] * len(deep))
            cursor.execute(
                f"{_LOOK} WHERE name IN ({places})",
                [*[limit] * len(DEPTHS), *deep],
            )
            found.update({name: counts for name, *counts in cursor.fetchall()})
    return {name: dict(zip(DEPTHS, counts, strict=True)) for name, counts in found.items()}
