"""GET {cluster}/jobs/{id}/attempts and /logs"""

from __future__ import annotations

from jobs.models import LogLine
from jobs.states import State
from tests.api.conftest import Api, fields
from tests.factories import make_attempt, make_job


def test_attempts_come_oldest_first(alpha: object, viewer: Api) -> None:
    job = make_job(State.FAILED)
    for _ in range(3):
        make_attempt(job)
    make_attempt(make_job(State.FAILED))
    body = viewer.get(f"alpha/jobs/{job.pk}/attempts").json()
    assert [item["number"] for item in body["items"]] == [1, 2, 3]
    assert body["items"][0]["outcome"] == "failed"
    assert body["items"][0]["error_type"] == "RuntimeError"
    assert body["next"] is None


def test_the_running_try_is_the_last_one_and_has_no_outcome(alpha: object, viewer: Api) -> None:
    job = make_job(State.RUNNING, attempts=2, fence=2)
    make_attempt(job)
    items = viewer.get(f"alpha/jobs/{job.pk}/attempts").json()["items"]
    assert [(item["fence"], item["outcome"]) for item in items] == [(1, "failed"), (2, None)]
    assert items[1]["node_id"] == str(job.node_id)
    assert items[1]["finished_at"] is None
    assert list(items[0]) == list(items[1])


def test_a_try_that_ended_between_two_looks_is_listed_once(alpha: object, viewer: Api) -> None:
    job = make_job(State.RUNNING, attempts=1, fence=1)
    make_attempt(job)
    assert len(viewer.get(f"alpha/jobs/{job.pk}/attempts").json()["items"]) == 1


def test_attempts_have_pages(alpha: object, viewer: Api) -> None:
    job = make_job(State.RUNNING, attempts=4, fence=4)
    for _ in range(3):
        make_attempt(job)
    first = viewer.get(f"alpha/jobs/{job.pk}/attempts?limit=2").json()
    assert [item["fence"] for item in first["items"]] == [1, 2]
    second = viewer.get(first["next"]).json()
    assert [item["fence"] for item in second["items"]] == [3, 4]
    assert second["next"] is None


def test_log_lines_come_in_their_order_and_in_pages(alpha: object, viewer: Api) -> None:
    job, other = make_job(State.RUNNING), make_job(State.RUNNING)
    for number in range(5):
        for of in (job, other):
            LogLine.objects.create(
                job_id=of.pk, fence=1, stream="stdout", message=f"{number} <b>\x1b[1mé"
            )
    first = viewer.get(f"alpha/jobs/{job.pk}/logs?limit=3").json()
    assert [item["message"][0] for item in first["items"]] == ["0", "1", "2"]
    second = viewer.get(first["next"]).json()
    assert [item["message"][0] for item in second["items"]] == ["3", "4"]
    assert second["next"] is None
    # Whoever follows a log goes on behind the last line he has.
    last = second["items"][-1]["id"]
    assert viewer.get(f"alpha/jobs/{job.pk}/logs?after={last}").json()["items"] == []


def test_limits_are_checked(alpha: object, viewer: Api) -> None:
    job = make_job()
    assert fields(viewer.get(f"alpha/jobs/{job.pk}/logs?limit=1001")) == ["limit"]
    assert fields(viewer.get(f"alpha/jobs/{job.pk}/logs?after=-1")) == ["after"]
    assert fields(viewer.get(f"alpha/jobs/{job.pk}/logs?after=" + "9" * 19)) == ["after"]
    assert fields(viewer.get(f"alpha/jobs/{job.pk}/attempts?limit=201")) == ["limit"]
    assert fields(viewer.get(f"alpha/jobs/{job.pk}/attempts?cursor=1")) == ["cursor"]
