"""`manage.py migrate` brings every configured database up to date."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connections

from tests.processes import manage, worker_environment

DEAD = "postgresql://nobody:hush@127.0.0.1:1/gone"


def environment(home: Path, clusters: str) -> dict[str, str]:
    return worker_environment(
        YARDMASTER_HOME=str(home),
        YARDMASTER_DATABASE_URL=f"sqlite:///{home}/control.sqlite3",
        YARDMASTER_CLUSTERS=clusters,
    )


def tables(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    try:
        return {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    finally:
        connection.close()


def test_every_database_is_migrated_with_the_tables_that_belong_there(tmp_path):
    home = tmp_path / "home"
    env = environment(home, f"a=sqlite:///{home}/a.sqlite3,b=sqlite:///{home}/b.sqlite3")
    done = manage("migrate", env=env)
    assert done.returncode == 0, done.stderr
    for name in ("control database:", "cluster a:", "cluster b:"):
        assert name in done.stdout
    for name in ("a", "b"):
        found = tables(home / f"{name}.sqlite3")
        assert {"job", "node", "queue"} <= found
        assert not {"authn_apikey", "auth_user"} & found
    found = tables(home / "control.sqlite3")
    assert {"authn_apikey", "auth_user"} <= found
    assert not {"job", "node", "queue"} & found
    assert manage("migrate", "--check", env=env).returncode == 0


def test_files_are_for_their_owner_only(tmp_path):
    home = tmp_path / "new" / "home"
    done = manage("migrate", env=environment(home, f"a=sqlite:///{home}/deeper/a.sqlite3"))
    assert done.returncode == 0, done.stderr
    for directory in (home.parent, home, home / "deeper"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    for file in (home / "control.sqlite3", home / "deeper" / "a.sqlite3"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_dead_database_does_not_stop_the_others_and_shows_in_the_exit_code(tmp_path):
    env = environment(tmp_path, f"a-dead={DEAD},b=sqlite:///{tmp_path}/b.sqlite3")
    done = manage("migrate", env=env)
    assert done.returncode == 5
    assert "cluster a-dead is unreachable" in done.stderr
    assert "hush" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "job" in tables(tmp_path / "b.sqlite3")


def test_check_says_that_something_is_missing_and_changes_nothing(tmp_path):
    env = environment(tmp_path, f"a=sqlite:///{tmp_path}/a.sqlite3")
    assert manage("migrate", "--check", env=env).returncode == 1
    assert "job" not in tables(tmp_path / "a.sqlite3")


def test_with_a_database_named_only_that_one_is_migrated(tmp_path):
    env = environment(tmp_path, f"a=sqlite:///{tmp_path}/a.sqlite3,dead={DEAD}")
    done = manage("migrate", "--database", "cluster-a", env=env)
    assert done.returncode == 0, done.stderr
    assert "job" in tables(tmp_path / "a.sqlite3")
    assert not (tmp_path / "control.sqlite3").exists()
    done = manage("migrate", "--database", "cluster-dead", env=env)
    assert done.returncode == 5
    assert "Traceback" not in done.stderr


def test_an_app_label_means_what_it_means_in_django(tmp_path):
    env = environment(tmp_path, f"a=sqlite:///{tmp_path}/a.sqlite3")
    assert manage("migrate", "authn", "zero", env=env).returncode == 0
    assert not (tmp_path / "a.sqlite3").exists()


def test_the_limit_on_statements_is_back_afterwards(alpha, is_postgresql):
    if not is_postgresql:
        pytest.skip("SQLite has no statement_timeout")
    call_command("migrate", database="cluster-alpha", verbosity=0)
    with connections["cluster-alpha"].cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("5s",)


def test_every_cluster_starts_with_the_default_queue(alpha):
    from jobs.models import Queue

    assert [*Queue.objects.values_list("name", flat=True)] == ["default"]
