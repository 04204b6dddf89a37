"""`manage.py nodes` and `clusters`."""

from __future__ import annotations

import json

import pytest

from clusters.models import AuditEntry, ClusterSetting, Node
from tests.clusters.test_policy import explicit
from tests.factories import make_node
from tests.processes import manage, worker_environment

pytestmark = pytest.mark.usefixtures("alpha")
MISSING = "018f0000-0000-7000-8000-000000000000"


def test_nodes_that_live_are_listed_and_all_on_request(run):
    live, dead = make_node(), make_node("dead")
    items = run("nodes", "list", "-o", "json").json["items"]
    assert [item["id"] for item in items] == [str(live.pk)]
    items = run("nodes", "list", "--all", "-o", "json").json["items"]
    assert {item["id"] for item in items} == {str(live.pk), str(dead.pk)}
    assert run("nodes", "show", str(dead.pk), "-o", "json").json["status"] == "dead"
    assert run("nodes", "show", MISSING).code == 3


def test_a_live_node_is_asked_to_drain_and_a_dead_one_cannot_be(run):
    live, dead = make_node(), make_node("dead")
    assert run("nodes", "drain", str(live.pk)).code == 0
    first = Node.objects.get(pk=live.pk).drain_requested_at
    assert first is not None
    again = run("nodes", "drain", str(live.pk))
    assert (again.code, "before" in again.err) == (0, True)
    assert Node.objects.get(pk=live.pk).drain_requested_at == first
    assert run("nodes", "drain", str(dead.pk)).code == 4
    assert run("nodes", "drain", MISSING).code == 3


def test_a_node_that_was_asked_to_drain_takes_work_again(run):
    node, dead = make_node("draining"), make_node("dead")
    assert run("nodes", "undrain", str(node.pk)).code == 0
    assert Node.objects.get(pk=node.pk).drain_requested_at is None
    again = run("nodes", "undrain", str(node.pk))
    assert (again.code, "Nobody" in again.err) == (0, True)
    assert run("nodes", "undrain", str(dead.pk)).code == 4
    assert run("nodes", "undrain", MISSING).code == 3


def test_a_host_is_healthy_while_one_of_its_nodes_lives(run):
    assert run("nodes", "check", "--host", "here").code == 1
    make_node("dead", host="here")
    assert run("nodes", "check", "--host", "here").code == 1
    node = make_node(host="here")
    done = run("nodes", "check", "--host", "here")
    assert (done.code, done.out) == (0, f"{node.pk}\n")


def test_a_cluster_is_shown_with_the_origin_of_each_setting(run):
    ClusterSetting.objects.all().persist({"max_crashes": 4}, by="test")
    shown = run("clusters", "show", "alpha", "-o", "json").json
    assert shown["is_reachable"] is True
    assert shown["settings"]["max_crashes"] == {"value": 4, "source": "database", "default": 3}
    assert shown["settings"]["default_max_attempts"]["source"] == "default"
    assert "max_crashes" in run("clusters", "show", "alpha").out
    assert run("clusters", "show", "gamma").code == 3


def test_what_the_configuration_says_is_shown_as_such(transactional_db, tmp_path):
    env = worker_environment()
    url = env.pop("YARDMASTER_CLUSTERS").split(",")[0].removeprefix("alpha=")
    config = tmp_path / "clusters.toml"
    config.write_text(f'[clusters.alpha]\ndatabase_url = "{url}"\nsettings = {{max_crashes = 9}}\n')
    done = manage(
        *("clusters", "show", "alpha", "-o", "json"),
        env={**env, "YARDMASTER_CONFIG": str(config)},
    )
    assert done.returncode == 0, done.stderr
    setting = json.loads(done.stdout)["settings"]["max_crashes"]
    assert setting == {"value": 9, "source": "configuration", "default": 3}
    assert json.loads(done.stdout)["overridden"] == ["max_crashes"]


def test_a_setting_that_the_configuration_overrides_says_so(alpha, run):
    with explicit(max_crashes=9):
        done = run("clusters", "set", "alpha", "max_crashes=6")
        assert done.code == 0
        assert "the database says 6" in done.err and "sets 9, which wins" in done.err
        assert "wins" not in run("clusters", "set", "alpha", "max_crashes=9").err


def test_a_dead_cluster_is_shown_among_the_others(transactional_db):
    env = worker_environment()
    env["YARDMASTER_CLUSTERS"] += ",dead=postgresql://u:hush@127.0.0.1:1/x"
    done = manage("clusters", "list", "-o", "json", env=env)
    assert done.returncode == 0, done.stderr
    found = {item["id"]: item["is_reachable"] for item in json.loads(done.stdout)["items"]}
    assert found == {"alpha": True, "beta": True, "dead": False}
    assert "hush" not in done.stdout + done.stderr


def test_settings_are_changed_and_what_is_wrong_with_them_is_said(run):
    done = run("clusters", "set", "alpha", "max_crashes=6", "mode=passive", "-o", "json")
    assert done.json["settings"]["mode"] == {
        "value": "passive",
        "source": "database",
        "default": "active",
    }
    trace = AuditEntry.objects.get()
    assert (trace.verb, trace.after) == ("settings.change", {"max_crashes": 6, "mode": "passive"})
    for value in ("max_crashes=0", "mode=asleep", "nonsense=1", "archive_to=alpha", "max_crashes"):
        assert run("clusters", "set", "alpha", value).code == 2, value
    assert run("clusters", "set", "gamma", "max_crashes=5").code == 3
    assert run("clusters", "set", "alpha", "max_crashes=").code == 0
    assert ClusterSetting.objects.all().persisted() == {"mode": "passive"}
    names = [c["name"] for c in run("clusters", "changes", "alpha", "-o", "json").json["items"]]
    assert (names[0], sorted(names)) == ("max_crashes", ["max_crashes", "max_crashes", "mode"])


def test_how_many_settings_changed_is_said_in_words(run):
    for values, said in (
        (["max_crashes=6"], "Changed 1 setting;"),
        (["max_crashes=7", "mode=passive"], "Changed 2 settings;"),
        (["max_crashes=7"], "Nothing changed:"),
    ):
        done = run("clusters", "set", "alpha", *values)
        assert said in done.out + done.err, values
