"""A node whose database connection is taken away, or whose database is busy, goes on by itself."""

from __future__ import annotations

import time

import pytest
from django.db import connections, transaction

from jobs.models import Job
from jobs.states import State
from tests.jobs.test_worker import add, cluster, ends, worker  # noqa: F401  the fixture is used

pytestmark = pytest.mark.django_db(transaction=True)


def test_connections_that_are_cut_lose_nothing(eventually, is_postgresql):
    if not is_postgresql:
        pytest.skip("SQLite has no connection that another process could cut")
    with worker(concurrency=2):
        jobs = [add("test:sleep", {"seconds": 0.3}) for _ in range(12)]
        for _ in range(8):
            time.sleep(0.25)
            with connections["cluster-alpha"].cursor() as cursor:
                cursor.execute(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
        for job in jobs:
            assert ends(job, eventually, 60).state == State.SUCCEEDED
    assert not Job.objects.exclude(attempts=1).exists()


def test_a_database_that_is_locked_for_a_while_holds_up_and_loses_nothing(eventually):
    with worker(concurrency=2):
        first = [add("test:sleep", {"seconds": 0.2}) for _ in range(4)]
        eventually(lambda: Job.objects.filter(state=State.RUNNING).exists())
        with transaction.atomic(using="cluster-alpha"):
            with connections["cluster-alpha"].cursor() as cursor:
                if connections["cluster-alpha"].vendor == "postgresql":
                    cursor.execute("LOCK TABLE job IN ACCESS EXCLUSIVE MODE")
                else:
                    cursor.execute("UPDATE queue SET version = version")
            time.sleep(3)
        for job in first:
            assert ends(job, eventually, 60).state == State.SUCCEEDED
        assert ends(add("demo:echo", 1), eventually, 30).state == State.SUCCEEDED
