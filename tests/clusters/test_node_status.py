"""The status of a node: each move is made once, and none leads back from the end."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from clusters.models import ALIVE, Node, NodeStatus
from tests.factories import make_node

pytestmark = pytest.mark.usefixtures("alpha")
PAST = timezone.now() - timedelta(seconds=1)


def status(node: Node) -> str:
    return Node.objects.get(pk=node.pk).status


def of(node: Node):
    return Node.objects.filter(pk=node.pk)


def test_only_a_live_node_begins_to_drain():
    nodes = {one: make_node(one) for one in NodeStatus.values}
    assert Node.objects.all().say_draining() == 1
    assert status(nodes["live"]) == NodeStatus.DRAINING
    assert {status(nodes[one]) for one in ("closed", "dead")} == {"closed", "dead"}


@pytest.mark.parametrize("before", ALIVE)
def test_a_node_that_closes_says_when_and_holds_nothing(before):
    node = make_node(before, running_jobs=3)
    assert of(node).close() == 1
    closed = Node.objects.get(pk=node.pk)
    assert (closed.status, closed.running_jobs) == (NodeStatus.CLOSED, 0)
    assert closed.closed_at is not None
    assert of(node).close() == 0


def test_a_dead_node_cannot_close():
    node = make_node("dead")
    ended = Node.objects.get(pk=node.pk).closed_at
    assert of(node).close() == 0
    assert (status(node), Node.objects.get(pk=node.pk).closed_at) == (NodeStatus.DEAD, ended)


@pytest.mark.parametrize("before", ALIVE)
def test_only_a_node_whose_lease_is_over_is_marked_dead(before):
    late, living = make_node(before, lease_until=PAST, running_jobs=2), make_node(before)
    assert Node.objects.all().bury() == 1
    assert (status(late), status(living)) == (NodeStatus.DEAD, before)
    dead = Node.objects.get(pk=late.pk)
    assert (dead.running_jobs, dead.closed_at is None) == (0, False)


def test_a_closed_node_is_not_marked_dead_when_its_lease_is_over():
    node = make_node("closed", lease_until=PAST)
    assert Node.objects.all().bury() == 0
    assert status(node) == NodeStatus.CLOSED
