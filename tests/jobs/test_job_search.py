"""Words that no index knows: found job by job, in the order of lists, and no longer than a moment."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from jobs import job_search, listing, payload_search
from jobs.engine import bulk
from jobs.filters import filtered
from jobs.job_search import compares, find
from jobs.models import Job
from tests.factories import make_job
from tests.jobs.test_bulk import carry_out, done

ALPHA = "cluster-alpha"
IDS = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?7[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}")
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
pytestmark = pytest.mark.usefixtures("alpha")


def row(number: int, state: str = "failed", **columns) -> Job:
    """A job; the higher its number the newer it is."""
    return make_job(state, created_at=NOON + timedelta(seconds=number), **columns)


def numbers(asked, limit=100, **where) -> list[UUID]:
    return [UUID(str(pk)) for (pk,) in find(ALPHA, asked, "j.id", limit, **where).rows]


@pytest.mark.parametrize(
    ("comparison", "holds"),
    [("3", [3]), ("=3", [3]), (">3", [4]), (">=3", [3, 4]), ("<3", [2]), ("<=3", [2, 3])],
)
def test_attempts_are_compared(comparison, holds):
    assert [n for n in (2, 3, 4) if compares(comparison, n)] == holds
    jobs = {n: row(n, attempts=n) for n in (2, 3, 4)}
    assert numbers({"attempt": comparison}) == [jobs[n].pk for n in reversed(holds)]


def test_errors_are_found_by_what_they_say_in_any_case():
    one = row(1, error="Traceback\nTimeoutError: the server SAID nothing")
    row(2, error="no 100 %_ route")
    row(3, "ready")
    assert numbers({"error": "timeouterror"}) == [one.pk]
    assert numbers({"error": "said"}) == [one.pk]
    # Nothing in it is a pattern.
    assert numbers({"error": "%"}) != numbers({"error": "_x"}) == []


def test_arguments_are_found_by_their_place():
    one = row(
        1, payload={"user": {"id": 123, "name": "Anna B"}, "list": [{"sku": "x"}], "on": True}
    )
    row(2, payload={"user": {"id": 1234}})
    row(3, payload=[1, 2])
    row(4, payload=None)
    for argument in ("user.id:123", "user.name:Anna B", "list.0.sku:x", "on:true"):
        assert numbers({"args": [argument]}) == [one.pk], argument
    assert numbers({"args": ["user.id:123", "on:false"]}) == []
    assert numbers({"args": ["user:123"]}) == []
    assert numbers({"args": ["list.7.sku:x"]}) == []


def test_secrets_are_found_by_nobody():
    headers = {"Authorization": "Bearer hush", "Accept": "text/plain"}
    job = row(1, kind="http", payload={"url": "https://a.example", "headers": headers})
    assert numbers({"args": ["headers.Accept:text/plain"]}) == [job.pk]
    assert numbers({"args": ["headers.Authorization:Bearer hush"]}) == []
    assert numbers({"args": ["headers.Authorization:***"]}) == [job.pk]


def test_other_words_hold_as_well():
    one = row(1, queue="mail", error="no route")
    row(2, queue="web", error="no route")
    row(3, "cancelled", queue="mail", error="no route")
    assert numbers({"state": ["failed"], "queue": "mail", "error": "route"}) == [one.pk]


def test_it_turns_pages_both_ways():
    jobs = [row(n, error="odd" if n % 2 else "even") for n in range(200)]
    odd = [job.pk for job in reversed(jobs[1::2])]
    assert numbers({"error": "odd"}) == odd
    place = listing.Position(NOON + timedelta(seconds=101), jobs[101].pk)
    middle = odd.index(jobs[101].pk)
    assert numbers({"error": "odd"}, 3, beyond=place) == odd[middle + 1 : middle + 4]
    before = numbers({"error": "odd"}, 3, beyond=place, is_backwards=True)
    assert before == odd[middle - 3 : middle][::-1]


def test_it_ends_in_time_and_says_how_far_it_got(monkeypatch):
    jobs = [row(n, error="odd" if n in (5, 30) else "even") for n in range(40)]
    monkeypatch.setattr(job_search, "SECONDS", 0.0)
    monkeypatch.setattr(job_search, "PAGE", 8)
    beyond, looks, found = None, 0, []
    while True:
        look = find(ALPHA, {"error": "odd"}, "j.id", 10, beyond=beyond)
        found += [UUID(str(pk)) for (pk,) in look.rows]
        looks += 1
        if look.reached is None:
            break
        assert beyond is None or look.reached < beyond
        beyond = look.reached
    assert found == [jobs[30].pk, jobs[5].pk]
    assert looks == 6


def test_errors_are_read_with_the_page_that_they_are_on(monkeypatch):
    """One statement for each page: a look of a moment goes as far as it can."""
    for n in range(12):
        row(n, error="odd" if n == 3 else "even")
    monkeypatch.setattr(job_search, "PAGE", 8)
    with CaptureQueriesContext(connections[ALPHA]) as asked:
        assert numbers({"error": "nowhere"}) == []
    assert len(asked) == 2
    with CaptureQueriesContext(connections[ALPHA]) as asked:
        assert len(numbers({"error": "odd", "attempt": ">=0"})) == 1
    # And one for what is shown of those that were found.
    assert len(asked) == 3


def test_only_so_many_payloads_are_read_at_a_time(monkeypatch):
    """However few jobs match, and however large payloads may be."""
    for n in range(20):
        row(n, payload={"n": n})
    monkeypatch.setattr(payload_search, "MOST_BYTES", 3 * 262_144)
    words = {"args": ["n:0"]}
    for ask in (
        lambda: numbers(words),
        lambda: bulk.glance("retry", words),
        lambda: payload_search.newest_ids(ALPHA, {}, "nothing"),
    ):
        with CaptureQueriesContext(connections[ALPHA]) as asked:
            ask()
        read = [one["sql"] for one in asked if '"job"."payload"' in one["sql"]]
        # A page's ids stand in its statement.
        numbers_read = [len(set(IDS.findall(sql))) for sql in read]
        assert sum(numbers_read) >= 20 and max(numbers_read) <= 3, read


def test_a_query_cannot_have_them_as_conditions():
    for word in ("attempt", "error", "args"):
        with pytest.raises(ValueError, match=word):
            filtered(Job.objects.all(), {word: "x"})


def test_a_bulk_operation_is_about_what_the_list_shows():
    for n in range(9):
        row(n, error="odd" if n % 2 else "even", attempts=n, payload={"n": n})
    words = {"state": ["failed"], "error": "ODD", "attempt": ">2"}
    found = bulk.dry_run("retry", words)
    assert (found.count, found.eligible, found.is_exact) == (3, 3, True)
    assert [str(job.pk) for job in found.sample] == [str(pk) for pk in numbers(words)[::-1]]
    assert done("retry", words) == {"retried": 3}
    assert done("retry", {"args": ["n:8"]}) == {"retried": 1}
    assert done("retry", {"args": ["n:4"]}, limit=1) == {"retried": 1}


def test_a_bulk_operation_looks_again_under_the_lock(monkeypatch):
    job = row(1, error="odd")
    operation = bulk.request("delete", {"error": "odd"}, reason="r", by="cli:x")
    act = bulk._act

    def changed_meanwhile(using, *args):
        Job.objects.using(using).filter(pk=job.pk).update(error="even")
        return act(using, *args)

    monkeypatch.setattr(bulk, "_act", changed_meanwhile)
    assert carry_out(operation).outcomes == {"conflict": 1}
    assert Job.objects.filter(pk=job.pk).exists()
