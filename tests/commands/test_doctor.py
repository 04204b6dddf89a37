"""manage.py doctor: each finding, provoked."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.utils import timezone

from clusters.models import NodeStatus
from jobs import doctor
from jobs.doctor import database, work
from jobs.doctor.findings import FAIL, OK, WARN, Finding, span, worst
from jobs.models import FailureSighting, Job, JobListing, Queue, Tally, UpkeepDuty
from jobs.states import State
from tests.factories import make_job, make_node, make_queue
from tests.processes import manage, worker_environment

ALIAS = "cluster-alpha"


def ago(**since: float) -> Any:
    return timezone.now() - timedelta(**since)


def live_node(**columns: Any) -> Any:
    return make_node(version=settings.VERSION, **columns)


def only(findings: list[Finding]) -> Finding:
    (finding,) = findings
    return finding


def statuses(findings: list[Finding]) -> set[str]:
    return {finding.status for finding in findings}


@pytest.fixture
def other(is_postgresql: bool) -> Iterator[Any]:
    """A second session of the database."""
    if not is_postgresql:
        pytest.skip("a matter of PostgreSQL")
    connection = connections[ALIAS].copy()
    with connection.cursor() as cursor:
        yield cursor
        cursor.execute("ROLLBACK")
    connection.close()


# -- The database ----------------------------------------------------------------------------------


def test_a_sound_cluster_has_nothing_but_what_tests_do_to_it(alpha):
    live_node()
    found = doctor.examine(settings.CLUSTERS["alpha"])
    assert {finding.check for finding in found if finding.status != OK} <= {
        "durability",
        # What tests before this one have rolled back, and autovacuum has yet to come for.
        "dead_rows",
    }
    assert {"reachable", "schema", "nodes", "duties", "listing"} <= {f.check for f in found}


@pytest.mark.django_db(transaction=True)
def test_a_migration_that_was_not_applied_fails_and_nothing_more_is_asked(alpha):
    call_command("migrate", "jobs", "0006", database=ALIAS, verbosity=0)
    try:
        found = doctor.examine(settings.CLUSTERS["alpha"])
        (schema,) = [finding for finding in found if finding.check == "schema"]
        assert (schema.status, schema.advice) == (FAIL, "run manage.py migrate")
        assert schema.details["pending"][0] == "jobs.0007_lighter_indexes"
        assert "nodes" not in {finding.check for finding in found}
    finally:
        call_command("migrate", database=ALIAS, verbosity=0)


def test_a_database_that_a_newer_version_migrated_is_told_of(alpha):
    with connections[ALIAS].cursor() as cursor:
        cursor.execute(
            "INSERT INTO django_migrations (app, name, applied)"
            " VALUES ('jobs', '9999_future', CURRENT_TIMESTAMP)"
        )
    found = only(database.check_schema(ALIAS))
    assert (found.status, "jobs.9999_future" in found.found) == (WARN, True)


def test_old_versions_of_the_database_are_told_of(alpha, is_postgresql, monkeypatch):
    assert only(database.check_version(ALIAS)).status == OK
    monkeypatch.setattr(database, "POSTGRES_FLOOR", 990000)
    monkeypatch.setattr(database, "SQLITE_FLOOR", (99, 0, 0))
    assert only(database.check_version(ALIAS)).status == WARN


@pytest.mark.django_db(transaction=True)
def test_the_holder_of_the_oldest_snapshot_is_named(alpha, other, monkeypatch):
    assert only(database.check_snapshots(ALIAS)).status == OK
    other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    other.execute("SELECT pg_backend_pid() FROM job")
    other.execute("SELECT pg_backend_pid()")
    pid = other.fetchone()[0]
    monkeypatch.setattr(database, "SNAPSHOT_WARN_SECONDS", 0.0)
    found = only(database.check_snapshots(ALIAS))
    assert (found.status, found.details["pid"]) == (WARN, pid)
    assert str(pid) in found.advice
    monkeypatch.setattr(database, "SNAPSHOT_FAIL_SECONDS", 0.0)
    assert only(database.check_snapshots(ALIAS)).status == FAIL


@pytest.mark.django_db(transaction=True)
def test_tables_full_of_dead_rows_are_told_of(alpha, other, eventually, monkeypatch):
    monkeypatch.setattr(database, "DEAD_ROWS", 5)
    for _ in range(10):
        make_job()
    other.execute("UPDATE job SET priority = 1")
    other.execute("UPDATE job SET priority = 2")
    other.execute("SELECT pg_stat_force_next_flush()")

    def bloated() -> bool:
        connections[ALIAS].close()  # statistics are cached within a transaction
        return any(
            f.status == WARN and f.details["table"] == "job"
            for f in database.check_dead_rows(ALIAS)
        )

    eventually(bloated)


@pytest.mark.django_db(transaction=True)
def test_an_invalid_index_fails_and_one_larger_than_its_table_is_told_of(alpha, other, monkeypatch):
    assert statuses(database.check_indexes(ALIAS)) == {OK}
    for _ in range(2):
        make_queue(description="same")
    with pytest.raises(Exception, match="could not create unique index"):
        other.execute("CREATE UNIQUE INDEX CONCURRENTLY broken ON queue (description)")
    try:
        found = only([f for f in database.check_indexes(ALIAS) if f.status == FAIL])
        assert "broken" in found.found and "REINDEX" in found.advice
    finally:
        other.execute("DROP INDEX broken")
    monkeypatch.setattr(database, "LARGE_INDEX_BYTES", 0)
    assert WARN in statuses(database.check_indexes(ALIAS))


def test_settings_that_lose_what_was_answered_are_told_of(alpha, is_postgresql):
    with connections[ALIAS].cursor() as cursor:
        if is_postgresql:
            cursor.execute("SET LOCAL synchronous_commit = off")
            found = {f.found.split()[0]: f.status for f in database.check_durability(ALIAS)}
            assert found["synchronous_commit"] == WARN
            cursor.execute("SHOW fsync")
            is_on = cursor.fetchone()[0] == "on"
            assert found.get("fsync") == (None if is_on else FAIL)
        else:
            before = cursor.execute("PRAGMA synchronous").fetchone()[0]
            assert (WARN in statuses(database.check_durability(ALIAS))) == (before < 2)


@pytest.mark.django_db(transaction=True)
def test_a_slot_that_nobody_reads_is_told_of(alpha, other, monkeypatch):
    assert only(database.check_replication_slots(ALIAS)).status == OK
    monkeypatch.setattr(database, "SLOT_WARN_BYTES", -1)
    other.execute("SELECT pg_create_physical_replication_slot('ym_doctor', true)")
    try:
        found = only(database.check_replication_slots(ALIAS))
        assert (found.status, "ym_doctor" in found.found) == (WARN, True)
    finally:
        other.execute("SELECT pg_drop_replication_slot('ym_doctor')")


@pytest.mark.django_db(transaction=True)
def test_a_prepared_transaction_that_was_forgotten_is_told_of(alpha, other, monkeypatch):
    assert only(database.check_prepared_transactions(ALIAS)).status == OK
    other.execute("SHOW max_prepared_transactions")
    if other.fetchone()[0] == "0":
        pytest.skip("this server allows none")
    monkeypatch.setattr(database, "SNAPSHOT_WARN_SECONDS", 0.0)
    other.execute("BEGIN")
    other.execute("UPDATE queue SET version = version")
    other.execute("PREPARE TRANSACTION 'forgotten'")
    try:
        found = only(database.check_prepared_transactions(ALIAS))
        assert (found.status, found.details["gid"]) == (WARN, "forgotten")
    finally:
        other.execute("ROLLBACK PREPARED 'forgotten'")


def test_a_database_that_does_not_answer_fails_with_one_line(tmp_path):
    missing = f"sqlite:///{tmp_path}/not-there.sqlite3"
    env = worker_environment(YARDMASTER_CLUSTERS=f"gone={missing}")
    done = manage("doctor", "--cluster=gone", "--json", env=env)
    assert done.returncode == 1
    (item,) = json.loads(done.stdout)["items"]
    assert [f["check"] for f in item["findings"]] == ["reachable"]
    assert "manage.py migrate" in item["findings"][0]["advice"]


# -- The work --------------------------------------------------------------------------------------


def test_a_cluster_without_nodes_is_told_of(alpha):
    assert only(work.check_nodes(ALIAS)).status == WARN
    live_node()
    assert only(work.check_nodes(ALIAS)).status == OK


def test_a_node_that_went_quiet_and_that_nobody_buried_fails(alpha):
    live_node(lease_until=ago(minutes=5))
    assert only(work.check_nodes(ALIAS)).status == FAIL


def test_nodes_of_several_versions_are_told_of(alpha):
    live_node()
    make_node(version="0.0.older")
    found = only(work.check_nodes(ALIAS))
    assert (found.status, found.details["versions"]) == (WARN, ["0.0.older", settings.VERSION])


def test_jobs_that_nobody_rescues_fail(alpha):
    assert only(work.check_lost_jobs(ALIAS)).status == OK
    dead = make_node(NodeStatus.DEAD, closed_at=ago(minutes=5))
    job = make_job(State.RUNNING, node=dead, started_at=ago(minutes=9))
    make_job(State.RUNNING, node=live_node(), started_at=ago(minutes=9))
    found = only(work.check_lost_jobs(ALIAS))
    assert (found.status, found.details["example"]) == (FAIL, str(job.pk))
    assert found.found.startswith("1 ")


def test_jobs_of_a_node_that_died_a_moment_ago_are_for_rescue_not_for_people(alpha):
    dead = make_node(NodeStatus.DEAD, closed_at=ago(seconds=5))
    make_job(State.RUNNING, node=dead, started_at=ago(minutes=9))
    assert only(work.check_lost_jobs(ALIAS)).status == OK


def test_a_job_past_its_timeout_is_told_of_and_so_is_a_very_long_one(alpha):
    assert only(work.check_running(ALIAS)).status == OK
    long = make_job(State.RUNNING, started_at=ago(days=2), timeout_seconds=7 * 86400.0)
    found = only(work.check_running(ALIAS))
    assert (found.status, found.details["job"]) == (WARN, str(long.pk))
    over = make_job(State.RUNNING, started_at=ago(minutes=10), timeout_seconds=30.0)
    found = only(work.check_running(ALIAS))
    assert (found.status, found.details["job"]) == (WARN, str(over.pk))
    assert "past their timeout" in found.found


def test_a_queue_that_nobody_serves_fails(alpha):
    live_node(queues=["other"])
    make_job(queue="lonely")
    make_job(queue="other")
    paused = make_queue("paused", is_paused=True)
    make_job(queue=paused.name)
    found = only(work.check_queues(ALIAS))
    assert (found.status, found.details["queue"]) == (FAIL, "lonely")
    live_node(queues=None)
    assert only(work.check_queues(ALIAS)).status == OK


def test_a_kind_or_a_type_that_no_node_runs_is_told_of(alpha):
    live_node()
    make_job(kind="shell", type="shell", payload={"argv": ["true"]})
    make_job(type="nobody:knows")
    kind, type_ = work.check_queues(ALIAS)
    assert (kind.status, kind.details["kind"]) == (FAIL, "shell")
    assert (type_.status, type_.details["types"]) == (WARN, ["nobody:knows"])


def test_a_duty_that_nobody_does_fails_and_one_that_failed_is_told_of(alpha):
    live_node(started_at=ago(days=1))
    late = work.check_duties(ALIAS)
    assert statuses(late) == {FAIL}
    assert "prune" in {finding.details["duty"] for finding in late}
    for duty in work.duties():
        UpkeepDuty.objects.create(name=duty.name, last_finished_at=ago(seconds=5))
    assert only(work.check_duties(ALIAS)).status == OK
    UpkeepDuty.objects.filter(name="prune").update(last_error="ValueError: no")
    found = only(work.check_duties(ALIAS))
    assert (found.status, "ValueError: no" in found.found) == (WARN, True)


def test_duties_of_a_cluster_that_was_just_started_are_not_late(alpha):
    live_node()
    UpkeepDuty.objects.create(name="prune", last_finished_at=ago(days=9))
    assert only(work.check_duties(ALIAS)).status == OK


def test_counts_and_failures_that_are_not_added_up_are_told_of(alpha):
    assert only(work.check_backlog(ALIAS)).status == OK
    Tally.objects.create(minute=ago(hours=1), queue="q", type="t", event="enqueued", count=1)
    FailureSighting.objects.create(fingerprint="f", job=make_job(), fence=1, seen_at=ago(hours=2))
    assert statuses(work.check_backlog(ALIAS)) == {WARN}
    assert len(work.check_backlog(ALIAS)) == 2


@pytest.mark.parametrize(("skew", "status"), [(0.5, OK), (-3.0, WARN), (400.0, FAIL)])
def test_clocks_that_are_off_are_told_of(alpha, skew, status):
    live_node(clock_skew_seconds=skew)
    assert only(work.check_clocks(ALIAS)).status == status


def test_a_host_whose_clock_is_off_is_told_of(alpha, is_postgresql, monkeypatch):
    monkeypatch.setattr(work, "host_now", lambda: ago(seconds=-10))
    assert (only(work.check_clocks(ALIAS)).status == WARN) == is_postgresql


def test_a_listing_out_of_step_fails(alpha):
    job = make_job()
    assert only(work.check_listing(ALIAS)).status == OK
    JobListing.objects.filter(job_id=job.pk).update(queue="elsewhere")
    assert only(work.check_listing(ALIAS)).details == {"missing": 1, "stray": 0}
    JobListing.objects.filter(job_id=job.pk).delete()
    assert only(work.check_listing(ALIAS)).status == FAIL
    JobListing.objects.create(
        job_id=Job().pk, created_at=timezone.now(), queue="default", type="demo:noop"
    )
    assert only(work.check_listing(ALIAS)).details == {"missing": 1, "stray": 1}


# -- The command -----------------------------------------------------------------------------------


def test_it_says_what_is_wrong_and_exits_with_1(run):
    assert Queue.objects.using(ALIAS).exists()
    live = run("doctor", "--cluster=alpha", "--all")
    assert "reachable" in live.out
    from clusters.binding import cluster_bound

    with cluster_bound("alpha"):
        live_node(queues=["other"])
        make_job(queue="lonely")
    done = run("doctor", "--cluster=alpha")
    assert done.code == 1
    assert "no live node serves the queue" in done.out
    assert "manage.py worker --queues lonely" in done.out
    assert "reachable" not in done.out  # what is fine is not in the way
    document = run("doctor", "--cluster=alpha", "--json").json
    (item,) = document["items"]
    assert (item["cluster"], item["status"]) == ("alpha", "fail")
    assert {"check", "status", "found", "advice", "details"} == set(item["findings"][0])


def test_warnings_alone_do_not_fail(run, monkeypatch):
    checks = (database.check_reachable, database.check_schema)
    monkeypatch.setattr(database, "CHECKS", checks)
    done = run("doctor", "--cluster=alpha")
    assert done.code == 0
    assert "no node is alive" in done.out
    assert "0 fail" in done.err


@pytest.mark.django_db(transaction=True)
def test_all_clusters_and_the_control_database_are_looked_at():
    begun = time.monotonic()
    done = manage("doctor", "-o", "json")
    assert time.monotonic() - begun < 30
    items = json.loads(done.stdout)["items"]
    assert [item["cluster"] for item in items] == [None, "alpha", "beta"]
    assert all(f["status"] for item in items for f in item["findings"])


def test_an_unknown_cluster_is_not_found(run):
    done = run("doctor", "--cluster=gamma")
    assert (done.code, "there is no cluster 'gamma'" in done.err) == (3, True)


def test_the_worst_finding_counts():
    found = [Finding("a", OK, ""), Finding("b", WARN, "")]
    assert (worst([]), worst(found)) == (OK, WARN)
    assert worst([*found, Finding("c", FAIL, "")]) == FAIL
    assert [span(s) for s in (5, 600, 7200, 864000)] == ["5 s", "10 min", "2 h", "10 d"]
