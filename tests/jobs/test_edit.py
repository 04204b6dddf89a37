"""Editing a job that has not started, and enqueuing a copy of one."""

from __future__ import annotations

import pytest

from jobs.engine import edit as editing
from jobs.engine.edit import Changes, edit, version_of
from jobs.engine.requeue import requeue
from jobs.errors import (
    InvalidJob,
    InvalidTransition,
    JobNotFound,
    OutdatedJob,
    PayloadTooLarge,
    UniqueKeyTaken,
    UnknownQueue,
)
from jobs.models import Job, JobMetadata, JobTag
from jobs.states import FINAL, UNSTARTED, State
from tests.factories import make_job, make_queue

pytestmark = pytest.mark.usefixtures("alpha")
STARTED_OR_FINAL = sorted(set(State) - set(UNSTARTED))


def stored(job: Job) -> dict:
    return Job.objects.filter(pk=job.pk).values().get()


@pytest.mark.parametrize("state", UNSTARTED)
def test_all_of_it_is_changed_at_once(state):
    make_queue("fast")
    job = make_job(state, payload={"a": 1})
    edit(job, Changes(queue="fast", priority=-5, payload=[1, 2]))
    assert (job.queue, job.priority, job.payload, job.state) == ("fast", -5, [1, 2], state)


def test_what_is_not_named_is_left_as_it_is():
    job = make_job(payload={"a": 1}, priority=3)
    edit(job, Changes(priority=4))
    assert (job.payload, job.priority, job.queue) == ({"a": 1}, 4, "default")


def test_bytes_take_the_place_of_a_payload_and_the_other_way_round():
    job = make_job(payload={"a": 1})
    edit(job, Changes(payload_bytes=b"\0\xff"))
    assert (job.payload, bytes(job.payload_bytes)) == (None, b"\0\xff")
    edit(job, Changes(payload="text"))
    assert (job.payload, job.payload_bytes) == ("text", None)
    edit(job, Changes(payload=None))
    assert (job.payload, job.payload_bytes) == (None, None)


@pytest.mark.parametrize("state", STARTED_OR_FINAL)
def test_what_has_started_or_ended_is_not_changed(state):
    make_queue("fast")
    job = make_job(state)
    before = stored(job)
    with pytest.raises(InvalidTransition, match=state):
        edit(job, Changes(queue="fast", priority=1, payload=1))
    assert stored(job) == before


@pytest.mark.once
@pytest.mark.parametrize(
    "changes,error,field",
    [
        (Changes(priority=101), InvalidJob, "priority"),
        (Changes(queue="nowhere"), UnknownQueue, "queue"),
        (Changes(queue="a\0b"), UnknownQueue, "queue"),
        (Changes(payload="x" * 300_000), PayloadTooLarge, "payload"),
        (Changes(payload_bytes=b"x" * 300_000), PayloadTooLarge, "payload"),
        (Changes(payload="a\0b"), InvalidJob, "payload"),
        (Changes(payload=float("nan")), InvalidJob, "payload"),
        (Changes(payload=1, payload_bytes=b""), InvalidJob, "payload_bytes"),
        (Changes(), InvalidJob, None),
    ],
)
def test_what_a_new_job_may_not_have_a_changed_one_may_not_either(changes, error, field):
    job = make_job(payload={"a": 1})
    before = stored(job)
    with pytest.raises(error) as caught:
        edit(job, changes)
    assert caught.value.field == field
    assert stored(job) == before


def test_the_kind_looks_at_the_new_payload():
    job = make_job(kind="http", type="http", payload={"url": "http://example.com/"})
    with pytest.raises(InvalidJob):
        edit(job, Changes(payload={"url": 7}))


def test_a_change_of_something_that_was_changed_meanwhile_is_refused_where_asked_for():
    job = make_job(payload={"a": 1})
    read = version_of(job)
    edit(job, Changes(payload={"a": 2}), versions=[read])
    with pytest.raises(OutdatedJob):
        edit(job, Changes(payload={"a": 3}), versions=[read])
    assert Job.objects.get(pk=job.pk).payload == {"a": 2}
    edit(job, Changes(payload={"a": 4}))
    assert Job.objects.get(pk=job.pk).payload == {"a": 4}


