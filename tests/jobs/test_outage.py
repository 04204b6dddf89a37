"""A node whose database connection is taken away, or whose database is busy, goes on by itself."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import quote

import pytest
from django.db import connections, transaction

from clusters.models import ClusterSetting, Node
from jobs.models import Job, Queue
from jobs.states import State
from tests.factories import make_queue
from tests.jobs.test_worker import add, cluster, ends, state_of, worker  # noqa: F401  the fixture is used
from tests.processes import database_url, started, worker_environment

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
            # Less than two thirds of the lease: a node that hears nothing for longer ends itself.
            time.sleep(1.5)
        for job in first:
            assert ends(job, eventually, 60).state == State.SUCCEEDED
        assert ends(add("demo:echo", 1), eventually, 30).state == State.SUCCEEDED


@pytest.fixture
def crowded(tmp_path, is_postgresql):
    """The cluster's database takes no writes: it is full, or a read-only replica was promoted late."""
    connection = connections["cluster-alpha"]

    def close_all(cursor: Any) -> None:
        cursor.execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    class Crowded:
        def url_options(self) -> str:
            if is_postgresql:
                return ""
            # The limit is of the node's connections; this one may still write.
            pages = self.pages() + 600
            pragmas = "PRAGMA journal_mode=WAL;PRAGMA foreign_keys=ON;PRAGMA max_page_count="
            return "?init_command=" + quote(f"{pragmas}{pages}")

        def pages(self) -> int:
            with connection.cursor() as cursor:
                return int(cursor.execute("PRAGMA page_count").fetchone()[0])

        def fill(self) -> None:
            with connection.cursor() as cursor:
                if is_postgresql:
                    name = connection.ops.quote_name(connection.settings_dict["NAME"])
                    cursor.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
                    close_all(cursor)
                else:
                    # The room of what earlier tests have deleted is room too.
                    free = "(SELECT freelist_count FROM pragma_freelist_count)"
                    size = f"4000000 + {free} * (SELECT page_size FROM pragma_page_size)"
                    cursor.execute(f"CREATE TABLE filler AS SELECT randomblob({size}) AS x")

        def free(self) -> None:
            with connection.cursor() as cursor:
                if is_postgresql:
                    name = connection.ops.quote_name(connection.settings_dict["NAME"])
                    cursor.execute("SET default_transaction_read_only = off")
                    cursor.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
                    close_all(cursor)
                else:
                    cursor.execute("DROP TABLE IF EXISTS filler")

    crowded = Crowded()
    yield crowded
    crowded.free()


def test_a_database_that_takes_no_writes_holds_up_and_loses_nothing(crowded, eventually):
    """Full, or read-only: the node keeps its results, says so once, and goes on by itself."""
    address = database_url("cluster-alpha") + crowded.url_options()
    env = worker_environment(
        YARDMASTER_HANDLERS="tests.worker_handlers", YARDMASTER_CLUSTERS=f"alpha={address}"
    )
    # Each result is longer than a page that is free.
    large = {"text": "x" * 60_000}
    jobs = [add("demo:echo", large, delay_seconds=0) for _ in range(8)]
    ClusterSetting.objects.all().persist({"lease_seconds": 60.0}, by="test")
    Queue.objects.filter(name="default").pause(by="test")
    with started("worker", "--cluster", "alpha", "--concurrency", "2", env=env) as process:
        eventually(lambda: Node.objects.exists(), seconds=60)
        make_queue("slow")
        slow = [add("test:sleep", {"seconds": 2.5}, queue="slow") for _ in range(2)]
        eventually(lambda: all(state_of(job) == State.RUNNING for job in slow), seconds=60)
        Queue.objects.filter(name="default").resume()
        crowded.fill()
        time.sleep(6)
        assert process.poll() is None
        crowded.free()
        begun = time.monotonic()
        for job in (*slow, *jobs):
            assert ends(job, eventually, 60).state == State.SUCCEEDED
        assert time.monotonic() - begun < 50
        process.terminate()
        output, _ = process.communicate(timeout=60)
        print(output)
    assert not Job.objects.exclude(attempts=1).exists()
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    told = [line for line in lines if line["event"].startswith("the database of alpha fails")]
    # Cutting the connections is a condition of its own, before and after.
    assert 1 <= len(told) <= 4
