"""Jobs made of steps: the newest, and those found by words and tags, page by page.

A word is looked for in names and descriptions, stemmed, and may be the state of a job instead. All words
must be found, and one of the tags. Each way to the jobs is a walk along one index that ends with the
page; totals are counted up to a limit.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connections
from django.db.backends.base.base import BaseDatabaseWrapper

from jobs.raw import read_id

# Nobody turns pages further, and totals are counted no further.
MOST = 10_000
MAX_QUERY, MAX_WORDS, MAX_TAGS = 1000, 32, 20
_WORD = re.compile(r"\w+")
# What PostgreSQL leaves out of an English text; SQLite would look for it.
_LEFT_OUT = """
i me my myself we our ours ourselves you your yours yourself yourselves he him his himself she
her hers herself it its itself they them their theirs themselves what which who whom this that
these those am is are was were be been being have has had having do does did doing a an the and
but if or because as until while of at by for with about against between into through during
before after above below to from up down in out on off over under again further then once here
there when where why how all any both each few more most other some such no nor not only own
same so than too very s t can will just don should now
"""
_STOP_WORDS = frozenset(_LEFT_OUT.split())
# The newest of a list of states, by an index of these jobs alone.
_BY_STATE = "job j JOIN steps_listing l ON l.job_id = j.id"
# SQLite keeps the order of a cross join.
_JOIN = {"postgresql": "JOIN", "sqlite": "CROSS JOIN"}
_BY_TAG = "job_tag t JOIN steps_listing l ON l.job_id = t.job_id"


@dataclass(frozen=True, slots=True)
class Search:
    """What is asked for. ``audience`` names who asks, where that matters: as in ``StepsListing``."""

    words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    audience: tuple[str, ...] | None = None


class Way(NamedTuple):
    """FROM and WHERE of some of the jobs, and what they are ordered by."""

    sql: str
    values: list[Any]
    created: str = "l.created_at"
    key: str = "l.job_id"


def read_query(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The words and the tags of a query."""
    words: list[str] = []
    tags: list[str] = []
    for part in text[:MAX_QUERY].replace("\0", " ").split():
        prefix, colon, rest = part.partition(":")
        if colon and prefix in ("tag", "tags"):
            tags += [tag for tag in (rest.split(",") if prefix == "tags" else [rest]) if tag]
        else:
            words += _WORD.findall(part.lower())
    kept = [word for word in words if word not in _STOP_WORDS]
    return tuple(dict.fromkeys(kept))[:MAX_WORDS], tuple(dict.fromkeys(tags))[:MAX_TAGS]


class Found(NamedTuple):
    """How many there are, counted up to the limit, and the ids of one page, newest first."""

    total: int
    ids: list[UUID]


def find(
    using: str, asked: Search, states: Mapping[str, Sequence[str]], offset: int, size: int
) -> Found:
    """One page of what is asked for; ``states`` says which states a word means."""
    connection = connections[using]
    ways = [*_ways(connection, asked, states)]
    lengths = _lengths(connection, ways)
    total = _total(connection, ways, lengths)
    last = min(offset + size, total)
    # Past the end nothing is looked for.
    return Found(total, _page(connection, ways, lengths, offset, last) if offset < last else [])


def _lengths(connection: BaseDatabaseWrapper, ways: Sequence[Way]) -> list[int]:
    """How many jobs are on each way, counted up to the limit."""
    parts = [f"(SELECT count(*) FROM (SELECT 1 FROM {w.sql} LIMIT {MOST:d}) s)" for w in ways]
    values = [value for way in ways for value in way.values]
    [found] = _rows(connection, f"SELECT {', '.join(parts)}", values)
    return [int(number) for number in found]


def _total(connection: BaseDatabaseWrapper, ways: Sequence[Way], lengths: Sequence[int]) -> int:
    there = [(way, length) for way, length in zip(ways, lengths, strict=True) if length]
    longest = max(lengths)
    if len(there) < 2 or longest >= MOST:
        return longest
    # A job may be on several ways.
    parts = [f"SELECT {way.key} AS id FROM {way.sql}" for way, _ in there]
    values = [value for way, _ in there for value in way.values]
    sql = f"SELECT count(*) FROM ({' UNION '.join(parts)}) found"
    [(number,)] = _rows(connection, sql, values)
    return min(int(number), MOST)


