"""Submitting a job and waiting for its end."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import connections

from clusters.binding import cluster_bound
from jobs.models import Job
from tests.dialects.tork.conftest import Caller, check_message, checked, task
from tests.dialects.tork.work import node


@pytest.mark.parametrize("timeout", ["", "x", "1", "5 s"])
def test_a_timeout_is_a_duration(timeout: str, api: Caller) -> None:
    body = {"name": "x", "tasks": [{}], "wait": {"timeout": timeout}}
    message = f'time: invalid duration "{timeout}"'
    check_message(api.post("jobs", body), 400, message)
    assert not Job.objects.exists()


def test_the_job_goes_on_when_the_time_is_over(api: Caller) -> None:
    body = {"name": "x", "tasks": [task()], "wait": {"timeout": "30ms"}}
    check_message(api.post("jobs", body), 408, "timeout waiting for job to complete")
    (job,) = api.read("jobs")["items"]
    assert job["state"] == "PENDING"
    node().run()
    assert api.job(job["id"])["state"] == "COMPLETED"


def test_what_is_refused_is_not_waited_for(api: Caller) -> None:
    body = {"name": "x", "tasks": [task(queue="a b")], "wait": {"timeout": "1h"}}
    assert api.post("jobs", body).status_code == 400
    assert not Job.objects.exists()


def _post(api: Caller, body: Any, got: list[Any]) -> None:
    try:
        got.append(api.post("jobs", body))
    finally:
        # Those of this thread.
        connections.close_all()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("run", "state"), [("echo a", "COMPLETED"), ("echo fail", "FAILED")])
def test_the_end_of_the_job_is_the_answer(
    run: str, state: str, transactional_db: None, api: Caller, eventually: Any
) -> None:
    got: list[Any] = []
    body = {"name": "x", "tasks": [task(run=run)], "wait": {"timeout": "1m"}}
    caller = threading.Thread(target=_post, args=(api, body, got))
    caller.start()
    try:
        eventually(Job.objects.exists)
        node().run()
    finally:
        caller.join(60)
    shown = checked(got[0])
    assert (shown["state"], len(shown["execution"])) == (state, 1)
    assert shown == api.job(shown["id"])


@pytest.mark.django_db(transaction=True)
def test_a_cancel_ends_the_wait(transactional_db: None, api: Caller, eventually: Any) -> None:
    got: list[Any] = []
    body = {"name": "x", "tasks": [task()], "wait": {"timeout": "1m"}}
    caller = threading.Thread(target=_post, args=(api, body, got))
    caller.start()
    try:
        eventually(Job.objects.exists)
        with cluster_bound("alpha"):
            Job.objects.get(kind="steps").cancel()
    finally:
        caller.join(60)
    assert checked(got[0])["state"] == "CANCELLED"
