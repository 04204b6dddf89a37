"""The one table of states: it tells each stored job's word, and finds those that have it."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest
from django.db import connections

from jobs import listing
from jobs.dialects.asyncjobs.wire.states import SORTS, sorts_of, state_to_wire
from jobs.filters import filtered
from jobs.models import Job
from jobs.states import Reason, State
from tests.dialects.asyncjobs.conftest import Caller, check_error
from tests.factories import make_job, make_node

USING = "cluster-alpha"
# Every state and reason that a row may have, tried or not, with tries left or not.
STORED = [
    (state, reason, attempts)
    for state in State
    for reason in (Reason if state == State.FAILED else (None,))
    for attempts in (0, 1, 3, 4)
]
WORDS = {
    (State.READY, None, 0): "new",
    (State.SCHEDULED, None, 0): "new",
    (State.READY, None, 1): "retry",
    (State.SCHEDULED, None, 4): "retry",
    (State.RUNNING, None, 1): "active",
    (State.WAITING, None, 1): "active",
    (State.BLOCKED, None, 0): "blocked",
    (State.SUCCEEDED, None, 1): "complete",
    (State.CANCELLED, None, 0): "terminated",
    (State.SKIPPED, None, 0): "unreachable",
    (State.FAILED, Reason.EXPIRED, 0): "expired",
    (State.FAILED, Reason.TIMEOUT, 1): "expired",
    (State.FAILED, Reason.ERROR, 3): "expired",
    (State.FAILED, Reason.ERROR, 1): "terminated",
    (State.FAILED, Reason.LOST, 3): "expired",
    (State.FAILED, Reason.LOST, 1): "terminated",
    (State.FAILED, Reason.POISONED, 3): "terminated",
    (State.FAILED, Reason.DEPENDENCY, 0): "unreachable",
    (State.FAILED, Reason.BAD_DEFINITION, 1): "queue_error",
}


@pytest.fixture
def stored(alpha: object) -> list[Job]:
    node = make_node()
    columns: dict[str, Any] = {"max_attempts": 3, "node": node, "fence": 1}
    return [
        make_job(state, **columns, attempts=attempts, **({"reason": reason} if reason else {}))
        for state, reason, attempts in STORED
    ]


def test_every_stored_job_has_one_word(stored: list[Job]) -> None:
    for job, what in zip(stored, STORED, strict=True):
        fitting = [word for word, sorts in SORTS.items() for sort in sorts if sort.holds(job)]
        assert len(fitting) == 1, what
        assert state_to_wire(job) == fitting[0]
        assert what not in WORDS or WORDS[what] == fitting[0], what
    assert {state_to_wire(job) for job in stored} == set(SORTS)


def some_words() -> list[tuple[str, ...]]:
    alone = [(word,) for word in SORTS]
    return [*alone, *itertools.combinations(SORTS, 2), tuple(SORTS)]


def test_the_filter_finds_exactly_those_with_its_words(stored: list[Job], api: Caller) -> None:
    word_of = {str(job.pk): state_to_wire(job) for job in stored}
    for words in some_words():
        wanted = {pk for pk, word in word_of.items() if word in words}
        asked = {"sorts": sorts_of(words)}
        walked = listing.newest(USING, asked, "j.id", 1000)
        assert len(walked) == len(wanted), words
        found = filtered(Job.objects.all(), asked)
        assert {str(pk) for pk in found.values_list("pk", flat=True)} == wanted
        query = "&".join(f"state={word}" for word in words)
        tasks = api.listed(f"?limit=1000&{query}")
        assert {task["id"]: task["state"] for task in tasks} == {
            pk: word_of[pk] for pk in wanted
        }, words
        # Beside another word, which may be the way there.
        assert len(api.listed(f"?limit=1000&type=demo:noop&{query}")) == len(wanted)
        assert not api.listed(f"?type=other&{query}")


def test_a_word_that_is_none_is_refused(api: Caller) -> None:
    for query in ("state=done", "state=new&state=", "state=new,retry", "state=NEW"):
        response = api.get(f"v1/tasks?{query}")
        check_error(response, 400, "invalid_argument", "state_invalid", "state")


@pytest.mark.parametrize("word", SORTS)
def test_a_word_is_looked_for_along_an_index(
    word: str, stored: list[Job], is_postgresql: bool
) -> None:
    connection = connections[USING]
    asked = {"sorts": sorts_of([word])}
    (way,) = listing._ways(asked)
    walks = list(listing._walks(connection, way, asked, []))
    with connection.cursor() as cursor:
        if is_postgresql:
            cursor.execute("SET LOCAL enable_seqscan = off")
        for walk, (name, _) in zip(walks, way.ranges, strict=True):
            values = [listing._stored(connection, value) for value in walk.values]
            explain = "EXPLAIN " if is_postgresql else "EXPLAIN QUERY PLAN "
            cursor.execute(
                f"{explain}SELECT d.id {walk.sql} ORDER BY d.created_at DESC, d.id DESC LIMIT 200",
                values,
            )
            plan = "\n".join(str(row[-1]) for row in cursor.fetchall())
            assert "Seq Scan" not in plan
            # Of a few rows PostgreSQL sorts those of another index as gladly.
            named = r"\bjob_\w+\b" if is_postgresql else rf"\b{name}\b"
            assert re.search(named, plan), plan
            assert is_postgresql or name == "job_holder" or "TEMP B-TREE" not in plan, plan