def test_the_version_names_the_contents_and_nothing_else():
    job = make_job(payload={"a": 1, "b": 2}, priority=1)
    before = version_of(Job.objects.get(pk=job.pk))
    Job.objects.filter(pk=job.pk).update(state=State.SCHEDULED, attempts=2)
    assert version_of(Job.objects.get(pk=job.pk)) == before
    versions = {before}
    for columns in (
        {"payload": {"a": 1, "b": 3}},
        {"payload_bytes": b"x"},
        {"priority": 2},
        {"queue": "other"},
    ):
        Job.objects.filter(pk=job.pk).update(**columns)
        versions.add(version_of(Job.objects.get(pk=job.pk)))
    assert len(versions) == 5


def test_a_job_that_is_gone_cannot_be_changed():
    job = make_job()
    Job.objects.all().delete()
    with pytest.raises(JobNotFound):
        edit(job, Changes(priority=1))


def test_nodes_are_told_when_a_ready_job_changes_its_queue(monkeypatch):
    hints: list[set[str]] = []
    monkeypatch.setattr(editing, "hint_ready", lambda using, queues: hints.append(queues))
    make_queue("fast")
    edit(make_job(), Changes(queue="fast"))
    edit(make_job(State.SCHEDULED), Changes(queue="fast"))
    edit(make_job(), Changes(priority=1))
    assert hints == [{"fast"}]


# -- Requeue ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", State)
def test_a_copy_is_new_and_names_its_original(state):
    columns = {} if state == State.BLOCKED else {"pending_dependencies": 0}
    old = make_job(
        state,
        payload={"a": [1, None]},
        queue="mail",
        priority=7,
        tags=["eu"],
        metadata={"tenant": 5},
        timeout_seconds=12.0,
        max_attempts=4,
        retry_base_seconds=1.5,
        on_lost="hold",
        **columns,
    )
    before = stored(old)
    copy = requeue(old, by="test:me")
    assert copy.pk != old.pk
    assert (copy.copy_of, copy.enqueued_by, copy.state) == (old.pk, "test:me", State.READY)
    assert (copy.attempts, copy.fence, copy.result, copy.error) == (0, 0, None, None)
    for name in (
        *("payload", "queue", "priority", "tags", "metadata", "timeout_seconds", "max_attempts"),
        *("retry_base_seconds", "on_lost", "type", "kind"),
    ):
        assert getattr(copy, name) == getattr(old, name)
    assert JobTag.objects.filter(job_id=copy.pk).count() == 1
    assert JobMetadata.objects.get(job_id=copy.pk).key == "tenant"
    assert stored(old) == before


def test_bytes_are_copied_as_they_are():
    copy = requeue(make_job(State.FAILED, payload_bytes=b"\0\xff"), by="test")
    assert bytes(copy.payload_bytes) == b"\0\xff"


def test_times_of_the_original_are_not_copied():
    old = make_job(State.FAILED)
    Job.objects.filter(pk=old.pk).update(expires_at=old.run_at, deadline_at=old.run_at)
    old.refresh_from_db()
    copy = requeue(old, by="test")
    assert (copy.expires_at, copy.deadline_at) == (None, None)


@pytest.mark.parametrize("state", FINAL)
def test_a_copy_takes_the_unique_key_of_an_original_that_has_ended(state):
    old = make_job(state, unique_key="invoice-7")
    assert requeue(old, by="test").unique_key == "invoice-7"


@pytest.mark.parametrize("holder", ["itself", "another"])
def test_a_copy_whose_unique_key_is_held_is_refused(holder):
    old = make_job(State.READY if holder == "itself" else State.FAILED, unique_key="invoice-7")
    if holder == "another":
        make_job(unique_key="invoice-7")
    count = Job.objects.count()
    with pytest.raises(UniqueKeyTaken):
        requeue(old, by="test")
    assert Job.objects.count() == count
