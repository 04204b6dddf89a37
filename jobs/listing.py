"""Which jobs a list shows: a walk along one index, newest first, that ends when the page is full.

Every word of a filter that has an index is a way to its jobs: ranges of that index, in the order of
lists. The walk goes along one way, finds each job by its key and tests it for the other words. Where
several ways lead there, the indexes are asked first which of them is short: a rare value must not be
looked for among millions of jobs that lack it. What the words mean is ``jobs.filters.filtered``'s to say;
this is the same in the form that the indexes serve.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from jobs.filters import COUNT_LIMIT, Sort, estimated_count, filtered, parse_metadata
from jobs.models import Job
from jobs.raw import fetch
from jobs.states import FINAL, State

# A way with fewer jobs is walked to its end within a few milliseconds, whatever is found there.
SHORT = 10_000
# Nearly all jobs are of this kind; only the others are in an index.
COMMON_KIND = "python"


class Position(NamedTuple):
    """The last job of the page before."""

    created_at: datetime
    id: UUID


class Test(NamedTuple):
    """A condition on `d`, the row that the walk has come to, or on `j`, its job."""

    sql: str
    values: tuple[Any, ...] = ()


class Range(NamedTuple):
    """A range of the index with this name."""

    name: str
    test: Test


class Way(NamedTuple):
    """Ranges that hold the jobs of a word and no others."""

    word: str
    table: str
    ranges: tuple[Range, ...]
    # Can hold but few, by its nature.
    is_short: bool = False

    @property
    def key(self) -> str:
        return "d.id" if self.table == "job" else "d.job_id"


def newest(
    using: str,
    asked: Mapping[str, Any],
    columns: str,
    limit: int,
    *,
    beyond: Position | None = None,
    is_backwards: bool = False,
) -> list[tuple[Any, ...]]:
    """What ``columns`` reads of the newest jobs beyond a position; backwards, of the oldest.

    ``columns`` is SQL, in which the job is `j`.
    """
    connection = connections[using]
    way = choose_way(connection, asked)
    order, sign = ("ASC", ">") if is_backwards else ("DESC", "<")
    more = [_beyond(connection, way, beyond, sign)] if beyond else []
    pages, values = [], []
    for walk in _walks(connection, way, asked, more):
        pages.append(
            f"SELECT * FROM (SELECT d.created_at, {way.key} AS id {walk.sql}"
            f" ORDER BY d.created_at {order}, {way.key} {order} LIMIT {limit:d}) way"
        )
        values += walk.values
    # The page is found first: only its jobs are read, however many ranges they come from.
    page = " UNION ALL ".join(pages)
    if len(pages) > 1:
        page = (
            f"SELECT * FROM ({page}) ways ORDER BY created_at {order}, id {order} LIMIT {limit:d}"
        )
    return _rows(
        connection,
        f"SELECT {columns} FROM ({page}) page {_join(connection)} job j ON j.id = page.id"
        f" ORDER BY page.created_at {order}, page.id {order}",
        values,
    )


def count(using: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """How many there are, counted up to the limit and in no order."""
    connection = connections[using]
    walks = [*_walks(connection, choose_way(connection, asked), asked, [])]
    found = " UNION ALL ".join(f"SELECT 1 {walk.sql}" for walk in walks)
    [(number,)] = _rows(
        connection,
        f"SELECT count(*) FROM ({found} LIMIT {COUNT_LIMIT + 1:d}) found",
        [value for walk in walks for value in walk.values],
    )
    return {"count": min(number, COUNT_LIMIT), "is_exact": number <= COUNT_LIMIT}


def count_by_state(using: str, asked: Mapping[str, Any]) -> dict[str, int]:
    """The same for jobs in one of the states that are ``asked`` for, by state; one more at the limit."""
    connection = connections[using]
    way = choose_way(connection, asked)
    walks = [*_walks(connection, way, asked, [])]
    # Where the way does not know the state the job is joined, for the states that are asked for.
    state = "d.state" if way.table == "job" else "j.state"
    found = " UNION ALL ".join(f"SELECT {state} {walk.sql}" for walk in walks)
    rows = _rows(
        connection,
        f"SELECT state, count(*) FROM ({found} LIMIT {COUNT_LIMIT + 1:d}) found GROUP BY state",
        [value for walk in walks for value in walk.values],
    )
    return dict(rows)


def estimate(using: str, asked: Mapping[str, Any]) -> dict[str, Any]:
    """How many the planner expects; SQLite's does not say, there it is counted."""
    if connections[using].vendor != "postgresql":
        return count(using, asked)
    return estimated_count(filtered(Job.objects.using(using), asked))


