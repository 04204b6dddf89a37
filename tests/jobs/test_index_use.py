"""Lists use the index made for them; the database itself says so."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from uuid_utils.compat import uuid7

from jobs import listing
from jobs.models import Attempt, Job, JobMetadata, JobTag, LogLine
from jobs.states import State

ALPHA = "cluster-alpha"
START = datetime(2026, 1, 1, tzinfo=UTC)
MIDDLE = START + timedelta(seconds=2500)
STATES = [State.SUCCEEDED] * 74 + [State.FAILED] * 2 + [State.READY] * 20
STATES += [State.SCHEDULED] * 2 + [State.BLOCKED] * 2
NODE, COPIED = UUID(int=1), UUID(int=2)


def analyze(*tables: str) -> None:
    with connections[ALPHA].cursor() as cursor:
        for table in tables:
            cursor.execute(f"ANALYZE {table}")


def job(number: int) -> Job:
    state, moment = STATES[number % 100], START + timedelta(seconds=number)
    if number % 1000 == 999:
        state = State.RUNNING
    is_final, is_failed = state in (State.SUCCEEDED, State.FAILED), state == State.FAILED
    return Job(
        type=f"type-{number % 40}",
        queue=f"queue-{number % 39}",
        kind="http" if number % 100 == 7 else "python",
        state=state,
        reason="error" if is_failed else None,
        is_held=is_failed and number % 200 == 74,
        pending_dependencies=int(state == State.BLOCKED),
        fingerprint=f"{number % 3:016}" if is_failed else None,
        unique_key=f"key-{number % 500 if is_final else number}" if number % 5 == 0 else None,
        copy_of=COPIED if number % 500 == 0 else None,
        node_id=NODE if state == State.RUNNING else None,
        fence=int(state == State.RUNNING),
        started_at=moment,
        enqueued_by="test",
        timeout_seconds=1,
        max_attempts=1,
        created_at=moment,
        run_at=moment,
        finished_at=moment if is_final else None,
        tags=["red"] if number % 20 == 0 else [],
        metadata={"size": number % 30} if number % 2 == 0 else {},
    )


@pytest.fixture
def many(alpha):
    """Enough jobs that reading them all would be the wrong way."""
    jobs = [job(number) for number in range(5000)]
    Job.objects.bulk_create(jobs, batch_size=1000)
    JobTag.objects.bulk_create(JobTag.objects.all().of(jobs))
    JobMetadata.objects.bulk_create(JobMetadata.objects.all().of(jobs))
    analyze("job", "job_listing", "job_tag", "job_metadata")


def plan_of(read) -> str:
    """What the database says of the last statement that ``read`` sends."""
    is_postgresql = connections[ALPHA].vendor == "postgresql"
    with CaptureQueriesContext(connections[ALPHA]) as asked:
        read()
    with connections[ALPHA].cursor() as cursor:
        if is_postgresql:
            # To read or to sort so few rows is cheaper than what a large table needs.
            cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_sort = off")
        cursor.execute(("EXPLAIN " if is_postgresql else "EXPLAIN QUERY PLAN ") + asked[-1]["sql"])
        return "\n".join(str(row[-1]) for row in cursor.fetchall())


def check(plan: str, *indexes: str, is_sorted: bool = True) -> None:
    for index in indexes:
        assert re.search(rf"\b{index}\b", plan), f"{index} is not used:\n{plan}"
    # No table is read as a whole, and, where the index has the order, none of its rows are sorted. To
    # sort the page itself is nothing.
    assert not re.search(r"Seq Scan|SCAN [dj]\b(?! USING)", plan), plan
    if is_sorted:
        assert not re.search(r"Sort|(SEARCH|SCAN) [dj] .*\nUSE TEMP B-TREE", plan), plan


WAYS = [
    ({}, "job_listing_pkey"),
    ({"since": MIDDLE}, "job_listing_pkey"),
    ({"since": MIDDLE, "state": ["failed"]}, "job_final"),
    ({"queue": "queue-7"}, "job_listing_queue"),
    ({"type": "type-7"}, "job_listing_type"),
    ({"state": ["failed"]}, "job_final"),
    ({"state": ["succeeded"]}, "job_final"),
    ({"state": ["blocked"]}, "job_open"),
    ({"tag": "red"}, "job_tag_newest"),
    ({"metadata": ["size:4"]}, "job_metadata_pkey"),
    ({"failure": f"{1:016}"}, "job_fingerprint"),
    ({"reason": "error"}, "job_reason"),
    ({"is_held": True}, "job_held"),
    ({"kind": "http"}, "job_kind"),
    ({"finished_before": MIDDLE, "state": ["succeeded"]}, "job_final"),
    ({"created_before": MIDDLE, "queue": "queue-7"}, "job_listing_queue"),
]


FEW = [
    ({"state": ["running"]}, ["job_holder"]),
    ({"node": NODE}, ["job_holder"]),
    ({"copy_of": COPIED}, ["job_copies"]),
    ({"unique_key": "key-10"}, ["job_unique_while_open", "job_unique_ended"]),
]


def test_lists_are_read_in_the_order_of_their_index(many, is_postgresql):
    place = listing.Position(MIDDLE, UUID(int=3))
    for asked, name in WAYS:
        index = name
        if not is_postgresql and name.endswith("_pkey"):
            index = f"sqlite_autoindex_{name.removesuffix('_pkey')}_1"
        for where in ({}, {"beyond": place}, {"beyond": place, "is_backwards": True}):
            plan = plan_of(
                lambda asked=asked, where=where: listing.newest(ALPHA, asked, "j.id", 10, **where)
            )
            check(plan, index)
        check(plan_of(lambda asked=asked: listing.count(ALPHA, asked)), is_sorted=False)


def test_few_jobs_are_found_by_their_index_and_sorted(many):
    for asked, indexes in FEW:
        plan = plan_of(lambda asked=asked: listing.newest(ALPHA, asked, "j.id", 10))
        check(plan, *indexes, is_sorted=False)


def test_several_states_are_a_range_each(many):
    asked = {"state": ["failed", "blocked", "succeeded"]}
    plan = plan_of(lambda: listing.newest(ALPHA, asked, "j.id", 10))
    check(plan, "job_final", "job_open", is_sorted=False)
    # What is sorted are the pages of the three, not what they are from.
    assert len(re.findall(r"\bjob_(?:final|open)\b", plan)) == 3, plan


def test_what_cannot_be_is_not_looked_for(many, is_postgresql):
    """Of jobs that have ended in the future there are none, and none is read to find that out."""

    def work(asked) -> int:
        """Of PostgreSQL the rows that were read, of SQLite the steps of its machine."""
        with CaptureQueriesContext(connections[ALPHA]) as sent:
            assert listing.newest(ALPHA, asked, "j.id", 10) == []
        sql = sent[-1]["sql"]
        with connections[ALPHA].cursor() as cursor:
            if is_postgresql:
                cursor.execute(f"EXPLAIN ANALYZE {sql}")
                plan = "\n".join(row[0] for row in cursor.fetchall())
                read = re.findall(r"Scan .*rows=(\d+(?:\.\d+)?) loops|Filter: (\d+)", plan)
                return int(sum(float(one or other) for one, other in read))
            steps: list[None] = []
            connections[ALPHA].connection.set_progress_handler(lambda: steps.append(None), 10)
            assert cursor.execute(sql).fetchall() == []
            connections[ALPHA].connection.set_progress_handler(None, 0)
            return 10 * len(steps)

    now = timezone.now()
    for words in ({}, {"queue": "queue-7"}, {"state": ["failed", "succeeded"]}):
        assert work({**words, "finished_after": now - timedelta(days=1)}) > 100
        assert work({**words, "finished_after": now + timedelta(days=1)}) <= 100
    assert listing.count(ALPHA, {"finished_after": now + timedelta(days=1)})["count"] == 0


def test_where_two_ways_lead_the_short_one_is_taken(many, monkeypatch):
    connection = connections[ALPHA]

    def word(**asked) -> str:
        return listing.choose_way(connection, asked).word

    # Both are long: the first of them, on which more of the rest lie as a rule.
    monkeypatch.setattr(listing, "SHORT", 10)
    assert word(state=["failed"], queue="queue-7") == "state"
    assert word(state=["succeeded"], queue="queue-7") == "queue"
    assert word(tag="red", type="type-0") == "tag"
    # 100 failed, 129 in the queue, 3,695 succeeded, 250 red, 125 of a type.
    monkeypatch.setattr(listing, "SHORT", 1000)
    assert word(state=["failed"], queue="queue-7") == "state"
    assert word(state=["succeeded"], queue="queue-7") == "queue"
    assert word(tag="red", type="type-0") == "type"
    # A value that nothing has is the shortest of all, whatever it is beside.
    assert word(tag="red", queue="nowhere") == "queue"
    assert word(kind="shell", state=["failed"]) == "kind"


def test_the_engines_questions_are_read_in_the_order_of_their_index(many):
    ready = Job.objects.filter(state="ready", queue="queue-7", kind="python")
    uses(ready.order_by("priority", "run_at", "id")[:3], "job_ready")
    due = Job.objects.filter(state="scheduled", run_at__lte=MIDDLE)
    uses(due.order_by("run_at")[:10], "job_due")


def uses(rows, index: str) -> None:
    plan = rows.explain()
    assert re.search(rf"\b{index}\b", plan), f"{index} is not used:\n{plan}"
    assert not re.search(r"Sort|TEMP B-TREE", plan), plan


def test_the_log_and_the_attempts_of_a_job_are_found_by_its_id(alpha, is_postgresql):
    ids = [uuid7() for _ in range(500)]
    LogLine.objects.bulk_create(
        LogLine(job_id=pk, fence=1, stream="log", message="x") for pk in ids for _ in range(5)
    )
    Attempt.objects.bulk_create(
        Attempt(
            job_id=pk,
            fence=fence,
            number=fence,
            node_id=pk,
            outcome="failed",
            started_at=START,
            finished_at=START,
        )
        for pk in ids
        for fence in (1, 2, 3)
    )
    analyze("job_log", "attempt")
    uses(LogLine.objects.all().of_job(ids[7])[:3], "job_log_in_order")
    primary_key = "attempt_pkey" if is_postgresql else "sqlite_autoindex_attempt_1"
    uses(Attempt.objects.all().of_job(ids[7]), primary_key)
