"""Settings from the environment: typed, from files too, and all mistakes in one go."""

from __future__ import annotations

import pytest

from config.env import Environment
from tests.processes import manage, worker_environment


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", True), ("yes", True), ("TRUE", True), ("on", True), ("0", False), ("", False)],
)
def test_booleans(text, expected):
    env = Environment({"A": text})
    assert env.boolean("A", not expected) is expected
    assert env.problems == []


def test_what_is_not_set_is_its_default():
    env = Environment({})
    assert env.text("A", "x") == "x"
    assert env.boolean("A", True) is True
    assert env.integer("A", 7, minimum=1, maximum=9) == 7
    assert env.words("A", "a,b") == ["a", "b"]
    assert env.choice("A", "b", ("a", "b")) == "b"
    assert env.problems == []


def test_bad_values_are_collected_and_the_defaults_stand_in():
    env = Environment({"A": "maybe", "B": "many", "C": "70000", "D": "red"})
    assert env.boolean("A", True) is True
    assert env.integer("B", 3, minimum=1, maximum=9) == 3
    assert env.integer("C", 3, minimum=1, maximum=9) == 3
    assert env.choice("D", "blue", ("blue", "green")) == "blue"
    assert [problem.split(":")[0] for problem in env.problems] == ["A", "B", "C", "D"]


def test_words_drop_empty_parts():
    assert Environment({"A": " a, ,b ,"}).words("A") == ["a", "b"]


def test_a_secret_may_come_from_a_file(tmp_path):
    (tmp_path / "secret").write_text("hush\n")
    env = Environment({"KEY_FILE": str(tmp_path / "secret")})
    assert env.text("KEY") == "hush"
    assert env.problems == []


def test_a_missing_file_and_a_doubled_value_are_problems(tmp_path):
    env = Environment({"KEY_FILE": str(tmp_path / "missing"), "KEY": "x"})
    env.text("KEY")
    assert len(env.problems) == 2
    assert "both set" in env.problems[0]


def test_one_start_names_every_mistake_and_no_secret(transactional_db, tmp_path):
    config = tmp_path / "clusters.toml"
    config.write_text('[clusters.one]\ndatabase_url = "sqlite:////x.db"\ncolour = "red"\n')
    done = manage(
        "check",
        env=worker_environment(
            YARDMASTER_DEBUG="maybe",
            YARDMASTER_MAX_BODY="12",
            YARDMASTER_LOG_LEVEL="LOUD",
            YARDMASTER_API_KEY_HEADER="x api key",
            YARDMASTER_DATABASE_URL="mysql://root:hush@h/db",
            YARDMASTER_CLUSTERS="Bad=sqlite:////a.db,metrics=sqlite:////b.db,c=:memory:",
            YARDMASTER_CONFIG=str(config),
        ),
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "hush" not in done.stderr + done.stdout
    for word in (
        "YARDMASTER_DEBUG",
        "YARDMASTER_MAX_BODY",
        "YARDMASTER_LOG_LEVEL",
        "YARDMASTER_API_KEY_HEADER",
        "YARDMASTER_DATABASE_URL",
        "'Bad'",
        "'metrics' is reserved",
        "cluster 'c'",
        "unknown key 'colour'",
    ):
        assert word in done.stderr, done.stderr


def test_a_sound_environment_passes_the_checks(transactional_db):
    done = manage("check", env=worker_environment())
    assert done.returncode == 0, done.stderr


def test_pairs_are_read_and_each_key_stands_once():
    env = Environment({"ROLES": "a=b, c = d"})
    assert env.pairs("ROLES") == {"a": "b", "c": "d"}
    assert env.problems == []
    for wrong in ("a", "a=", "=b", "a=b,a=c"):
        env = Environment({"ROLES": wrong})
        env.pairs("ROLES")
        assert len(env.problems) == 1, wrong