def _page(
    connection: BaseDatabaseWrapper,
    ways: Sequence[Way],
    lengths: Sequence[int],
    offset: int,
    last: int,
) -> list[UUID]:
    parts, values = [], []
    for way, length in zip(ways, lengths, strict=True):
        if not length:
            continue
        found = f"SELECT {way.created} AS at, {way.key} AS id FROM {way.sql}"
        created, key = way.created, way.key
        if length < MOST:
            # All of the few are taken and put in order; in the order of a list the planner would go
            # through all jobs for them.
            found = f"SELECT at, id FROM ({found} LIMIT {MOST:d}) few"
            created, key = "at", "id"
        order = f"ORDER BY {created} DESC, {key} DESC LIMIT {last:d}"
        parts.append(f"SELECT * FROM ({found} {order}) way")
        values += way.values
    sql = (
        f"SELECT id FROM ({' UNION '.join(parts)}) ways"
        f" ORDER BY at DESC, id DESC LIMIT {last - offset:d} OFFSET {offset:d}"
    )
    return [read_id(pk) for (pk,) in _rows(connection, sql, values)]


def _ways(
    connection: BaseDatabaseWrapper, asked: Search, states: Mapping[str, Sequence[str]]
) -> Iterator[Way]:
    """Together these find all: by text alone, and for each state that a word names the others by text."""
    audience = _audience(connection, asked.audience)
    tags = _tags(asked.tags)
    if asked.tags and not asked.words:
        for tag in asked.tags:
            # A job may have more than one of them; the union makes it one.
            sql, values = _whole(f"{_BY_TAG} WHERE t.tag = %s", [tag], audience)
            yield Way(sql, values, "t.created_at", "t.job_id")
        return
    yield Way(*_whole(*_text(connection, asked.words), tags, audience))
    for word in asked.words:
        for state in states.get(word, ()):
            others = [one for one in asked.words if one != word]
            sql, values = _text(connection, others)
            condition = (" AND j.kind = 'steps' AND j.state = %s", [state])
            sql, values = _whole(sql, values, condition, tags, audience)
            if others:
                # What is found first, for SQLite would search anew for each job in the state.
                sql = sql.replace(
                    " WHERE ", f" {_JOIN[connection.vendor]} job j ON j.id = l.job_id WHERE ", 1
                )
            elif audience[0]:
                sql = sql.replace("steps_listing l", _BY_STATE, 1)
            else:
                # Nothing else is asked: the index of the states knows all.
                sql = sql.replace("steps_listing l", "job j", 1).replace("l.job_id", "j.id")
            yield Way(sql, values, "j.created_at", "j.id")


def _text(connection: BaseDatabaseWrapper, words: Sequence[str]) -> tuple[str, list[Any]]:
    if not words:
        return "steps_listing l WHERE TRUE", []
    if connection.vendor == "postgresql":
        query = "plainto_tsquery('english', %s)"
        return f"steps_listing l WHERE l.search @@ {query}", [" ".join(words)]
    phrase = " ".join(f'"{word}"' for word in words)
    found = "steps_search s CROSS JOIN steps_listing l ON l.id = s.rowid"
    return f"{found} WHERE s.steps_search MATCH %s", [phrase]


def _tags(tags: Collection[str]) -> tuple[str, list[Any]]:
    if not tags:
        return "", []
    marks = ", ".join(["%s"] * len(tags))
    exists = f"SELECT 1 FROM job_tag t WHERE t.job_id = l.job_id AND t.tag IN ({marks})"
    return f" AND EXISTS ({exists})", [*tags]


def _audience(
    connection: BaseDatabaseWrapper, names: Sequence[str] | None
) -> tuple[str, list[Any]]:
    if names is None:
        return "", []
    marks = ", ".join(["%s"] * len(names)) or "NULL"
    each = (
        "jsonb_array_elements_text(l.audience) AS a(value)"
        if connection.vendor == "postgresql"
        else "json_each(l.audience) AS a"
    )
    named = f"EXISTS (SELECT 1 FROM {each} WHERE a.value IN ({marks}))"
    return f" AND (l.audience IS NULL OR {named})", [*names]


def _whole(
    sql: str, values: Sequence[Any], *more: tuple[str, Sequence[Any]]
) -> tuple[str, list[Any]]:
    return sql + "".join(one for one, _ in more), [*values, *(v for _, vs in more for v in vs)]


def _rows(connection: BaseDatabaseWrapper, sql: str, values: Sequence[Any]) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())
