"""Which clusters exist, read from the environment and from TOML."""

from __future__ import annotations

import pytest

from clusters.registry import RESERVED_IDS, alias_of, read_clusters


def read(listing: str = "", toml: str = "", tmp_path=None) -> tuple[dict, list[str]]:
    problems: list[str] = []
    path = ""
    if toml:
        (tmp_path / "clusters.toml").write_text(toml)
        path = str(tmp_path / "clusters.toml")
    return read_clusters(listing, path, problems), problems


def test_a_listing_names_clusters_in_order():
    clusters, problems = read("mail=sqlite:////a.db, payroll=postgresql://h/p?sslmode=require")
    assert problems == []
    assert [*clusters] == ["mail", "payroll"]
    assert clusters["payroll"].database_url == "postgresql://h/p?sslmode=require"
    assert clusters["mail"].alias == "cluster-mail"


@pytest.mark.parametrize("cluster_id", ["a", "a1", "1a", "a-b", "x" * 25])
def test_these_are_cluster_ids(cluster_id):
    clusters, problems = read(f"{cluster_id}=sqlite:////a.db")
    assert (problems, [*clusters]) == ([], [cluster_id])


@pytest.mark.parametrize(
    "cluster_id",
    ["A", "a_b", "-a", "a-", "a.b", "x" * 26, "ü", "a b", "../a", *sorted(RESERVED_IDS)],
)
def test_these_are_no_cluster_ids(cluster_id):
    clusters, problems = read(f"{cluster_id}=sqlite:////a.db")
    assert clusters == {}
    assert len(problems) == 1


def test_no_id_can_mean_the_control_database():
    assert alias_of("default") != "default"


def test_a_cluster_is_configured_once():
    _, problems = read("a=sqlite:////a.db,a=sqlite:////b.db")
    assert problems == ["YARDMASTER_CLUSTERS: cluster 'a' is configured twice"]


def test_half_a_password_is_not_quoted_back():
    _, problems = read("a=postgresql://u:secret,half@h/db")
    assert len(problems) == 1
    assert "half" not in problems[0]
    assert "%2C" in problems[0]


def test_an_address_is_not_shown_with_its_cluster():
    clusters, _ = read("a=postgresql://u:hush@h/db")
    assert "hush" not in repr(clusters["a"])


def test_toml_adds_titles_and_settings(tmp_path):
    clusters, problems = read(
        toml="""
        [clusters.mail]
        title = "Mail"
        database_url = "sqlite:////a.db"
        settings = { default_max_attempts = 7 }
        """,
        tmp_path=tmp_path,
    )
    assert problems == []
    assert clusters["mail"].title == "Mail"
    assert clusters["mail"].explicit_settings == {"default_max_attempts": 7}


def test_an_address_may_be_in_a_file_beside_the_toml(tmp_path):
    (tmp_path / "url").write_text("sqlite:////a.db\n")
    clusters, problems = read(
        toml='[clusters.mail]\ndatabase_url_file = "url"\n', tmp_path=tmp_path
    )
    assert problems == []
    assert clusters["mail"].database_url == "sqlite:////a.db"


def test_a_listing_and_a_file_are_one_set(tmp_path):
    clusters, problems = read(
        "a=sqlite:////a.db",
        toml='[clusters.b]\ndatabase_url = "sqlite:////b.db"\n',
        tmp_path=tmp_path,
    )
    assert ([*clusters], problems) == (["a", "b"], [])


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("nonsense", "cannot read"),
        ("[cluster.a]\n", "unknown table or key 'cluster'"),
        ("clusters = 3\n", "'clusters' must be a table"),
        ("[clusters]\na = 3\n", "must be a table"),
        ("[clusters.a]\n", "exactly one of database_url and database_url_file"),
        ('[clusters.a]\ndatabase_url = "x"\ndatabase_url_file = "y"\n', "exactly one of"),
        ('[clusters.a]\ndatabase_url_file = "missing"\n', "database_url_file"),
        ('[clusters.a]\ndatabase_url = "x"\ncolour = "red"\n', "unknown key 'colour'"),
        ('[clusters.a]\ndatabase_url = "x"\nsettings = 3\n', "settings must be a table"),
        (
            '[clusters.a]\ndatabase_url = "x"\nsettings = {retries = 3}\n',
            "unknown setting 'retries'",
        ),
        (
            '[clusters.a]\ndatabase_url = "x"\nsettings = {default_max_attempts = 0}\n',
            "default_max_attempts must be between 1 and 100",
        ),
    ],
)
def test_what_is_wrong_in_the_file_is_said(toml, expected, tmp_path):
    _, problems = read(toml=toml, tmp_path=tmp_path)
    assert any(expected in problem for problem in problems), problems


def test_a_missing_file_is_said(tmp_path):
    problems: list[str] = []
    assert read_clusters("", str(tmp_path / "missing.toml"), problems) == {}
    assert "cannot read" in problems[0]
