"""What a job may ask for beside its work, and what its queue says where it does not."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext

from clusters.models import ClusterSetting, forget_policies
from jobs.engine.enqueue import COPY_FROM, NewJob, enqueue, enqueue_many
from jobs.errors import InvalidJob, UnknownQueue
from jobs.models import Job, JobDependency, JobMetadata, JobTag, Tally
from jobs.models.job_listing import metadata_value
from jobs.states import State
from tests.factories import make_job, make_queue

LATER = datetime(2030, 1, 1, tzinfo=UTC)


def alone(**asked) -> Job:
    return Job.objects.get(pk=enqueue(NewJob("demo:noop", **asked), by="test").job_id)


def among_few(**asked) -> Job:
    answers = enqueue_many([NewJob("demo:noop"), NewJob("demo:noop", **asked)], by="test")
    return Job.objects.get(pk=answers[1].job_id)


def among_many(**asked) -> Job:
    others = [NewJob("demo:noop")] * COPY_FROM
    answers = enqueue_many([*others, NewJob("demo:noop", **asked)], by="test")
    return Job.objects.get(pk=answers[-1].job_id)


@pytest.fixture(params=[alone, among_few, among_many])
def accept(request, alpha):
    """Each way into the table: they fill in the same and keep the same."""
    return request.param


def test_all_that_is_asked_for_is_kept(accept):
    metadata = {"tenant": "a\\\t\"ü'", "size": 5, "share": 0.25, "is_vip": True, "e-1_x.y": ""}
    job = accept(
        queue="default",
        priority=-7,
        timeout_seconds=12.5,
        max_attempts=9,
        progress_timeout_seconds=3,
        retry_base_seconds=0,
        retry_cap_seconds=7.5,
        delay_seconds=60,
        expires_in_seconds=30,
        deadline_seconds=90,
        metadata=metadata,
        tags=["a\\b", "ü"],
        on_lost="hold",
    )
    assert (job.priority, job.timeout_seconds, job.max_attempts) == (-7, 12.5, 9)
    assert (job.progress_timeout_seconds, job.on_lost) == (3, "hold")
    assert (job.retry_base_seconds, job.retry_cap_seconds) == (0, 7.5)
    assert job.state == State.SCHEDULED
    assert job.run_at - job.created_at == timedelta(seconds=60)
    assert job.expires_at - job.run_at == timedelta(seconds=30)
    assert job.deadline_at - job.run_at == timedelta(seconds=90)
    assert job.metadata == metadata
    rows = JobMetadata.objects.filter(job=job)
    assert {row.key: row.value for row in rows} == {
        key: metadata_value(value) for key, value in metadata.items()
    }
    assert {row.created_at for row in rows} == {job.created_at}
    tags = JobTag.objects.filter(job=job)
    assert {(tag.tag, tag.created_at) for tag in tags} == {
        ("a\\b", job.created_at),
        ("ü", job.created_at),
    }


def test_nothing_is_made_up_where_nobody_says_anything(accept):
    job = accept()
    assert (job.priority, job.timeout_seconds, job.max_attempts) == (0, 300, 3)
    for column in (
        *("expires_at", "deadline_at", "progress_timeout_seconds", "retry_base_seconds"),
        *("retry_cap_seconds", "unique_key", "copy_of", "reason", "started_at", "node_id"),
    ):
        assert getattr(job, column) is None, column
    assert (job.metadata, job.pending_dependencies, job.has_dependants) == ({}, 0, False)


def test_moments_are_kept_as_they_were_named(accept):
    job = accept(
        run_at=LATER,
        expires_at=LATER + timedelta(microseconds=1),
        deadline_at=LATER + timedelta(days=1),
    )
    assert (job.state, job.run_at) == (State.SCHEDULED, LATER)
    assert job.expires_at == LATER + timedelta(microseconds=1)
    assert job.deadline_at == LATER + timedelta(days=1)


QUEUE = {
    "default_priority": 5,
    "default_timeout_seconds": 7.5,
    "default_max_attempts": 2,
    "retry_base_seconds": 1.5,
    "retry_cap_seconds": 20,
    "max_age_seconds": 3600,
}


def test_the_queue_fills_in_what_the_job_does_not_say(accept):
    ClusterSetting.objects.all().persist({"default_max_attempts": 8}, by="test")
    forget_policies()
    make_queue("mail", **QUEUE)
    job = accept(queue="mail", delay_seconds=10)
    assert (job.priority, job.timeout_seconds, job.max_attempts) == (5, 7.5, 2)
    assert (job.retry_base_seconds, job.retry_cap_seconds) == (1.5, 20)
    assert job.expires_at - job.run_at == timedelta(hours=1)


def test_the_job_has_the_last_word(accept):
    make_queue("mail", **QUEUE)
    job = accept(
        queue="mail",
        priority=0,
        timeout_seconds=1,
        max_attempts=1,
        retry_base_seconds=0,
        retry_cap_seconds=0,
        expires_in_seconds=7200,
    )
    assert (job.priority, job.timeout_seconds, job.max_attempts) == (0, 1, 1)
    assert (job.retry_base_seconds, job.retry_cap_seconds) == (0, 0)
    assert job.expires_at - job.run_at == timedelta(hours=2)


def test_a_queue_without_backoff_retries_at_once(accept):
    make_queue("mail", is_backoff_enabled=False, retry_base_seconds=9)
    assert accept(queue="mail").retry_base_seconds == 0
    assert accept(queue="mail", retry_base_seconds=3).retry_base_seconds == 3


def test_a_change_of_the_queue_counts_at_once(accept):
    queue = make_queue("mail", default_priority=1)
    assert accept(queue="mail").priority == 1
    type(queue).objects.filter(pk=queue.pk).update(default_priority=2)
    assert accept(queue="mail").priority == 2


def test_every_new_job_is_counted_once(accept):
    accept(tags=["a"])
    counted = Tally.objects.filter(event="enqueued")
    assert sum(counted.values_list("count", flat=True)) == Job.objects.count()
    assert {(t.queue, t.type, t.bucket) for t in counted} == {("default", "demo:noop", None)}
    assert {(t.minute.second, t.minute.microsecond) for t in counted} == {(0, 0)}


def test_what_is_asked_is_answered_with_what_is_stored(alpha):
    """The answer of one statement is put together here and not read back."""
    make_queue("mail", **QUEUE)
    new = NewJob(
        "demo:noop", queue="mail", payload={"a": 1}, tags=["x"], metadata={"m": 1}, unique_key="k",
        delay_seconds=1.5, deadline_seconds=9, copy_of=uuid.uuid4(),
    )  # fmt: skip
    told = enqueue(new, by="test").job
    stored = Job.objects.get(pk=told.pk)
    for field in Job._meta.concrete_fields:
        assert getattr(told, field.attname) == getattr(stored, field.attname), field.name
    told.cancel()
    assert told.state == State.CANCELLED


def test_metadata_that_is_longest_as_json_can_be_stored(accept):
    value = "\x1f" * 256
    job = accept(metadata={"k" * 60: value, "far": 1.7e308, "near": -(2**63)})
    assert job.metadata["k" * 60] == value
    assert JobMetadata.objects.filter(job=job, value=metadata_value(value)).exists()


# -- Parents ---------------------------------------------------------------------------------------


def test_a_job_waits_for_its_parents(accept):
    parents = [make_job(), make_job()]
    job = accept(
        depends_on=[parent.pk for parent in parents],
        on_dependency_failure="skip",
        metadata={"a": 1},
    )
    assert (job.state, job.pending_dependencies) == (State.BLOCKED, 2)
    edges = JobDependency.objects.filter(child=job)
    assert {edge.parent_id for edge in edges} == {parent.pk for parent in parents}
    assert {(edge.needs, edge.on_failure) for edge in edges} == {("all", "skip")}
    assert all(Job.objects.get(pk=parent.pk).has_dependants for parent in parents)


@pytest.mark.parametrize(
    ("ended", "asked", "state"),
    [
        ("succeeded", {}, State.READY),
        ("succeeded", {"delay_seconds": 60}, State.SCHEDULED),
        ("failed", {}, State.FAILED),
        ("failed", {"on_dependency_failure": "skip"}, State.SKIPPED),
        ("failed", {"on_dependency_failure": "run"}, State.READY),
    ],
)
def test_parents_that_have_ended_decide_at_once(alpha, ended, asked, state):
    answer = enqueue(NewJob("demo:noop", depends_on=[make_job(ended).pk], **asked), by="test")
    assert answer.job.state == state


def test_any_one_of_the_parents_may_do(alpha):
    one, other = make_job(), make_job("succeeded")
    parents = [one.pk, other.pk]
    assert alone(depends_on=parents).state == State.BLOCKED
    assert alone(depends_on=parents, needs="any").state == State.READY


def test_jobs_of_one_call_may_wait_for_each_other_but_not_in_a_circle(alpha):
    one, other = uuid.uuid4(), uuid.uuid4()
    news = [NewJob("a", id=one, depends_on=[other]), NewJob("b", id=other)]
    states = [answer.job.state for answer in enqueue_many(news, by="test")]
    assert states == [State.BLOCKED, State.READY]
    one, other = uuid.uuid4(), uuid.uuid4()
    circle = [
        NewJob("x"),
        NewJob("a", id=one, depends_on=[other]),
        NewJob("b", id=other, depends_on=[one]),
    ]
    with pytest.raises(InvalidJob) as caught:
        enqueue_many(circle, by="test")
    assert caught.value.field == "depends_on"
    assert Job.objects.count() == 2


def test_an_unknown_parent_is_named_with_its_place(alpha):
    news = [NewJob("a"), NewJob("b", depends_on=[make_job().pk]), NewJob("c")]
    news[2].depends_on = [uuid.uuid4()]
    with pytest.raises(InvalidJob) as caught:
        enqueue_many(news, by="test")
    assert (caught.value.index, caught.value.field) == (2, "depends_on")
    assert Job.objects.count() == 1
    assert not JobDependency.objects.exists()


def test_a_repeat_waits_for_the_same_or_is_another_job(alpha):
    parent, gone = make_job(), make_job("succeeded")
    new = NewJob("a", id=uuid.uuid4(), depends_on=[parent.pk, gone.pk])
    assert enqueue(new, by="test").created
    assert not enqueue(new, by="test").created
    JobDependency.objects.filter(parent=gone).delete()
    gone.delete_final()
    assert not enqueue(new, by="test").created
    assert JobDependency.objects.count() == 1
    new.depends_on = []
    with pytest.raises(InvalidJob.__base__) as caught:
        enqueue(new, by="test")
    assert caught.value.field == "id"


def test_a_repeat_is_one_also_when_its_time_has_passed(alpha):
    now = datetime.now(UTC)
    new = NewJob(
        "a", id=uuid.uuid4(), run_at=now + timedelta(hours=1), expires_at=now + timedelta(hours=2)
    )
    enqueue(new, by="test")
    past = timedelta(days=1)
    job = Job.objects.get()
    new.run_at, new.expires_at = job.run_at - past, job.expires_at - past
    Job.objects.update(
        run_at=new.run_at, expires_at=new.expires_at, created_at=job.created_at - past
    )
    assert not enqueue(new, by="test").created
    # A new job like it comes too late.
    new.id = uuid.uuid4()
    with pytest.raises(InvalidJob) as caught:
        enqueue(new, by="test")
    assert caught.value.field == "expires_at"
    assert Job.objects.count() == 1


# -- Statements ------------------------------------------------------------------------------------


@pytest.fixture
def statements(monkeypatch):
    """All that goes to the database, through Django's cursors and the driver's own."""
    said: list[str] = []
    original = psycopg.Cursor.execute

    def execute(self, query, *args, **kwargs):
        if type(self) is psycopg.Cursor:
            said.append(str(query))
        return original(self, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, "execute", execute)
    return said


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"tags": ["a", "b"], "metadata": {"a": 1}},
        {"id": uuid.uuid4()},
        {"unique_key": "one"},
        {"delay_seconds": 5, "expires_in_seconds": 5, "deadline_seconds": 9},
    ],
)
def test_one_job_is_one_statement(asked, statements, is_postgresql):
    from clusters.binding import cluster_bound

    if not is_postgresql:
        pytest.skip("only PostgreSQL takes all of it in one statement")
    with cluster_bound("alpha") as cluster:
        enqueue(NewJob("demo:noop"), by="test")  # connects, and tells the nodes for the next 20 ms
        statements.clear()
        with CaptureQueriesContext(connections[cluster.alias]) as queries:
            answer = enqueue(NewJob("demo:noop", **asked), by="test")
            assert answer.job.pk
        others = [q for q in queries.captured_queries if "pg_notify" not in q["sql"]]
        assert (len(statements), others) == (1, [])
        assert answer.created
        assert Job.objects.count() == 2


def test_a_refused_job_leaves_the_callers_transaction_usable(alpha):
    """Also when it is the database that refuses."""
    with transaction.atomic(using="cluster-alpha"):
        enqueue(NewJob("demo:noop"), by="test")
        with pytest.raises(UnknownQueue):
            enqueue(NewJob("demo:noop", queue="nowhere"), by="test")
        with pytest.raises(ZeroDivisionError), transaction.atomic(using="cluster-alpha"):
            enqueue(NewJob("demo:noop"), by="test")
            raise ZeroDivisionError
        enqueue(NewJob("demo:noop"), by="test")
    assert Job.objects.count() == 2


def test_what_the_database_refuses_takes_nothing_else_with_it(alpha, monkeypatch, is_postgresql):
    from django.db import DatabaseError

    from jobs.engine import insert, insert_one

    enqueue(NewJob("demo:noop"), by="test")
    monkeypatch.setattr(
        insert_one, "_statement", lambda *words: "SELECT 1 / (%s::text IS NULL)::int"
    )
    monkeypatch.setattr(insert, "COLUMNS", ("no_such_column",))
    with pytest.raises(DatabaseError):
        enqueue(NewJob("demo:noop"), by="test")
    monkeypatch.undo()
    assert enqueue(NewJob("demo:noop"), by="test").created
    assert Job.objects.count() == 2
