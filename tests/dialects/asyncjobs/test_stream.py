"""Streams of tasks: all there are, then what happens, as it happens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.db import OperationalError, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from clusters.binding import bound_cluster_id
from jobs.dialects.asyncjobs.views import feed
from jobs.dialects.asyncjobs.views.feed import Feed
from jobs.dialects.asyncjobs.wire.states import sorts_of
from jobs.engine.enqueue import NewJob, enqueue, enqueue_many
from jobs.models import Job
from jobs.states import Outcome, Reason, State
from tests.dialects.asyncjobs.conftest import Caller, check_error
from tests.factories import make_attempt, make_job, make_node, make_queue

USING = "cluster-alpha"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "POLL_SECONDS", 0.0)


class Follower:
    """A stream that is read until nothing is new."""

    def __init__(self, asked: dict[str, Any] | None = None, limit: int | None = None) -> None:
        self.lines: Iterator[bytes] = iter(Feed(USING, asked or {}, limit))

    def news(self, rounds: int = 8) -> list[tuple[str, str]]:
        """What comes until a whole round has brought nothing: ids and states."""
        found, quiet = [], 0
        while quiet < rounds:
            line = next(self.lines)
            quiet = 0 if line else quiet + 1
            if line:
                task = json.loads(line)
                found.append((task["id"], task["state"]))
        return found


def run(job: Job, **columns: Any) -> None:
    """Let a node claim the job."""
    Job.objects.filter(pk=job.pk).update(
        state=State.RUNNING, node=make_node(), fence=job.fence + 1, attempts=job.attempts + 1,
        started_at=timezone.now(), **columns,
    )  # fmt: skip
    job.refresh_from_db()


def end(job: Job, state: State, outcome: Outcome, **columns: Any) -> None:
    now = timezone.now()
    finished = {} if state in (State.SCHEDULED, State.READY) else {"finished_at": now}
    Job.objects.filter(pk=job.pk).update(state=state, **finished, **columns)
    make_attempt(job, outcome, finished_at=now)
    job.refresh_from_db()


def test_a_stream_tells_of_all_that_happens_to_a_task(alpha: object) -> None:
    old = make_job(type="a")
    follower = Follower()
    assert follower.news() == [(str(old.pk), "new")]
    new = enqueue(NewJob("b"), by="test").job
    assert follower.news() == [(str(new.pk), "new")]
    run(new)
    assert follower.news() == [(str(new.pk), "active")]
    end(new, State.SCHEDULED, Outcome.FAILED, run_at=timezone.now() + timedelta(hours=1))
    assert follower.news() == [(str(new.pk), "retry")]
    run(new)
    end(new, State.SUCCEEDED, Outcome.SUCCEEDED)
    assert follower.news() == [(str(new.pk), "complete")]
    old.cancel()
    assert follower.news() == [(str(old.pk), "terminated")]
    old.retry()
    assert follower.news() == [(str(old.pk), "new")]
    assert follower.news() == []


def test_a_stream_tells_of_ends_without_a_try(alpha: object) -> None:
    parent = enqueue(NewJob("a"), by="test").job
    child = enqueue(NewJob("b", depends_on=[parent.pk]), by="test").job
    late = make_job(expires_at=timezone.now() - timedelta(seconds=1))
    follower = Follower()
    assert len(follower.news()) == 3
    Job.objects.all().expire()
    assert follower.news() == [(str(late.pk), "expired")]
    Job.objects.get(pk=parent.pk).cancel()
    assert dict(follower.news()) == {str(parent.pk): "terminated", str(child.pk): "unreachable"}


def test_a_stream_tells_when_a_task_need_not_wait_any_more(alpha: object) -> None:
    parent = make_job(State.RUNNING)
    child = enqueue(NewJob("b", depends_on=[parent.pk]), by="test").job
    follower = Follower({"type": "b"})
    assert follower.news() == [(str(child.pk), "blocked")]
    from django.db import transaction

    from jobs.models.release import release

    with transaction.atomic(using=USING):
        end(parent, State.SUCCEEDED, Outcome.SUCCEEDED)
        release(USING, [parent.pk])
    assert follower.news() == [(str(child.pk), "new")]


def test_filters_hold_for_what_comes_later_too(alpha: object) -> None:
    follower = Follower({"type": "a", "sorts": sorts_of(["complete"])})
    jobs = [enqueue(NewJob(type_), by="test").job for type_ in ("a", "b")]
    assert follower.news() == []
    for job in jobs:
        run(job)
        end(job, State.SUCCEEDED, Outcome.SUCCEEDED)
    assert follower.news() == [(str(jobs[0].pk), "complete")]


def test_many_of_one_moment_all_come_once(alpha: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PAGE", 7)
    enqueue_many([NewJob("a")] * 40, by="test")
    follower = Follower()
    assert len({pk for pk, _ in follower.news()}) == 40
    made = enqueue_many([NewJob("a")] * 40, by="test")
    found = follower.news(100)
    assert sorted(pk for pk, _ in found) == sorted(one.job_id for one in made)
    Job.objects.all().cancel()
    assert len({pk for pk, state in follower.news(100) if state == "terminated"}) == 80
    assert follower.news() == []


@pytest.mark.parametrize("seconds", [1, 6, 25])
def test_what_becomes_visible_late_is_not_missed(seconds: int, alpha: object) -> None:
    follower = Follower()
    follower.news()
    job = make_job(created_at=timezone.now() - timedelta(seconds=seconds))
    assert follower.news() == [(str(job.pk), "new")]


@pytest.mark.parametrize("state", [State.SUCCEEDED, State.FAILED, State.SCHEDULED])
def test_ends_are_told_however_long_ago_they_were(state: State, alpha: object) -> None:
    early = timezone.now() - timedelta(minutes=2)
    jobs = [make_job(State.RUNNING, created_at=early), make_job(created_at=early)]
    follower = Follower()
    assert follower.news() == [(str(jobs[0].pk), "active"), (str(jobs[1].pk), "new")]
    for job in jobs:
        job.refresh_from_db()
        run(job)
        fields = {"finished_at": early} if state != State.SCHEDULED else {}
        columns = {"reason": Reason.ERROR, "error": "x"} if state == State.FAILED else {}
        Job.objects.filter(pk=job.pk).update(state=state, node=None, **fields, **columns)
    word = {"succeeded": "complete", "failed": "terminated", "scheduled": "retry"}[state]
    assert follower.news() == [(str(job.pk), word) for job in jobs]


def test_tasks_come_into_the_states_that_are_asked_for(alpha: object) -> None:
    early = timezone.now() - timedelta(minutes=2)
    jobs = [make_job(state, created_at=early) for state in (State.RUNNING, State.READY)]
    follower = Follower({"sorts": sorts_of(["complete"])})
    assert follower.news() == []
    for job in jobs:
        run(job)
        end(job, State.SUCCEEDED, Outcome.SUCCEEDED)
    assert follower.news() == [(str(job.pk), "complete") for job in jobs]


def test_what_runs_is_followed_however_much_waits(
    alpha: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "WATCHED", 3)
    jobs = [make_job() for _ in range(8)]
    follower = Follower()
    assert len(follower.news()) == 8
    for job in reversed(jobs):
        run(job)
        assert follower.news() == [(str(job.pk), "active")]
        end(job, State.SUCCEEDED, Outcome.SUCCEEDED)
        assert follower.news() == [(str(job.pk), "complete")]


def test_a_stream_that_cannot_keep_up_ends(alpha: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "RECENT", 10)
    make_queue("other")
    follower = Follower({"queue": "default"})
    assert follower.news() == []
    enqueue_many([NewJob("a", queue="other")] * 40, by="test")
    assert follower.news() == []
    enqueue_many([NewJob("a")] * 9, by="test")
    assert len(follower.news()) == 9
    enqueue_many([NewJob("a")] * 40, by="test")
    with pytest.raises(StopIteration):
        follower.news()
    assert len(Follower({"queue": "default"}).news()) == 49


def test_a_round_takes_the_same_statements_however_much_is_watched(alpha: object) -> None:
    follower = Follower()

    def statements() -> int:
        follower.news()
        with CaptureQueriesContext(connections[USING]) as found:
            next(follower.lines)
        return len(found)

    make_job()
    before = statements()
    for _ in range(20):
        make_job()
        make_job(State.FAILED)
    assert statements() == before <= 5


def test_a_long_round_is_followed_by_a_longer_rest(
    alpha: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    monkeypatch.setattr(feed, "POLL_SECONDS", 1.0)
    monkeypatch.setattr(feed.time, "sleep", rests.append)
    took = iter((0.0, 0.1, 0.0, 3.0))
    lines = iter(Feed(USING, {}, None))
    next(lines)
    real = feed.time.monotonic
    monkeypatch.setattr(feed.time, "monotonic", lambda: real() + next(took, 3.0))
    next(lines)
    next(lines)
    assert rests[0] == pytest.approx(1.0, abs=0.5) and rests[1] > 10


def test_what_is_remembered_is_bounded(alpha: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "REMEMBERED", 5)
    monkeypatch.setattr(feed, "WATCHED", 4)
    monkeypatch.setattr(feed, "STOPPED", 3)
    monkeypatch.setattr(feed, "RECENT", 6)
    for _ in range(10):
        make_job(State.CANCELLED)
        make_job()
    made = Feed(USING, {}, None)
    lines = iter(made)
    for _ in range(25):
        next(lines)
    assert (len(made._said), len(made._open), len(made._stopped)) == (5, 4, 3)
    assert len(made._recent) == 6


def test_what_was_made_just_before_comes_once_however_much(
    alpha: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "REMEMBERED", 5)
    enqueue_many([NewJob("a")] * 40, by="test")
    assert len(Follower().news(30)) == 40


def test_a_limit_ends_a_stream(api: Caller) -> None:
    for _ in range(5):
        api.make()
    for limit in (1, 3, 5):
        response = api.get(f"v1/tasks?stream=ndjson&limit={limit}")
        assert response["Content-Type"] == "application/x-ndjson"
        lines = response.getvalue().splitlines()
        assert len(lines) == limit
        assert json.loads(lines[0])["state"] == "new"
    assert bound_cluster_id() == "alpha"


def test_a_stream_ends_by_itself(api: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "STREAM_SECONDS", 0.3)
    monkeypatch.setattr(feed, "POLL_SECONDS", 0.05)
    assert api.get("v1/tasks?stream=ndjson").getvalue() == b""
    api.make()
    (line,) = api.get("v1/tasks?stream=ndjson&limit=2000").getvalue().splitlines()
    assert json.loads(line) == api.listed()[0]


def test_the_whole_story_fits_into_what_the_original_gives_it() -> None:
    assert 0 < feed.STREAM_SECONDS <= 55


def test_a_stream_ends_where_its_database_fails(
    api: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.make()

    def failing(*_: Any) -> Any:
        raise OperationalError

    monkeypatch.setattr(Feed, "_running", failing)
    assert len(api.get("v1/tasks?stream=ndjson").getvalue().splitlines()) == 1


def test_one_stream_too_many_is_told_when_to_come_again(api: Caller) -> None:
    response = api.get("v1/tasks?stream=ndjson&limit=1")
    refusal = response.when_full  # type: ignore[attr-defined]
    error = json.loads(refusal.content)["error"]
    assert (refusal.status_code, error["code"]) == (429, "rate_limited")
    assert error["details"] == {"reason": "list_in_progress"}
    assert int(refusal["Retry-After"]) > 0


def test_a_stream_checks_its_query_before_it_begins(api: Caller, viewer: Caller) -> None:
    response = api.get("v1/tasks?stream=ndjson&state=x")
    check_error(response, 400, "invalid_argument", "state_invalid", "state")
    response = Caller(None).get("v1/tasks?stream=ndjson")
    check_error(response, 401, "invalid_argument", "unauthenticated")
