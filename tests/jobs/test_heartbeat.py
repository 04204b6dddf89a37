"""The heartbeat: its calls to the database are short, whatever stands in their way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest
from django.db import connections, transaction

from clusters.binding import cluster_bound
from clusters.models import Node
from clusters.policy import ClusterPolicy
from jobs.engine.heartbeat import Heartbeat
from jobs.engine.watchdog import Watchdog
from tests.factories import make_node

pytestmark = pytest.mark.django_db(transaction=True)
USING = "cluster-alpha"
# A tenth of it is 1 s; PostgreSQL's lock limit is 2 s for others, SQLite's 10 s. It must not run out:
# a node that cannot be heard ends its process, which is that of the tests here.
POLICY = ClusterPolicy(lease_seconds=10.0, heartbeat_seconds=0.2)


@pytest.fixture
def node() -> Iterator[Node]:
    with cluster_bound("alpha"):
        yield make_node()


@pytest.fixture
def heartbeat(node: Node) -> Iterator[tuple[Heartbeat, list[float]]]:
    """A beating heart, and how long each of its beats took."""
    heart = Heartbeat(
        "alpha", str(node.pk), POLICY, lambda: {"io": 0}, lambda: None, Watchdog("test")
    )
    took: list[float] = []
    beat = heart._beat

    def timed(alias: str) -> None:
        begun = time.monotonic()
        try:
            beat(alias)
        finally:
            took.append(time.monotonic() - begun)

    heart._beat = timed  # type: ignore[method-assign]
    yield heart, took
    heart.stop()


def beat_at() -> datetime:
    return Node.objects.get().heartbeat_at


def locked_row(node: Node) -> None:
    """Take what a beat needs, until the transaction ends."""
    if connections[USING].vendor == "postgresql":
        Node.objects.select_for_update().get(pk=node.pk)
    else:
        Node.objects.filter(pk=node.pk).update(host="locked")


@pytest.mark.parametrize("is_pooled", [False, True])
def test_a_locked_row_holds_a_beat_up_for_a_tenth_of_the_lease(
    node: Node,
    heartbeat: tuple[Heartbeat, list[float]],
    is_pooled: bool,
    eventually: Callable[..., None],
    settings,
    caplog,
):
    settings.DB_POOLED = is_pooled
    heart, took = heartbeat
    heart.start()
    first = beat_at()
    eventually(lambda: beat_at() > first)
    with transaction.atomic(using=USING):
        locked_row(node)
        del took[:]
        eventually(lambda: len(took) >= 3, seconds=6)
    # The first may have been on its way already, and a busy machine holds one or the other up.
    assert 0.9 < min(took[1:]) < 1.9
    last = beat_at()
    eventually(lambda: beat_at() > last)
    eventually(lambda: not heart.lease_is_in_doubt())
    # One line for the trouble, however long it lasts.
    assert len([r for r in caplog.records if "fails" in r.message]) == 1


def test_only_the_heart_has_these_limits(
    node: Node, heartbeat: tuple[Heartbeat, list[float]], eventually: Callable[..., None]
):
    before = dict(connections[USING].settings_dict["OPTIONS"])
    heart, took = heartbeat
    heart.start()
    eventually(lambda: took)
    assert connections[USING].settings_dict["OPTIONS"] == before
    if connections[USING].vendor == "postgresql":
        with connections[USING].copy().cursor() as cursor:
            cursor.execute("SELECT current_setting('statement_timeout')")
            assert cursor.fetchone() == ("5s",)
            cursor.connection.close()


def test_a_beat_says_whether_the_node_drains(node: Node) -> None:
    is_ending = [False]
    heart = Heartbeat(
        *("alpha", str(node.pk), POLICY, lambda: {"io": 0}, lambda: None, Watchdog("test")),
        lambda: is_ending[0],
    )

    def status() -> str:
        heart._beat(USING)
        return str(Node.objects.get().status)

    assert status() == "live"
    Node.objects.all().order_drain()
    assert (status(), heart.drain_is_ordered) == ("draining", True)
    Node.objects.all().end_drain()
    assert (status(), heart.drain_is_ordered) == ("live", False)
    # One that was told to stop drains on, whatever is wanted of it.
    Node.objects.all().order_drain()
    is_ending[0] = True
    assert status() == "draining"
    Node.objects.all().end_drain()
    assert (status(), heart.drain_is_ordered) == ("draining", False)
    Node.objects.update(status="live")
    assert status() == "draining"


def test_a_beat_tells_what_runs_in_each_pool(alpha):
    node = make_node()
    running = {"process": 2, "io": 3}
    heart = Heartbeat(
        "alpha", str(node.pk), POLICY, lambda: running, lambda: None, Watchdog("test")
    )
    heart._beat(USING)
    node.refresh_from_db()
    assert (node.running_jobs, node.running_io_jobs) == (5, 3)
    assert Node.objects.all().close() == 1
    node.refresh_from_db()
    assert (node.running_jobs, node.running_io_jobs) == (0, 0)
