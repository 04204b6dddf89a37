"""The front door: what is accepted, as what, and what is refused."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connections, transaction
from django.utils import timezone

from clusters.binding import cluster_bound
from clusters.errors import ClusterNotBound
from clusters.models import ClusterSetting, forget_policies
from jobs.engine import enqueue as module
from jobs.engine import insert
from jobs.engine.enqueue import NewJob, enqueue, enqueue_many
from jobs.errors import DuplicateJob, InvalidJob, PayloadTooLarge, UnknownQueue
from jobs.models import Job, JobTag
from jobs.states import State
from tests.factories import make_queue


@pytest.fixture
def accept(alpha):
    def enqueue_one(type: str = "demo:noop", **more) -> Job:  # noqa: A002
        return Job.objects.get(pk=enqueue(NewJob(type, **more), by="test").job.pk)

    return enqueue_one


def test_a_job_with_nothing_but_its_type_gets_the_clusters_defaults(accept):
    job = accept("email:new")
    assert (job.kind, job.type, job.queue, job.priority) == ("python", "email:new", "default", 0)
    assert (job.state, job.attempts, job.fence, job.crashes) == (State.READY, 0, 0, 0)
    assert (job.max_attempts, job.timeout_seconds) == (3, 300)
    assert (job.on_lost, job.tags, job.payload, job.payload_bytes) == ("retry", [], None, None)
    assert job.enqueued_by == "test"
    assert job.run_at == job.created_at
    assert abs((job.created_at - timezone.now()).total_seconds()) < 60
    assert job.id.version == 7


def test_the_clusters_settings_fill_in_what_is_not_said(accept):
    ClusterSetting.objects.all().persist(
        {"default_max_attempts": 8, "default_timeout_seconds": 12.5}, by="test"
    )
    forget_policies()
    job = accept()
    assert (job.max_attempts, job.timeout_seconds) == (8, 12.5)
    job = accept(max_attempts=1, timeout_seconds=0.5)
    assert (job.max_attempts, job.timeout_seconds) == (1, 0.5)


def test_without_a_bound_cluster_nothing_is_accepted(db):
    with pytest.raises(ClusterNotBound):
        enqueue(NewJob("demo:noop"), by="test")


def test_a_job_goes_to_the_bound_cluster_only(db):
    with cluster_bound("beta"):
        enqueue(NewJob("demo:noop"), by="test")
        assert Job.objects.count() == 1
    with cluster_bound("alpha"):
        assert Job.objects.count() == 0


@pytest.mark.parametrize(
    "payload",
    [None, 0, 1.5, "text", True, [], {}, {"a": [1, None, {"b": "ü€😀"}]}, "line\nbreak", ""],
)
def test_any_json_value_is_a_payload_and_comes_back_the_same(accept, payload):
    assert accept(payload=payload).payload == payload


@pytest.mark.parametrize("data", [b"", b"\x00\xff\x00", b"x" * 10_000])
def test_bytes_are_a_payload_too(accept, data):
    job = accept(payload_bytes=data)
    assert bytes(job.payload_bytes) == data
    assert job.payload is None


# -- When ------------------------------------------------------------------------------------------


def test_a_delayed_job_is_scheduled(accept):
    job = accept(delay_seconds=60)
    assert job.state == State.SCHEDULED
    assert job.run_at - job.created_at == timedelta(seconds=60)


def test_a_delay_of_nothing_is_ready(accept):
    assert accept(delay_seconds=0).state == State.READY


def test_a_job_for_later_is_scheduled_and_in_any_zone_it_is_the_same_moment(accept):
    when = datetime(2030, 6, 1, 12, 0, tzinfo=UTC)
    job = accept(run_at=when.astimezone(tz=None))
    assert (job.state, job.run_at) == (State.SCHEDULED, when)


def test_a_time_long_past_does_not_put_a_job_before_all_others(accept):
    job = accept(run_at=datetime(1999, 1, 1, tzinfo=UTC))
    assert (job.state, job.run_at) == (State.READY, job.created_at)


# -- Tags ------------------------------------------------------------------------------------------


def test_tags_are_kept_once_each_and_found_again(accept):
    job = accept(tags=["eu", "vip", "eu"])
    other = accept(tags=["us"])
    assert job.tags == ["eu", "vip"]
    assert set(JobTag.objects.filter(job=job).values_list("tag", flat=True)) == {"eu", "vip"}
    assert [*Job.objects.all().tagged("eu")] == [job]
    assert [*Job.objects.all().tagged("us")] == [other]


# -- Refused ---------------------------------------------------------------------------------------

LONG_AGO = datetime(2020, 1, 1)  # the missing zone is the point
LATER = datetime(2030, 1, 1, tzinfo=UTC)
ID = uuid.uuid4()


@pytest.mark.once
@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("type", {"type": ""}),
        ("type", {"type": "a b"}),
        ("type", {"type": "os.system()"}),
        ("type", {"type": "-x"}),
        ("type", {"type": "x" * 201}),
        ("type", {"type": "x\n"}),
        ("kind", {"kind": "pickle"}),
        ("queue", {"queue": "nowhere"}),
        ("priority", {"priority": 101}),
        ("priority", {"priority": -101}),
        ("max_attempts", {"max_attempts": 0}),
        ("max_attempts", {"max_attempts": 101}),
        ("timeout_seconds", {"timeout_seconds": 0}),
        ("timeout_seconds", {"timeout_seconds": -1}),
        ("timeout_seconds", {"timeout_seconds": float("nan")}),
        ("timeout_seconds", {"timeout_seconds": 7 * 86400 + 1}),
        ("on_lost", {"on_lost": "shrug"}),
        ("delay_seconds", {"delay_seconds": -1}),
        ("delay_seconds", {"delay_seconds": float("inf")}),
        ("delay_seconds", {"delay_seconds": 1, "run_at": datetime(2030, 1, 1, tzinfo=UTC)}),
        ("run_at", {"run_at": LONG_AGO}),
        ("run_at", {"run_at": datetime(2999, 1, 1, tzinfo=UTC)}),
        ("payload", {"payload": {"a": object()}}),
        ("payload", {"payload": float("nan")}),
        ("payload", {"payload": {"a": "\0"}}),
        ("payload", {"payload": {"\0": 1}}),
        ("payload", {"payload": "\ud800"}),
        ("payload", {"payload": "x" * 262_144}),
        ("payload", {"payload_bytes": b"x" * 262_145}),
        ("payload_bytes", {"payload": 1, "payload_bytes": b"x"}),
        ("tags", {"tags": ["x"] * 3 + [str(n) for n in range(20)]}),
        ("tags", {"tags": [""]}),
        ("tags", {"tags": ["x" * 61]}),
        ("tags", {"tags": ["a\nb"]}),
        ("expires_in_seconds", {"expires_in_seconds": 0}),
        ("expires_in_seconds", {"expires_in_seconds": float("nan")}),
        ("expires_in_seconds", {"expires_in_seconds": 1, "expires_at": LATER}),
        ("expires_at", {"expires_at": LONG_AGO}),
        ("expires_at", {"expires_at": LONG_AGO.replace(tzinfo=UTC)}),
        ("expires_at", {"expires_at": LATER, "run_at": LATER}),
        ("expires_at", {"expires_at": datetime(2999, 1, 1, tzinfo=UTC)}),
        ("deadline_seconds", {"deadline_seconds": -1}),
        ("deadline_seconds", {"deadline_seconds": float("inf")}),
        ("deadline_seconds", {"deadline_seconds": 1, "deadline_at": LATER}),
        ("deadline_at", {"deadline_at": LONG_AGO}),
        ("deadline_at", {"deadline_at": LONG_AGO.replace(tzinfo=UTC)}),
        ("deadline_at", {"deadline_at": LATER, "run_at": LATER}),
        ("progress_timeout_seconds", {"progress_timeout_seconds": 0}),
        ("progress_timeout_seconds", {"progress_timeout_seconds": 7 * 86400 + 1}),
        ("retry_base_seconds", {"retry_base_seconds": -0.1}),
        ("retry_base_seconds", {"retry_base_seconds": 86_401}),
        ("retry_cap_seconds", {"retry_cap_seconds": float("nan")}),
        ("retry_cap_seconds", {"retry_cap_seconds": 1, "retry_base_seconds": 2}),
        ("metadata", {"metadata": {str(n): n for n in range(21)}}),
        ("metadata", {"metadata": {"": 1}}),
        ("metadata", {"metadata": {"a b": 1}}),
        ("metadata", {"metadata": {"x" * 61: 1}}),
        ("metadata.a", {"metadata": {"a": None}}),
        ("metadata.a", {"metadata": {"a": [1]}}),
        ("metadata.a", {"metadata": {"a": "x" * 257}}),
        ("metadata.a", {"metadata": {"a": "\0"}}),
        ("metadata.a", {"metadata": {"a": "\ud800"}}),
        ("metadata.a", {"metadata": {"a": float("inf")}}),
        ("metadata.a", {"metadata": {"a": 2**63}}),
        ("unique_key", {"unique_key": ""}),
        ("unique_key", {"unique_key": "x" * 201}),
        ("unique_key", {"unique_key": "a\0"}),
        ("unique_key", {"unique_key": "\ud800"}),
        ("depends_on", {"depends_on": [uuid.uuid4()]}),
        ("depends_on", {"depends_on": [ID, ID]}),
        ("depends_on", {"depends_on": [ID], "id": ID}),
        ("depends_on", {"depends_on": [uuid.uuid4() for _ in range(101)]}),
        ("needs", {"needs": "most"}),
        ("on_dependency_failure", {"on_dependency_failure": "shrug"}),
        ("queue", {"queue": "a\0"}),
    ],
)
def test_what_cannot_be_a_job_is_refused_and_the_field_is_named(accept, field, asked):
    with pytest.raises(InvalidJob) as caught:
        accept(**{"type": "demo:noop", **asked})
    assert caught.value.field == field
    assert str(caught.value)
    assert Job.objects.count() == JobTag.objects.count() == 0


def test_a_deeply_nested_payload_is_refused_and_breaks_nothing(accept):
    nested: list = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(InvalidJob) as caught:
        accept(payload=nested)
    assert caught.value.field == "payload"


def test_the_clusters_own_limit_on_payloads_holds(accept):
    ClusterSetting.objects.all().persist({"max_payload_bytes": 1024}, by="test")
    forget_policies()
    assert accept(payload="x" * 1022)
    with pytest.raises(PayloadTooLarge):
        accept(payload="x" * 1023)
    with pytest.raises(PayloadTooLarge):
        accept(payload="ü" * 600)


def test_an_http_job_is_checked_by_its_kind(accept):
    with pytest.raises(InvalidJob):
        accept("", kind="http", payload={"url": "ftp://host/"})
    assert accept("", kind="http", payload={"url": "https://host/"}).type == "http"


# -- Many ------------------------------------------------------------------------------------------

SMALL, LARGE = 3, module.COPY_FROM + 5


@pytest.mark.parametrize("how_many", [SMALL, LARGE])
def test_many_jobs_come_back_in_the_order_of_the_questions(alpha, how_many):
    make_queue("mail")
    news = [
        NewJob(
            "demo:noop",
            payload=None if n == 0 else {"n": n, "text": "tab\tquote'\\N ü\n"},
            queue="mail" if n % 2 else "default",
            delay_seconds=60 if n == 1 else None,
            tags=["even"] if n % 2 == 0 else [],
            priority=n % 3 - 1,
        )
        for n in range(how_many)
    ]
    news[2] = NewJob("demo:noop", payload_bytes=b"\x00\\x41\t\n\xff")
    answers = enqueue_many(news, by="a\tb\\")
    assert all(answer.created for answer in answers)
    stored = Job.objects.in_bulk()
    assert len(stored) == how_many
    for new, answer in zip(news, answers, strict=True):
        job = stored[answer.job.pk]
        assert (job.payload, job.queue, job.priority) == (new.payload, new.queue, new.priority or 0)
        assert (job.tags, job.enqueued_by) == ([*new.tags], "a\tb\\")
        assert job.state == (State.SCHEDULED if new.delay_seconds else State.READY)
        data = None if job.payload_bytes is None else bytes(job.payload_bytes)
        assert data == new.payload_bytes
    assert JobTag.objects.count() == len([new for new in news if new.tags])


def test_many_rows_are_copied_on_postgresql(alpha, is_postgresql, monkeypatch):
    copies: list[str] = []
    original = insert.Cursor.copy

    def counted(self, statement, *args, **kwargs):
        copies.append(statement)
        return original(self, statement, *args, **kwargs)

    monkeypatch.setattr(insert.Cursor, "copy", counted)
    enqueue_many([NewJob("demo:noop")] * (module.COPY_FROM - 1), by="test")
    assert copies == []
    enqueue_many([NewJob("demo:noop")] * module.COPY_FROM, by="test")
    assert len(copies) == (1 if is_postgresql else 0)
    assert Job.objects.count() == 2 * module.COPY_FROM - 1


@pytest.mark.parametrize("how_many", [SMALL, LARGE])
def test_all_are_accepted_or_none(alpha, how_many):
    news = [NewJob("demo:noop", tags=["x"]) for _ in range(how_many)]
    news[-1] = NewJob("demo:noop", priority=1000)
    with pytest.raises(InvalidJob) as caught:
        enqueue_many(news, by="test")
    assert caught.value.index == how_many - 1
    assert Job.objects.count() == JobTag.objects.count() == 0


def test_an_unknown_queue_among_many_is_named_with_its_place(alpha):
    with pytest.raises(UnknownQueue) as caught:
        enqueue_many([NewJob("demo:noop"), NewJob("demo:noop", queue="nowhere")], by="test")
    assert (caught.value.index, caught.value.field) == (1, "queue")


def test_no_jobs_are_no_error(alpha):
    assert enqueue_many([], by="test") == []


def test_a_job_belongs_to_the_callers_transaction(alpha):
    with pytest.raises(ZeroDivisionError), transaction.atomic(using="cluster-alpha"):
        enqueue(NewJob("demo:noop"), by="test")
        raise ZeroDivisionError
    assert Job.objects.count() == 0


def test_the_number_of_statements_does_not_grow_with_the_number_of_jobs(alpha):
    from django.test.utils import CaptureQueriesContext

    counts = []
    for how_many in (1, 15):
        forget_policies()
        with CaptureQueriesContext(connections["cluster-alpha"]) as queries:
            enqueue_many([NewJob("demo:noop", tags=["x"]) for _ in range(how_many)], by="test")
        counts.append(len(queries))
    assert counts[0] == counts[1]


# -- Ids of the client -----------------------------------------------------------------------------


def test_the_same_id_with_the_same_content_is_the_same_job(alpha):
    new = NewJob("demo:noop", payload={"a": 1}, tags=["x", "y"], id=uuid.uuid4())
    first, second = enqueue(new, by="one"), enqueue(new, by="two")
    assert (first.created, second.created) == (True, False)
    assert first.job.pk == second.job.pk == new.id
    assert Job.objects.get().enqueued_by == "one"


def test_the_same_id_is_the_same_job_whatever_has_become_of_it(alpha):
    new = NewJob("demo:noop", id=uuid.uuid4(), delay_seconds=60)
    enqueue(new, by="test").job.cancel()
    again = enqueue(new, by="test")
    assert (again.created, again.job.state) == (False, State.CANCELLED)


@pytest.mark.parametrize(
    "change",
    [
        {"type": "demo:echo"},
        {"payload": {"a": 2}},
        {"payload": None, "payload_bytes": b"x"},
        {"queue": "mail"},
        {"priority": 1},
        {"tags": ["z"]},
        {"on_lost": "hold"},
        {"max_attempts": 9},
        {"timeout_seconds": 9},
        {"run_at": datetime(2030, 1, 1, tzinfo=UTC)},
        {"expires_at": datetime(2030, 1, 1, tzinfo=UTC)},
        {"deadline_at": datetime(2030, 1, 1, tzinfo=UTC)},
        {"progress_timeout_seconds": 9},
        {"retry_base_seconds": 9},
        {"retry_cap_seconds": 9},
        {"metadata": {"a": 1}},
        {"unique_key": "one"},
    ],
)
def test_the_same_id_with_other_content_is_refused(alpha, change):
    make_queue("mail")
    asked = {"type": "demo:noop", "payload": {"a": 1}, "id": uuid.uuid4()}
    enqueue(NewJob(**asked), by="test")
    with pytest.raises(DuplicateJob) as caught:
        enqueue(NewJob(**{**asked, **change}), by="test")
    assert caught.value.field == "id"
    assert Job.objects.count() == 1


def test_two_jobs_in_one_call_cannot_have_the_same_id(alpha):
    new = NewJob("demo:noop", id=uuid.uuid4())
    with pytest.raises(InvalidJob):
        enqueue_many([new, new], by="test")
    assert Job.objects.count() == 0


@pytest.mark.parametrize("how_many", [SMALL, LARGE])
def test_a_repeated_bulk_makes_nothing_twice(alpha, how_many):
    news = [NewJob("demo:noop", payload=n, id=uuid.uuid4()) for n in range(how_many)]
    enqueue_many(news[:2], by="test")
    answers = enqueue_many(news, by="test")
    assert [answer.created for answer in answers] == [False, False] + [True] * (how_many - 2)
    assert [answer.job.pk for answer in answers] == [new.id for new in news]
    assert Job.objects.count() == how_many


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (1e23, 1e23),
        (10**23, 1e23),
        (1.0, 1),
        ({"a": [1e23, -0.0]}, {"a": [1e23, 0]}),
        ({2: "x", True: "y", None: "z", 2.5: "f"}, {2: "x", True: "y", None: "z", 2.5: "f"}),
        ((1, 2), [1, 2]),
    ],
)
def test_numbers_are_the_same_by_their_value(alpha, first, again):
    """PostgreSQL keeps 1e23 as an integer."""
    job_id = uuid.uuid4()
    enqueue(NewJob("demo:noop", payload=first, id=job_id), by="test")
    assert not enqueue(NewJob("demo:noop", payload=again, id=job_id), by="test").created


@pytest.mark.parametrize(
    ("first", "again"),
    [(1, True), (0, False), ("1", 1), ([1], [1, 2]), ({"a": 1}, {"b": 1}), (1e23, 2e23), ([], {})],
)
def test_values_that_only_look_alike_are_other_content(alpha, first, again):
    job_id = uuid.uuid4()
    enqueue(NewJob("demo:noop", payload={"v": first}, id=job_id), by="test")
    with pytest.raises(DuplicateJob):
        enqueue(NewJob("demo:noop", payload={"v": again}, id=job_id), by="test")
