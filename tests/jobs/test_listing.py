"""What a list shows is what the words of its filter mean, in order, whichever way it is read."""

from __future__ import annotations

import itertools
import random
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from jobs import listing
from jobs.filters import Sort, as_json, filtered, parse_metadata
from jobs.models import Job
from jobs.states import FINAL, Reason, State
from tests.factories import make_job, make_node

ALPHA = "cluster-alpha"
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
COPIED = UUID("01a20191-868c-7979-8cdf-31c02d86b8b8")


@pytest.fixture
def jobs(alpha):
    """Jobs of all sorts, several of them made in the same instant."""
    dice = random.Random(7)
    nodes = [make_node(), make_node()]
    for number in range(60):
        state = [*State][number % len(State)]
        created_at = NOON + timedelta(seconds=number // 3)
        columns = {
            "type": dice.choice("abc"),
            "queue": dice.choice(["one", "two"]),
            "kind": dice.choice(["python", "python", "http"]),
            "tags": dice.choice([[], ["red"], ["red", "blue"]]),
            "metadata": dice.choice([{}, {"size": 1}, {"size": "1", "eu": True}]),
            "unique_key": dice.choice([None, "key"]) if state in FINAL else None,
            "copy_of": dice.choice([None, None, COPIED]),
        }
        if state == State.SCHEDULED:
            columns["attempts"] = dice.choice([0, 1, 2])
        if state in (State.RUNNING, State.FAILED):
            columns["node"] = dice.choice(nodes)
        if state in FINAL:
            columns["finished_at"] = created_at + timedelta(seconds=dice.randrange(20))
        if state == State.FAILED:
            columns["reason"] = dice.choice(["error", "lost"])
            columns["is_held"] = dice.choice([True, False])
            columns["fingerprint"] = dice.choice(["a" * 16, "b" * 16])
        make_job(state, created_at=created_at, **columns)
    make_job(unique_key="key", created_at=NOON)
    return nodes


def words(nodes):
    return {
        "state": [["failed"], ["succeeded", "ready", "running", "failed"], ["running"], [*State]],
        "queue": ["one", "nowhere"],
        "type": ["a"],
        "queues": [["one", "two"], ["two", "nowhere"]],
        "types": [["a", "b", "a"], ["c"]],
        "sorts": [
            (Sort(State.SCHEDULED, is_tried=True), Sort(State.READY, is_tried=True)),
            (Sort(State.SCHEDULED, is_tried=False), Sort(State.BLOCKED)),
            (Sort(State.FAILED, (Reason.LOST, Reason.ERROR), is_exhausted=False),),
        ],
        "kind": ["python", "http", "shell"],
        "tag": ["red", "none"],
        "metadata": [["size:1"], ['size:"1"', "eu:true"]],
        "reason": ["lost", "timeout"],
        "is_held": [True, False],
        "failure": ["a" * 16],
        "copy_of": [COPIED],
        "unique_key": ["key"],
        "node": [nodes[0].pk],
        "created_after": [NOON + timedelta(seconds=10)],
        "created_before": [NOON + timedelta(seconds=20)],
        "finished_after": [NOON + timedelta(seconds=15)],
        "finished_before": [NOON + timedelta(seconds=25)],
    }


def ids(asked, limit=200, **where):
    return [UUID(str(row[0])) for row in listing.newest(ALPHA, asked, "j.id", limit, **where)]


def check(asked):
    expected = filtered(Job.objects.all(), asked).order_by("-created_at", "-id")
    rows = list(expected.values_list("created_at", "pk"))
    expected_ids = [pk for _, pk in rows]
    assert ids(asked) == expected_ids, asked
    assert listing.count(ALPHA, asked) == {"count": len(rows), "is_exact": True}, asked
    kept = filtered(Job.objects.all(), as_json(asked)).order_by("-created_at", "-id")
    assert list(kept.values_list("pk", flat=True)) == expected_ids, asked
    if len(rows) > 4:
        middle = len(rows) // 2
        place = listing.Position(*rows[middle])
        assert ids(asked, 3, beyond=place) == expected_ids[middle + 1 : middle + 4], asked
        before = ids(asked, 2, beyond=place, is_backwards=True)
        assert before == expected_ids[middle - 2 : middle][::-1], asked


def test_each_word_means_what_it_means_elsewhere(jobs):
    found = 0
    check({})
    for word, values in words(jobs).items():
        for value in values:
            check({word: value})
            found += bool(ids({word: value}))
    assert found > 15


@pytest.mark.parametrize("short", [1, 10_000])
def test_any_two_words_mean_both(short, jobs, monkeypatch):
    monkeypatch.setattr(listing, "SHORT", short)
    for (one, ones), (two, twos) in itertools.combinations(words(jobs).items(), 2):
        asked = {one: ones[0], two: twos[0]}
        expected = filtered(Job.objects.all(), asked).order_by("-created_at", "-id")
        assert ids(asked) == list(expected.values_list("pk", flat=True)), asked


@pytest.mark.parametrize("state", [State.SCHEDULED, State.READY])
def test_what_waits_for_another_attempt_has_an_index_of_its_own(jobs, state):
    make_job(state, attempts=1, queue="one")
    tried = (Sort(state, is_tried=True),)
    for asked in (
        {"sorts": tried},
        {"sorts": tried, "queue": "one"},
        {"sorts": tried, "types": ["a"]},
    ):
        check(asked)
    way = listing.choose_way(connections[ALPHA], {"sorts": tried, "queue": "one"})
    assert [one.name for one in way.ranges] == ["job_retrying"]
    assert ids({"sorts": tried, "queue": "one"})


def test_all_metadata_must_fit(jobs):
    both = filtered(Job.objects.all(), {"metadata": ['size:"1"']}).count()
    assert both
    assert len(ids({"metadata": ['size:"1"', "eu:true"]})) == both
    assert ids({"metadata": ["size:1", "eu:true"]}) == []


def test_one_way_is_one_statement_and_several_are_two(jobs):
    for asked, statements in (
        ({}, 1),
        ({"queue": "one"}, 1),
        ({"state": ["failed", "ready"]}, 1),
        ({"unique_key": "key", "copy_of": COPIED}, 2),
        ({"node": jobs[0].pk, "queue": "one"}, 1),
        ({"queue": "one", "type": "a"}, 2),
    ):
        with CaptureQueriesContext(connections[ALPHA]) as sent:
            ids(asked)
        assert len(sent) == statements, asked
        assert all("COUNT(*) OVER" not in one["sql"].upper() for one in sent)


def test_a_job_that_moved_is_listed_where_it_is(alpha):
    job = make_job(queue="one", type="a")
    Job.objects.filter(pk=job.pk).update(queue="two")
    assert ids({"queue": "one"}) == []
    assert ids({"queue": "two"}) == ids({"queue": "two", "type": "a"}) == [job.pk]
    Job.objects.filter(pk=job.pk).delete()
    assert ids({}) == []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("n:1", "1"),
        ("n:1.0", "1"),
        ("n:1.5", "1.5"),
        ("n:-0.5e1", "-5"),
        ('n:"1"', '"1"'),
        ("n:true", "true"),
        ("n:True", '"True"'),
        ("n:null", '"null"'),
        ("n:NaN", '"NaN"'),
        ("n:1e999", '"1e999"'),
        ("n:[1]", '"[1]"'),
        ("n:a:b", '"a:b"'),
        ("n:", '""'),
        ("n:é", '"é"'),
        ("n:" + "[" * 300, '"' + "[" * 300 + '"'),
    ],
)
def test_a_value_of_metadata_is_json_or_a_string(text, value):
    assert parse_metadata(text) == ("n", value)


@pytest.mark.parametrize("text", ["", ":x", "no colon", "k" * 61 + ":1", 'n:"\\ud800"'])
def test_what_is_no_key_and_value_is_refused(text):
    with pytest.raises(ValueError, match=r"key:value|surrogate"):
        parse_metadata(text)
