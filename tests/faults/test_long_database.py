"""Databases that refuse: read-only, out of connections, half migrated, in use by an older version."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import suppress

import psycopg
import pytest
from django.db import connections

from tests import settings as test_settings
from tests.faults.harness import ROOT, Yard, new_jobs
from tests.faults.report import scaled

pytestmark = [pytest.mark.long, pytest.mark.django_db(transaction=True)]

IS_POSTGRES = test_settings.BACKEND == "postgresql"
POSTGRES_ONLY = pytest.mark.skipif(not IS_POSTGRES, reason="PostgreSQL only")


def _until_more_are_final(yard: Yard, done: int) -> None:
    yard.wait(lambda: yard.final_jobs() > done, 30)


def _read_only(yard: Yard) -> tuple[Callable[[], None], Callable[[], None]]:
    name = yard.database.value("SELECT current_database()")

    def say(value: str) -> None:
        yard.database.rows(f'ALTER DATABASE "{name}" SET default_transaction_read_only = {value}')
        _end_sessions(yard)

    def heal() -> None:
        # This session is one of those that may not write; it says so for itself first.
        with psycopg.connect(yard.database.address, autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        _end_sessions(yard)

    return lambda: say("on"), heal


def _no_connections(yard: Yard) -> tuple[Callable[[], None], Callable[[], None]]:
    name = yard.database.value("SELECT current_database()")
    admin = yard.database.address.replace(f"/{name}?", "/postgres?")

    def say(value: str) -> None:
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(f'ALTER DATABASE "{name}" WITH ALLOW_CONNECTIONS {value}')
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name]
            )

    return lambda: say("false"), lambda: say("true")


def _missing_table(yard: Yard) -> tuple[Callable[[], None], Callable[[], None]]:
    return (
        lambda: _rename(yard, "attempt", "attempt_away"),
        lambda: _rename(yard, "attempt_away", "attempt"),
    )


def _rename(yard: Yard, old: str, new: str) -> None:
    yard.database.rows(f"ALTER TABLE {old} RENAME TO {new}")


def _end_sessions(yard: Yard) -> None:
    yard.database.rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


REFUSALS = {
    "read-only": _read_only,
    "no connections": _no_connections,
    "missing table": _missing_table,
}


@POSTGRES_ONLY
@pytest.mark.parametrize("which", REFUSALS)
def test_a_database_that_refuses_is_waited_for(which, yard, figures):
    """Red without: the classes of errors."""
    rounds = scaled(5, least=1)
    node = yard.start_and_wait(concurrency=2)
    refuse, heal = REFUSALS[which](yard)
    healed: list[float] = []
    for _ in range(rounds):
        yard.submit(new_jobs(40, payload=lambda n: {"seconds": 0.05}))
        time.sleep(0.3)
        refuse()
        try:
            time.sleep(4.0)
        finally:
            heal()
        begun = time.monotonic()
        connections.close_all()
        done = yard.final_jobs()
        with suppress(psycopg.Error):
            yard.submit(new_jobs(5))
        _until_more_are_final(yard, min(done, len(yard.accepted) - 1))
        healed.append(time.monotonic() - begun)
        assert node.is_running, yard.tails()
    yard.settle_unknown()
    yard.wait_until_all_ended(60)
    yard.stop()
    verdict = yard.judge()
    figures |= verdict.figures
    figures |= {
        "refusal": which,
        "healed_after_at_most_seconds": round(max(healed), 2),
        "conditions_logged": yard.said("the database of alpha fails"),
    }
    verdict.assert_sound()
    assert figures["conditions_logged"] >= 1
    assert max(healed) <= 15.0


def test_the_version_before_works_beside_this_one(yard, figures, tmp_path, unknown):
    """Nodes of the previous commit on the tables of this one."""
    count = scaled(20_000, least=400)
    tree = tmp_path / "before"
    if subprocess.run(["git", "rev-parse", "HEAD~1"], cwd=ROOT, capture_output=True).returncode:
        unknown("no commit before this one is here")
    subprocess.run(
        ["git", "worktree", "add", "--detach", str(tree), "HEAD~1"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    try:
        yard.start_and_wait(concurrency=4)
        yard.start_and_wait(concurrency=4, root=tree)
        for _ in range(0, count, 200):
            yard.submit(new_jobs(200, payload=lambda n: {"seconds": 0.001 * (n % 20)}))
        if IS_POSTGRES:
            _hold_the_table(yard, scaled(30, least=3))
        yard.wait_until_all_ended(120 + count * 0.02)
        yard.stop()
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=False)
    verdict = yard.judge()
    figures |= verdict.figures
    verdict.assert_sound()
    assert verdict.figures["states"] == {"succeeded": len(yard.accepted)}


def _hold_the_table(yard: Yard, seconds: float) -> None:
    """As a migration does that waits for somebody."""
    connection = yard.database.connect()
    try:
        with connection.transaction():
            connection.execute("LOCK TABLE job IN ACCESS EXCLUSIVE MODE")
            time.sleep(seconds)
    finally:
        connection.close()
