from __future__ import annotations

from clusters.databases import POSTGRES_LIMITS, database_settings, shared_databases


def read(url: str) -> dict:
    problems: list[str] = []
    found = database_settings("here", url, is_pooled=False, problems=problems)
    assert problems == []
    return found


def test_two_clusters_in_one_database_are_refused(tmp_path):
    (tmp_path / "link.db").symlink_to(tmp_path / "a.db")
    same = {
        "cluster-a": read(f"sqlite:///{tmp_path}/a.db"),
        "cluster-b": read(f"sqlite:///{tmp_path}/link.db"),
        "cluster-c": read("postgresql://one@db/jobs"),
        "cluster-d": read("postgresql://two@db/jobs"),
    }
    assert [problem.split(" are ")[0] for problem in shared_databases(same)] == [
        "cluster-a and cluster-b",
        "cluster-c and cluster-d",
    ]


def test_databases_of_one_server_are_fine():
    apart = {"a": read("postgresql://x@db/one"), "b": read("postgresql://x@db/two")}
    assert shared_databases(apart) == []


def test_an_address_may_change_one_limit_and_keeps_the_others():
    options = read("postgresql://x@db/one?options=-c%20work_mem%3D8MB")["OPTIONS"]["options"]
    assert options.endswith("-c work_mem=8MB")
    assert all(f"-c {name}=" in options for name in POSTGRES_LIMITS)


def test_an_address_without_a_database_is_a_problem():
    problems: list[str] = []
    database_settings("here", "postgresql://", is_pooled=False, problems=problems)
    assert problems == ["here: the address names no database"]
