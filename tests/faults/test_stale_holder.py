"""A claim taken away and claimed again: whatever its old holder still says changes nothing.

Red without: `AND fence` or `AND node` in any one statement of the holder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.db import connections
from django.utils import timezone

from clusters.models import Node, NodeStatus
from clusters.policy import ClusterPolicy
from jobs.engine.claim import Appetite, Claimed
from jobs.engine.clock import countdown
from jobs.engine.complete import Completion, Report, decide, hand_back
from jobs.engine.heartbeat import Heartbeat
from jobs.engine.journal import Line, write_lines, write_progress
from jobs.engine.rescue import rescue_lost
from jobs.engine.turn import disown, take_turn
from jobs.engine.watchdog import Watchdog
from jobs.models import Job
from jobs.states import Outcome, State
from tests.factories import make_job, make_node
from tests.faults import report
from tests.faults.harness import ALIAS

pytestmark = pytest.mark.django_db

POLICY = ClusterPolicy()
# All that a holder's verb could touch.
TABLES = ("job", "attempt", "job_log", "job_dependency", "tally", "failure")


class Old:
    """A node and the claim that was taken from it."""

    def __init__(self, how: str) -> None:
        self.node = str(make_node(lease_until=timezone.now() + timedelta(seconds=30)).pk)
        self.other = str(make_node(lease_until=timezone.now() + timedelta(seconds=30)).pk)
        self.parent = make_job(max_attempts=5)
        self.claim = _claim(self.node)
        if how == "the same node":
            # Handed back and claimed again: the fence alone tells the two apart.
            _write(hand_back(self.claim, self.node))
            self.now = _claim(self.node)
            self.other = self.node
        elif how == "another node":
            _write(replace(hand_back(self.claim, self.node), state=State.READY))
            self.now = _claim(self.other)
        else:
            # After a restored backup a fence is given out twice: the node alone tells them apart.
            Job.objects.filter(pk=self.claim.id).update(node_id=self.other)
            self.now = self.claim

    def complete(self, outcome: Outcome, **more: Any) -> None:
        now = countdown()
        said = Report(outcome, now - 1, now, error="late", error_type="Late", **more)
        _write(decide(self.claim, self.node, said, POLICY))

    # -- The verbs -----------------------------------------------------------------------------------

    def succeeds(self) -> None:
        self.complete(Outcome.SUCCEEDED)

    def succeeds_with_a_result(self) -> None:
        self.complete(Outcome.SUCCEEDED, result='{"late": true}')

    def fails_for_good(self) -> None:
        self.complete(Outcome.FAILED, is_permanent=True)

    def fails_and_retries_later(self) -> None:
        self.complete(Outcome.FAILED)

    def asks_for_a_later_retry(self) -> None:
        self.complete(Outcome.FAILED, retry_after_seconds=60.0)

    def times_out(self) -> None:
        self.complete(Outcome.TIMEOUT)

    def confirms_a_cancel(self) -> None:
        self.complete(Outcome.CANCELLED)

    def is_lost(self) -> None:
        self.complete(Outcome.LOST, crashed=True)

    def has_an_unknown_effect(self) -> None:
        self.complete(Outcome.FAILED, effect_unknown=True)

    def releases(self) -> None:
        self.complete(Outcome.RELEASED)

    def hands_back(self) -> None:
        _write(hand_back(self.claim, self.node))

    def writes_a_log_line(self) -> None:
        line = Line(self.claim.id, self.claim.fence, countdown(), "log", "info", "late")
        write_lines(connections[ALIAS], self.node, [line])

    def shows_progress(self) -> None:
        write_progress(
            connections[ALIAS], self.node, {(self.claim.id, self.claim.fence): (99.0, "late")}
        )

    def completes_in_a_batch(self) -> None:
        """Beside a job that it does hold, which is written."""
        make_job()
        mine = _claim(self.node)
        now = countdown()
        batch = [
            decide(job, self.node, Report(Outcome.SUCCEEDED, now - 1, now), POLICY)
            for job in (self.claim, mine)
        ]
        late = take_turn(connections[ALIAS], batch, None).superseded
        assert [row.id for row in late] == [self.claim.id]
        Job.objects.filter(pk=mine.id).delete()
        with connections[ALIAS].cursor() as cursor:
            # Only the other job's traces go; the one that was taken away must have left none.
            if connections[ALIAS].vendor == "postgresql":
                cursor.execute("DELETE FROM attempt WHERE job_id = %s", [mine.id])
            else:
                cursor.execute("DELETE FROM attempt WHERE job_id = %s", [mine.id.replace("-", "")])


VERBS = sorted(
    name
    for name, value in vars(Old).items()
    if callable(value) and name[0] != "_" and name != "complete"
)


def _claim(node: str) -> Claimed:
    appetite = Appetite(node, {"process": 1}, {"python": "process"}, ("demo:noop",), None)
    (claimed,) = take_turn(connections[ALIAS], [], appetite).claimed
    return claimed


def _write(row: Completion) -> None:
    take_turn(connections[ALIAS], [row], None)


def _rows(*tables: str) -> dict[str, list[Any]]:
    with connections[ALIAS].cursor() as cursor:
        found = {}
        for table in tables:
            cursor.execute(f"SELECT * FROM {table}")
            found[table] = sorted(map(repr, cursor.fetchall()))
        return found


@pytest.fixture(scope="module")
def changed() -> Iterator[dict[str, int]]:
    """Rows changed by each verb; one line of JSON for all of them."""
    found: dict[str, int] = {}
    yield found
    verdict = "ok" if not any(found.values()) else "failed"
    report.write(
        "stale_verbs", verdict, 0.0, {"verbs": len(found), "rows_changed": sum(found.values())}
    )


@pytest.mark.parametrize("how", ["the same node", "another node", "the same fence"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_stale_holder_changes_no_row(verb, how, alpha, changed):
    old = Old(how)
    # The job beside it in the batch is counted, as it should be.
    tables = [one for one in TABLES if one != "tally" or verb != "completes_in_a_batch"]
    before = _rows(*tables)
    changed[f"{verb}, {how}"] = 1
    getattr(old, verb)()
    assert _rows(*tables) == before
    changed[f"{verb}, {how}"] = 0


def test_a_completion_that_comes_again_changes_nothing(alpha):
    """Red without: the state in a completion. The holder and the fence are still the same ones."""
    make_job()
    node = str(make_node().pk)
    claimed = _claim(node)
    now = countdown()
    done = decide(claimed, node, Report(Outcome.SUCCEEDED, now - 1, now), POLICY)
    _write(done)
    # As after a move of a person that leaves both: whatever it is, it is no longer running.
    Job.objects.filter(pk=claimed.id).update(node_id=node, fence=claimed.fence)
    before = _rows(*TABLES)
    failed = decide(claimed, node, Report(Outcome.FAILED, now - 1, now, error="x"), POLICY)
    for again in (done, failed):
        _write(again)
        assert _rows(*TABLES) == before


def test_there_are_at_least_twelve_verbs():
    assert len(VERBS) >= 12


def test_what_a_node_does_not_hold_it_does_not_disown(alpha, changed):
    old = Old("another node")
    before = _rows(*TABLES)
    assert disown(connections[ALIAS], old.node, set()) == 0
    assert _rows(*TABLES) == before


# -- A node that was declared dead -------------------------------------------------------------------


@pytest.fixture
def dead(alpha) -> str:
    node = make_node(NodeStatus.DEAD)
    return str(node.pk)


def _beat(node: str) -> Heartbeat:
    heart = Heartbeat("alpha", node, POLICY, lambda: {"io": 7}, lambda: None, Watchdog("test"))
    heart._beat(ALIAS)
    return heart


NODE_VERBS: dict[str, Callable[[str], object]] = {
    "beats": _beat,
    "is ordered to drain": lambda node: Node.objects.filter(pk=node).order_drain(),
    "is declared dead again": lambda node: rescue_lost(ALIAS, POLICY),
}


@pytest.mark.parametrize("verb", NODE_VERBS)
def test_a_dead_node_stays_dead_and_untouched(verb, dead, changed):
    before = _rows("node", *TABLES)
    changed[f"dead node {verb}"] = 1
    NODE_VERBS[verb](dead)
    assert _rows("node", *TABLES) == before
    changed[f"dead node {verb}"] = 0


def test_a_dead_node_that_beats_hears_that_it_is_dead(dead):
    assert _beat(dead).is_dead


def test_a_rescue_that_comes_late_takes_nothing_from_the_new_holder(alpha, changed):
    """Between its look and its write the job was claimed anew."""
    old = Old("another node")
    Node.objects.filter(pk=old.node).update(status=NodeStatus.DEAD, closed_at=timezone.now())
    before = _rows(*TABLES)
    assert rescue_lost(ALIAS, POLICY) == 0
    assert _rows(*TABLES) == before


def test_jobs_of_a_node_that_has_closed_are_rescued(alpha):
    """Red without: closed nodes in the rescue. A result that its last drain could not write is lost."""
    make_job(max_attempts=5)
    node = make_node()
    claimed = _claim(str(node.pk))
    Node.objects.filter(pk=node.pk).update(status=NodeStatus.CLOSED, closed_at=timezone.now())
    assert rescue_lost(ALIAS, POLICY) == 1
    assert Job.objects.get(pk=claimed.id).state == State.SCHEDULED


def test_a_node_whose_lease_is_not_over_is_left_alone(alpha):
    """Red without: the rescue's test that the node is dead."""
    make_job()
    claimed = _claim(str(make_node().pk))
    before = _rows("node", *TABLES)
    assert rescue_lost(ALIAS, POLICY) == 0
    assert _rows("node", *TABLES) == before
    assert Job.objects.get(pk=claimed.id).state == State.RUNNING
