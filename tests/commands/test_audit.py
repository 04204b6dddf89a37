"""manage.py audit"""

from __future__ import annotations

import csv
import io

import pytest

from authn.keys import create_key
from authn.models import AccessAuditEntry
from clusters.models import AuditEntry
from tests.factories import make_queue

pytestmark = pytest.mark.usefixtures("alpha")


def test_what_was_done_is_listed_filtered_and_exported(run):
    make_queue("mail")
    assert run("queues", "pause", "mail", "--reason", "=1+1").code == 0
    assert run("queues", "resume", "mail").code == 0
    items = run("audit", "list", "-o", "json").json["items"]
    assert [item["verb"] for item in items] == ["queues.resume", "queues.pause"]
    assert items[0]["actor"].startswith("cli:") and items[0]["surface"] == "command"
    (item,) = run("audit", "list", "--verb", "queues.pause", "-o", "json").json["items"]
    assert item["target_id"] == "mail"
    assert len(run("audit", "list", "--limit", "1", "-o", "json").json["items"]) == 1
    done = run("audit", "export")
    rows = [*csv.DictReader(io.StringIO(done.out))]
    assert [row["reason"] for row in rows] == ["", "'=1+1"]
    table = run("audit", "list").out
    assert "queues.pause" in table and "mail" in table


def test_what_belongs_to_no_cluster_is_asked_for_by_itself(run, monkeypatch):
    monkeypatch.delenv("YARDMASTER_CLUSTER")
    assert run("keys", "create", "--name", "k", "--role", "viewer", "--all-clusters").code == 0
    (item,) = run("audit", "list", "--access", "-o", "json").json["items"]
    assert (item["verb"], item["target_id"]) == ("keys.create", "k")
    # Without it, which of the clusters?
    assert run("audit", "list").code == 2


@pytest.mark.parametrize("words", [("list", "--limit", "0"), ("export", "-o", "json")])
def test_what_makes_no_sense_is_refused(run, words):
    assert run("audit", *words).code == 2


def test_looking_leaves_no_trace(run):
    create_key("k", "viewer", ["alpha"])
    for words in (("keys", "list"), ("queues", "list"), ("audit", "list"), ("jobs", "list")):
        assert run(*words).code == 0
    assert not AuditEntry.objects.exists() and not AccessAuditEntry.objects.exists()


def test_a_refusal_says_what_was_refused(run):
    AuditEntry.objects.create(
        actor="key:ci",
        verb="deeds.refuse",
        target_type="queue",
        target_id="mail",
        count=3,
        after={"verb": "queues.pause"},
    )
    done = run("audit", "list", "--cluster", "alpha", "--verb", "deeds.refuse")
    assert done.code == 0 and "deeds.refuse (queues.pause)" in done.out
    exported = run("audit", "export", "--cluster", "alpha")
    assert "deeds.refuse" in exported.out and "queues.pause" in exported.out