# -- Ways ------------------------------------------------------------------------------------------


def choose_way(connection: BaseDatabaseWrapper, asked: Mapping[str, Any]) -> Way:
    """The shortest way if it is short, else the first one."""
    ways = [*_ways(asked)]
    if len(ways) == 1 or ways[0].is_short:
        return ways[0]
    bounds = ("since", "created_after", "created_before")
    created = {word: asked[word] for word in bounds if word in asked}
    lengths: list[str] = []
    values: list[Any] = []
    for way in ways:
        walks = [*_walks(connection, way, created, [])]
        lengths.append(
            " + ".join(f"(SELECT count(*) FROM (SELECT 1 {w.sql} LIMIT {SHORT}) s)" for w in walks)
        )
        values += [value for walk in walks for value in walk.values]
    [found] = _rows(connection, f"SELECT {', '.join(lengths)}", values)
    return ways[found.index(min(found))] if min(found) < SHORT else ways[0]


def _ways(asked: Mapping[str, Any]) -> list[Way]:
    """The ways to the jobs of a filter, those first on which the fewest jobs are as a rule."""
    states = [State(state) for state in dict.fromkeys(asked.get("state", ()))]
    if not states and ("finished_after" in asked or "finished_before" in asked):
        states = [*FINAL]
    by_state = [Way("state", "job", tuple(map(_state_range, states)))] if states else []
    by_listing = [
        Way(
            word,
            "job_listing",
            tuple(
                Range(f"job_listing_{word}", Test(f"d.{word} = %s", (name,)))
                for name in dict.fromkeys(names)
            ),
        )
        for word in ("type", "queue")
        if (names := _names(asked, word))
    ]
    # Most jobs have succeeded: any other state says more than a queue or a type, and this one less.
    if sorts := asked.get("sorts", ()):
        states = [sort.state for sort in sorts]
        if not _are_retrying(sorts):
            by_state.append(Way("sorts", "job", tuple(_sort_ranges(sorts))))
    is_common = State.SUCCEEDED in states
    rest = by_listing + by_state if is_common else by_state + by_listing
    everything = Way("", "job_listing", (Range("job_listing_pkey", Test("TRUE")),))
    return [*_rare_ways(asked), *rest] or [everything]


def _names(asked: Mapping[str, Any], word: str) -> Sequence[str]:
    """The queues, or the types, of which a job must have one."""
    return (asked[word],) if word in asked else asked.get(f"{word}s", ())


def _rare_ways(asked: Mapping[str, Any]) -> Iterator[Way]:
    def way(word: str, index: str, sql: str, is_short: bool = False) -> Way:
        return Way(word, "job", (Range(index, Test(sql, (asked[word],))),), is_short)

    if "unique_key" in asked:
        # Of the jobs that have not ended one at most has it, of those that have there may be many.
        sql, values = "d.unique_key IS NOT NULL AND d.unique_key = %s", (asked["unique_key"],)
        yield Way(
            "unique_key",
            "job",
            (
                Range("job_unique_while_open", Test(f"{sql} AND d.finished_at IS NULL", values)),
                Range("job_unique_ended", Test(f"{sql} AND d.finished_at IS NOT NULL", values)),
            ),
        )
    if (sorts := asked.get("sorts")) and _are_retrying(sorts):
        yield Way("sorts", "job", tuple(_sort_ranges(sorts)))
    if "workflow_run" in asked:
        sql = "d.workflow_run_id IS NOT NULL AND d.workflow_run_id = %s"
        yield way("workflow_run", "job_workflow_run", sql, True)
    if "copy_of" in asked:
        yield way("copy_of", "job_copies", "d.copy_of IS NOT NULL AND d.copy_of = %s", True)
    if "node" in asked:
        yield way("node", "job_holder", "d.state = 'running' AND d.node_id = %s", True)
    if "schedule" in asked:
        sql = "d.schedule_id IS NOT NULL AND d.schedule_id = %s"
        yield way("schedule", "job_schedule", sql)
    if asked.get("is_held"):
        yield Way("is_held", "job", (Range("job_held", Test("d.is_held")),))
    if "failure" in asked:
        sql = "d.fingerprint IS NOT NULL AND d.fingerprint = %s"
        yield way("failure", "job_fingerprint", sql)
    for text in asked.get("metadata", ()):
        test = Test("d.key = %s AND d.value = %s", tuple(parse_metadata(text)))
        yield Way("metadata", "job_metadata", (Range("job_metadata_pkey", test),))
    if "tag" in asked:
        test = Test("d.tag = %s", (asked["tag"],))
        yield Way("tag", "job_tag", (Range("job_tag_newest", test),))
    if asked.get("kind", COMMON_KIND) != COMMON_KIND:
        yield way("kind", "job_kind", f"NOT (d.kind = '{COMMON_KIND}') AND d.kind = %s")
    if "reason" in asked:
        yield way("reason", "job_reason", "d.reason IS NOT NULL AND d.reason = %s")


