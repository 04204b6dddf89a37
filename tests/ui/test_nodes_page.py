"""The nodes: what they hold, which are silent, and how one is sent home."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from clusters.models import AuditEntry
from tests.factories import make_job, make_node

PATH = "/admin/alpha/nodes/"


def test_nobody_there_says_what_to_do(viewer, alpha):
    assert b"manage.py worker --cluster alpha" in viewer.get(PATH).content


def test_each_node_with_what_it_does(viewer, alpha):
    node = make_node(
        host="worker-one",
        pid=7,
        running_jobs=1,
        queues=["mail"],
        cpu_percent=12.0,
        io_concurrency=20,
    )
    make_job("running", node=node, type="long:work")
    make_node(host="worker-two", lease_until=timezone.now() - timedelta(seconds=5))
    make_node("dead", host="worker-three")
    make_node(host="worker-four", clock_skew_seconds=9.0)
    page = viewer.get(PATH).content.decode()
    assert "worker-one:7" in page
    assert "long:work" in page
    assert "1 of 24" in page
    assert "ui-state-silent" in page
    assert "ui-state-dead" in page
    assert "its clock is 9.0 s off" in page


def test_it_asks_at_most_fifteen_times(operator, alpha, queries):
    for _ in range(30):
        make_job("running")
    with queries() as asked:
        operator.get(PATH)
    assert len(asked) <= 15


def test_a_node_is_drained_for_a_reason(operator, alpha):
    node = make_node(running_jobs=2)
    path = f"{PATH}{node.pk}/drain/"
    assert b"2 jobs it holds" in operator.get(path).content
    assert operator.post(path, {}).status_code == 400
    node.refresh_from_db()
    assert node.drain_requested_at is None
    response = operator.post(path, {"reason": "bad release"}, follow=True)
    assert b"takes nothing new" in response.content
    node.refresh_from_db()
    assert node.drain_requested_at is not None
    [entry] = AuditEntry.objects.all()
    assert (entry.verb, entry.target_id, entry.reason) == (
        "nodes.drain",
        str(node.pk),
        "bad release",
    )
    assert b"ui-state-draining" in operator.get(PATH).content


def test_one_that_has_ended_is_not_drained(operator, alpha):
    node = make_node("closed")
    response = operator.post(f"{PATH}{node.pk}/drain/", {"reason": "x"}, follow=True)
    assert b"Cannot drain a node that is closed" in response.content
    assert not AuditEntry.objects.exists()


def test_when_all_is_done_it_is_safe_to_stop(viewer, alpha):
    make_node("draining", running_jobs=0)
    assert b"safe to stop" in viewer.get(PATH).content


def test_what_is_left_is_told_while_it_drains(viewer, alpha):
    make_node("draining", running_jobs=3)
    page = viewer.get(PATH).content
    assert b"3 left" in page
    assert b"safe to stop" not in page


def test_a_node_that_was_drained_takes_work_again(operator, alpha):
    node = make_node("draining")
    assert b"Undrain" in operator.get(PATH).content
    response = operator.post(f"{PATH}{node.pk}/undrain/", follow=True)
    assert b"takes work again" in response.content
    node.refresh_from_db()
    assert node.drain_requested_at is None
    [entry] = AuditEntry.objects.all()
    assert (entry.verb, entry.target_id) == ("nodes.undrain", str(node.pk))
    assert entry.before["drain_requested_at"] is not None


def test_one_that_has_ended_takes_no_work_again(operator, alpha):
    node = make_node("dead")
    response = operator.post(f"{PATH}{node.pk}/undrain/", follow=True)
    assert b"takes no work any more" in response.content
    assert not AuditEntry.objects.exists()


def test_nodes_of_two_versions_are_told_of(viewer, alpha):
    make_node(version="1.0.0")
    assert b"They run" not in viewer.get(PATH).content
    make_node(version="2.0.0")
    assert b"They run 1.0.0, 2.0.0." in viewer.get(PATH).content