def _are_retrying(sorts: Iterable[Sort]) -> bool:
    """Few jobs wait for another attempt."""
    return all(sort.is_retrying for sort in sorts)


def _sort_ranges(sorts: Iterable[Sort]) -> Iterator[Range]:
    for sort in sorts:
        attempts = f" AND {sort.attempts_sql.replace('j.', 'd.')}"
        for reason in sort.reasons:
            test = Test(f"d.reason IS NOT NULL AND d.reason = %s{attempts}", (reason.value,))
            yield Range("job_reason", test)
        if sort.is_retrying:
            # As the index says it, word by word: SQLite does not see what follows from what.
            tried = f"d.attempts > 0 AND d.state IN ('scheduled', 'ready'){attempts}"
            yield Range("job_retrying", Test(f"{tried} AND d.state = %s", (sort.state.value,)))
        elif not sort.reasons:
            found = _state_range(sort.state)
            yield Range(found.name, Test(found.test.sql + attempts, found.test.values))


def _state_range(state: State) -> Range:
    if state == State.RUNNING:
        return Range("job_holder", Test("d.state = 'running'"))
    if state in FINAL:
        return Range("job_final", Test(f"d.state = '{state}' AND d.finished_at IS NOT NULL"))
    half = "d.finished_at IS NULL AND NOT (d.state = 'running')"
    return Range("job_open", Test(f"d.state = '{state}' AND {half}"))


# -- Statements ------------------------------------------------------------------------------------


class Walk(NamedTuple):
    """FROM and WHERE of the jobs in one range that meet all conditions."""

    sql: str
    values: list[Any]


def _walks(
    connection: BaseDatabaseWrapper, way: Way, asked: Mapping[str, Any], more: Iterable[Test]
) -> Iterator[Walk]:
    is_sqlite = connection.vendor == "sqlite"
    tests = [*_possible(connection, asked), *_tests(way, asked), *more]
    join = ""
    if way.table == "job":
        tests = [Test(test.sql.replace("j.", "d."), test.values) for test in tests]
    elif any("j." in test.sql for test in tests):
        join = f" {_join(connection)} job j ON j.id = d.job_id"
    for name, test in way.ranges:
        # SQLite has no statistics to choose by; a primary key's index has a name of its own there.
        hint = f" INDEXED BY {name}" if is_sqlite and not name.endswith("_pkey") else ""
        all_tests = [test, *tests]
        yield Walk(
            f"FROM {way.table} d{hint}{join} WHERE {' AND '.join(one.sql for one in all_tests)}",
            [value for one in all_tests for value in one.values],
        )


def _possible(connection: BaseDatabaseWrapper, asked: Mapping[str, Any]) -> Iterator[Test]:
    """No job has ended later than now. It names no row, so both databases look at it once, and where
    it does not hold they read nothing: else all jobs would be gone through in vain."""
    if "finished_after" in asked:
        yield Test(f"%s <= {_NOW[connection.vendor]}", (asked["finished_after"],))


_NOW = {
    "postgresql": "statement_timestamp()",
    "sqlite": "strftime('%%Y-%%m-%%d %%H:%%M:%%f', 'now')",
}


def _beyond(connection: BaseDatabaseWrapper, way: Way, beyond: Position, sign: str) -> Test:
    if connection.vendor == "sqlite":
        # With statistics it would rather skip through all values of the first column than use a bound
        # on two columns with it.
        sql = f"d.created_at {sign}= %s AND (d.created_at {sign} %s OR {way.key} {sign} %s)"
        return Test(sql, (beyond.created_at, beyond.created_at, beyond.id))
    return Test(f"(d.created_at, {way.key}) {sign} (%s, %s)", tuple(beyond))


def _tests(way: Way, asked: Mapping[str, Any]) -> Iterator[Test]:
    """The conditions that the way's own ranges do not hold already."""
    listed = "d" if way.table == "job_listing" else "j"
    for word in ("queue", "type"):
        if (names := _names(asked, word)) and word != way.word:
            marks = ", ".join(["%s"] * len(names))
            yield Test(f"{listed}.{word} IN ({marks})", tuple(names))
    for word, sql in _PLAIN.items():
        if word in asked and word != way.word:
            yield Test(sql, (asked[word],))
    if (states := asked.get("state")) and way.word != "state":
        marks = ", ".join(["%s"] * len(states))
        yield Test(f"j.state IN ({marks})", tuple(map(str, states)))
    if (sorts := asked.get("sorts")) and way.word != "sorts":
        yield _sorts_test(sorts)
    if "is_held" in asked and way.word != "is_held":
        yield Test("j.is_held" if asked["is_held"] else "NOT j.is_held")
    if "tag" in asked and way.word != "tag":
        sql = "EXISTS (SELECT 1 FROM job_tag t WHERE t.tag = %s AND t.job_id = j.id)"
        yield Test(sql, (asked["tag"],))
    for text in asked.get("metadata", ()):
        pair = tuple(parse_metadata(text))
        if way.word != "metadata" or way.ranges[0].test.values != pair:
            yield Test(_HAS_METADATA, pair)
    if "finished_after" in asked:
        yield Test("j.finished_at >= %s", (asked["finished_after"],))
    if "finished_before" in asked:
        yield Test("j.finished_at < %s", (asked["finished_before"],))
    for word in ("since", "created_after"):
        if word in asked:
            yield Test("d.created_at >= %s", (asked[word],))
    # No job ends before it is made.
    for word in ("created_before", "finished_before"):
        if word in asked:
            yield Test("d.created_at < %s", (asked[word],))


def _sorts_test(sorts: Iterable[Sort]) -> Test:
    parts, values = [], []
    for sort in sorts:
        part = f"j.state = %s AND {sort.attempts_sql}"
        values.append(sort.state.value)
        if sort.reasons:
            part += f" AND j.reason IN ({', '.join(['%s'] * len(sort.reasons))})"
            values += [reason.value for reason in sort.reasons]
        parts.append(f"({part})")
    return Test(f"({' OR '.join(parts)})", tuple(values))


_PLAIN = {
    "kind": "j.kind = %s",
    "reason": "j.reason = %s",
    "failure": "j.fingerprint = %s",
    "copy_of": "j.copy_of = %s",
    "schedule": "j.schedule_id = %s",
    "trigger": "j.trigger = %s",
    "workflow_run": "j.workflow_run_id = %s",
    "unique_key": "j.unique_key = %s",
    "node": "j.state = 'running' AND j.node_id = %s",
}
_HAS_METADATA = (
    "EXISTS (SELECT 1 FROM job_metadata m WHERE m.key = %s AND m.value = %s"
    " AND m.created_at = j.created_at AND m.job_id = j.id)"
)


def _join(connection: BaseDatabaseWrapper) -> str:
    # SQLite keeps the order of tables that are joined like this.
    return "CROSS JOIN" if connection.vendor == "sqlite" else "JOIN"


def _rows(connection: BaseDatabaseWrapper, sql: str, values: Iterable[Any]) -> list[Any]:
    return fetch(connection, sql, [_stored(connection, value) for value in values])


def _stored(connection: BaseDatabaseWrapper, value: Any) -> Any:
    """A value as the database keeps it."""
    if connection.vendor == "sqlite":
        if isinstance(value, datetime):
            return connection.ops.adapt_datetimefield_value(value.astimezone(UTC))
        if isinstance(value, UUID):
            return value.hex
    return value
