"""Hypothesis drives every verb of a job's life in any order, and a model says what must come of it.

Nodes here are hands: what they claimed stays in them when it is taken away, so that every sequence also
tries what a stale holder would. The clock is virtual: times in the database are moved instead of waiting.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ClassVar

import pytest
from django.db import connections
from django.utils import timezone
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from clusters.models import ALIVE, Node, NodeStatus
from clusters.policy import ClusterPolicy
from jobs.engine import ticks
from jobs.engine.claim import Appetite, Claimed
from jobs.engine.clock import countdown
from jobs.engine.complete import Report, decide, hand_back
from jobs.engine.enqueue import NewJob, enqueue
from jobs.engine.heartbeat import Heartbeat
from jobs.engine.journal import Line, write_lines
from jobs.engine.rescue import rescue_lost
from jobs.engine.turn import disown, take_turn
from jobs.engine.watchdog import Watchdog
from jobs.models import Job, LogLine
from jobs.states import RETRYABLE_FROM, STOPPABLE, Outcome, State
from tests.factories import make_job, make_node
from tests.faults import edges, ledger, report
from tests.faults.checker import Check
from tests.faults.database import OwnTransaction, plain_id
from tests.faults.harness import ALIAS

pytestmark = pytest.mark.django_db

POLICY = ClusterPolicy(retry_base_seconds=10.0, retry_cap_seconds=100.0)
UNSTARTED = ("blocked", "scheduled", "ready")
FINAL = ("succeeded", "failed", "cancelled", "skipped")
TABLES = ("job", "attempt", "job_log", "job_listing", "job_tag", "tally", "fault_edge", "node")


@dataclass
class Hand:
    """A node, and every claim that it ever made and has not ended by its own word."""

    id: str
    claims: list[Claimed] = field(default_factory=list)


@dataclass
class Expected:
    """What the model says of a job."""

    state: str
    max_attempts: int
    on_lost: str
    attempts: int = 0
    crashes: int = 0
    fence: int = 0
    node: str | None = None
    asked_to_stop: bool = False
    reason: str | None = None


def _number(strategy_max: int) -> st.SearchStrategy[int]:
    return st.integers(0, strategy_max)


class Life(RuleBasedStateMachine):
    steps: ClassVar[int] = 0
    sequences: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        type(self).sequences += 1
        self.database = OwnTransaction(connections[ALIAS])
        for table in TABLES:
            # Not as the engine would: a fresh start must not be refused by the trigger.
            if table == "job":
                self._empty_jobs()
            else:
                self.database.rows(f"DELETE FROM {table}")
        self.jobs: dict[str, Expected] = {}
        self.lines: list[ledger.Line] = []
        self.hands = [Hand(str(self._node())) for _ in range(3)]
        self.deleted: set[str] = set()

    def _empty_jobs(self) -> None:
        if self.database.is_postgresql:
            self.database.rows("ALTER TABLE job DISABLE TRIGGER fault_edge")
            self.database.rows("DELETE FROM job")
            self.database.rows("ALTER TABLE job ENABLE TRIGGER fault_edge")
        else:
            edges.remove(self.database)
            self.database.rows("DELETE FROM job")
            edges.install(self.database)

    def _node(self) -> uuid.UUID:
        return make_node(
            types=["fault:work"], lease_until=timezone.now() + timedelta(seconds=30)
        ).pk

    # -- Choosing ------------------------------------------------------------------------------------

    def _job(self, pick: int) -> str | None:
        names = list(self.jobs)
        return names[pick % len(names)] if names else None

    def _claim(self, hand: int, pick: int) -> tuple[Hand, Claimed] | None:
        one = self.hands[hand % len(self.hands)]
        return (one, one.claims[pick % len(one.claims)]) if one.claims else None

    def _holds(self, hand: Hand, claim: Claimed) -> bool:
        job = self.jobs.get(plain_id(claim.id))
        return job is not None and (job.state, job.fence, job.node) == (
            "running",
            claim.fence,
            hand.id,
        )

    def _alive(self, hand: Hand) -> bool:
        return Node.objects.filter(pk=hand.id, status__in=ALIVE).exists()

    def _say(self, word: str, claim: Claimed, hand: Hand) -> None:
        self.lines.append(ledger.Line(word, plain_id(claim.id), claim.fence, hand.id, ledger.now()))

    # -- People --------------------------------------------------------------------------------------

    @rule(
        delay=st.sampled_from([None, None, 5.0, 50.0]),
        max_attempts=st.integers(1, 4),
        on_lost=st.sampled_from(["retry", "retry", "fail", "hold"]),
        priority=st.integers(-1, 1),
    )
    def enqueue(self, delay: float | None, max_attempts: int, on_lost: str, priority: int) -> None:
        new = NewJob(
            type="fault:work",
            delay_seconds=delay,
            max_attempts=max_attempts,
            on_lost=on_lost,
            priority=priority,
        )
        job = enqueue(new, by="life").job
        self.jobs[plain_id(job.pk)] = Expected(
            "scheduled" if delay else "ready", max_attempts, on_lost
        )

    @rule(pick=_number(30))
    def cancel(self, pick: int) -> None:
        if (name := self._job(pick)) is None:
            return
        job = self.jobs[name]
        touched = Job.objects.filter(pk=name).cancel()
        if job.state in UNSTARTED:
            job.state = "cancelled"
            assert touched == 1
        elif job.state == "running" and not job.asked_to_stop:
            job.asked_to_stop = True
            assert touched == 1
        else:
            assert touched == 0

    @rule(pick=_number(30))
    def retry(self, pick: int) -> None:
        if (name := self._job(pick)) is None:
            return
        job = self.jobs[name]
        touched = Job.objects.filter(pk=name).retry()
        assert touched == (job.state in ("failed", "cancelled", "skipped"))
        if touched:
            job.state, job.reason, job.crashes, job.asked_to_stop = "ready", None, 0, False
            job.max_attempts = max(job.max_attempts, job.attempts + 1)

    @rule(pick=_number(30))
    def run_now(self, pick: int) -> None:
        if (name := self._job(pick)) is None:
            return
        job = self.jobs[name]
        touched = Job.objects.filter(pk=name).run_now()
        assert touched == (job.state == "scheduled")
        if touched:
            job.state = "ready"

    @rule(pick=_number(30))
    def promote_one(self, pick: int) -> None:
        """As upkeep does with jobs that were due when it looked, and may not be any more."""
        if (name := self._job(pick)) is None:
            return
        job = self.jobs[name]
        touched = Job.objects.filter(pk=name).promote()
        assert touched == (job.state == "scheduled")
        if touched:
            job.state = "ready"

    @rule(pick=_number(30))
    def delete(self, pick: int) -> None:
        if (name := self._job(pick)) is None:
            return
        job = self.jobs[name]
        touched = Job.objects.filter(pk=name).delete_final()
        assert touched == (job.state in FINAL)
        if touched:
            del self.jobs[name]
            self.deleted.add(name)

    # -- Nodes ---------------------------------------------------------------------------------------

    @rule(hand=_number(9), wanted=st.integers(1, 4))
    def claim(self, hand: int, wanted: int) -> None:
        one = self.hands[hand % len(self.hands)]
        if not self._alive(one):
            return  # a node that knows it is dead claims nothing; one that does not is `claim_blind`
        self._claims(one, wanted)

    @rule(hand=_number(9))
    def claim_blind(self, hand: int) -> None:
        """A node that has been declared dead and has not heard of it claims once more."""
        one = self.hands[hand % len(self.hands)]
        self._claims(one, 1)

    def _claims(self, one: Hand, wanted: int) -> None:
        ready = sum(job.state == "ready" for job in self.jobs.values())
        appetite = Appetite(
            one.id, {"process": wanted}, {"python": "process"}, ("fault:work",), None
        )
        claimed = take_turn(connections[ALIAS], [], appetite).claimed
        assert len(claimed) <= wanted
        if self._alive(one):
            assert len(claimed) == min(wanted, ready)
        for claim in claimed:
            job = self.jobs[plain_id(claim.id)]
            assert job.state == "ready"
            job.state, job.node = "running", one.id
            job.fence += 1
            job.attempts += 1
            assert (claim.fence, claim.attempts) == (job.fence, job.attempts)
            one.claims.append(claim)
            self._say("S", claim, one)

    @rule(
        hand=_number(9),
        pick=_number(9),
        outcome=st.sampled_from(list(Outcome)),
        is_permanent=st.booleans(),
        effect_unknown=st.booleans(),
    )
    def complete(
        self, hand: int, pick: int, outcome: Outcome, is_permanent: bool, effect_unknown: bool
    ) -> None:
        if (chosen := self._claim(hand, pick)) is None:
            return
        one, claim = chosen
        now = countdown()
        said = Report(
            outcome,
            now,
            now,
            error=None if outcome == Outcome.SUCCEEDED else "as the test wanted",
            is_permanent=is_permanent and outcome == Outcome.FAILED,
            effect_unknown=effect_unknown and outcome == Outcome.TIMEOUT,
            crashed=outcome == Outcome.LOST,
        )
        is_held = self._holds(one, claim)
        if is_held:
            self._say("E", claim, one)
        late = take_turn(connections[ALIAS], [decide(claim, one.id, said, POLICY)], None).superseded
        if is_held:
            assert late == []
            one.claims.remove(claim)
            self._ends(self.jobs[plain_id(claim.id)], said)

    def _ends(self, job: Expected, said: Report) -> None:
        """The rules of ENGINE.md, sections 1 and 9, in other words than the engine's."""
        if said.outcome == Outcome.SUCCEEDED:
            job.state = "succeeded"
            return
        job.crashes += said.crashed
        if job.asked_to_stop or said.outcome == Outcome.CANCELLED:
            job.state = "cancelled"
            return
        if said.outcome == Outcome.RELEASED:
            job.state = "ready"
            return
        is_doubtful = said.outcome == Outcome.LOST or said.effect_unknown
        may_run_again = job.attempts < job.max_attempts and not said.is_permanent
        named = {Outcome.FAILED: "error", Outcome.TIMEOUT: "timeout", Outcome.LOST: "lost"}
        job.reason = named[said.outcome]
        if is_doubtful and job.crashes >= 3:
            may_run_again, job.reason = False, "poisoned"
        elif is_doubtful and job.on_lost != "retry":
            may_run_again = False
        job.state = "scheduled" if may_run_again else "failed"
        if may_run_again:
            job.reason = None

    @rule(hand=_number(9), pick=_number(9))
    def hand_back(self, hand: int, pick: int) -> None:
        if (chosen := self._claim(hand, pick)) is None:
            return
        one, claim = chosen
        is_held = self._holds(one, claim)
        if is_held:
            # It was never begun, so the ledger never had it.
            self.lines = [
                line
                for line in self.lines
                if (line.job, line.fence) != (plain_id(claim.id), claim.fence)
            ]
        take_turn(connections[ALIAS], [hand_back(claim, one.id)], None)
        if is_held:
            one.claims.remove(claim)
            job = self.jobs[plain_id(claim.id)]
            job.attempts -= 1
            job.state = "cancelled" if job.asked_to_stop else "ready"

    @rule(hand=_number(9), pick=_number(9))
    def log(self, hand: int, pick: int) -> None:
        if (chosen := self._claim(hand, pick)) is None:
            return
        one, claim = chosen
        before = LogLine.objects.count()
        line = Line(claim.id, claim.fence, countdown(), "log", "info", "a word")
        write_lines(connections[ALIAS], one.id, [line])
        assert LogLine.objects.count() - before == self._holds(one, claim)

    @rule(hand=_number(9))
    def forget_and_disown(self, hand: int) -> None:
        """The answer to its last claims never came: the node hands back what it does not know of."""
        one = self.hands[hand % len(self.hands)]
        held = [claim for claim in one.claims if self._holds(one, claim)]
        known = {(claim.id, claim.fence) for claim in held[:-1]}
        assert disown(connections[ALIAS], one.id, known) == len(held[-1:])
        for claim in held[-1:]:
            one.claims.remove(claim)
            job = self.jobs[plain_id(claim.id)]
            job.attempts -= 1
            job.state = "cancelled" if job.asked_to_stop else "ready"
            self.lines = [
                line
                for line in self.lines
                if (line.job, line.fence) != (plain_id(claim.id), claim.fence)
            ]

    @rule(hand=_number(9))
    def beat(self, hand: int) -> None:
        one = self.hands[hand % len(self.hands)]
        alive = self._alive(one)
        heart = Heartbeat(
            "alpha", one.id, POLICY, lambda: {"io": 0}, lambda: None, Watchdog("test")
        )
        heart._beat(ALIAS)
        assert heart.is_dead == (not alive)

    @rule(hand=_number(9), lost=st.booleans())
    def end_node(self, hand: int, lost: bool) -> None:
        """Its lease runs out, or it closes; a new one starts beside it."""
        one = self.hands[hand % len(self.hands)]
        past = timezone.now() - timedelta(seconds=1)
        if lost:
            Node.objects.filter(pk=one.id, status__in=ALIVE).update(lease_until=past)
        else:
            Node.objects.filter(pk=one.id, status__in=ALIVE).update(
                status=NodeStatus.CLOSED, closed_at=timezone.now()
            )
        if sum(self._alive(hand) for hand in self.hands) < 3:
            self.hands.append(Hand(str(self._node())))

    # -- Upkeep --------------------------------------------------------------------------------------

    @rule()
    def rescue(self) -> None:
        gone = {
            str(pk)
            for pk in Node.objects.exclude(
                status__in=ALIVE, lease_until__gte=timezone.now()
            ).values_list("pk", flat=True)
        }
        rescued = rescue_lost(ALIAS, POLICY)
        now = countdown()
        count = 0
        for job in self.jobs.values():
            if job.state == "running" and job.node in gone:
                count += 1
                self._ends(job, Report(Outcome.LOST, now, now, crashed=True))
        assert rescued == count

    @rule()
    def promote(self) -> None:
        scheduled = {name for name, job in self.jobs.items() if job.state == "scheduled"}
        surely = self._ids("state = 'scheduled' AND run_at <= {now}")
        # What falls due between the looks may be found or not.
        ticks.promote_due(ALIAS, POLICY)
        promoted = scheduled - self._ids("state = 'scheduled'")
        assert surely <= promoted <= self._ids("run_at <= {now}")
        for name in promoted:
            self.jobs[name].state = "ready"

    def _ids(self, condition: str) -> set[str]:
        """Jobs that meet a condition; ``{now}`` in it is the database's time."""
        is_postgresql = self.database.is_postgresql
        now = "clock_timestamp()" if is_postgresql else "strftime('%Y-%m-%d %H:%M:%f', 'now')"
        rows = self.database.rows(f"SELECT id FROM job WHERE {condition.format(now=now)}")
        return {plain_id(row[0]) for row in rows}

    @rule(seconds=st.sampled_from([6, 20, 60]))
    def advance(self, seconds: int) -> None:
        """Time passes: what is stored lies further in the past. Leases are beaten on meanwhile."""
        for table, columns in (
            ("job", ("run_at", "created_at", "started_at", "finished_at", "expires_at")),
            ("attempt", ("started_at", "finished_at")),
        ):
            for column in columns:
                if self.database.is_postgresql:
                    moved = f"{column} - interval '{seconds} seconds'"
                else:
                    moved = f"strftime('%Y-%m-%d %H:%M:%f', {column}, '-{seconds} seconds')"
                self.database.rows(
                    f"UPDATE {table} SET {column} = {moved} WHERE {column} IS NOT NULL"
                )

    # -- What must hold ------------------------------------------------------------------------------

    @invariant()
    def rows_are_as_the_model_says(self) -> None:
        type(self).steps += 1
        found = {
            plain_id(pk): row
            for pk, *row in self.database.rows(
                "SELECT id, state, fence, attempts, crashes, max_attempts, reason FROM job"
            )
        }
        assert found == {
            name: [job.state, job.fence, job.attempts, job.crashes, job.max_attempts, job.reason]
            for name, job in self.jobs.items()
        }

    @precondition(lambda self: self.jobs)
    @invariant()
    def the_checker_finds_nothing(self) -> None:
        lines = [line for line in self.lines if line.job not in self.deleted]
        Check(self.database, lines).run(set(self.jobs), set(), expect_final=False).assert_sound()


def test_a_job_keeps_every_promise_whatever_is_done_to_it_in_whatever_order(
    alpha: Any, figures: dict[str, Any]
) -> None:
    """Red without: any `state IN` guard."""
    edges.install(OwnTransaction(connections[ALIAS]))
    Life.steps = Life.sequences = 0
    begun = time.monotonic()
    how = settings(
        max_examples=report.scaled(200, least=5),
        stateful_step_count=50,
        deadline=None,
        database=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    try:
        seed(report.seed())(run_state_machine_as_test)(Life, settings=how)
    finally:
        figures |= {
            "sequences": Life.sequences,
            "steps": Life.steps,
            "ms_per_step": round((time.monotonic() - begun) / max(Life.steps, 1) * 1000, 2),
        }


_MAY_MOVE = {
    "cancel": (*UNSTARTED, *STOPPABLE),
    "skip": UNSTARTED,
    "retry": RETRYABLE_FROM,
    "delete_final": FINAL,
}


@pytest.mark.django_db
@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("verb", _MAY_MOVE)
def test_a_verb_leaves_alone_what_is_not_its(verb, state, alpha):
    """Red without: the states of a retry, of a deletion, of a cancel."""
    job = make_job(state, cancel_requested_at=None)
    before = list(Job.objects.values())
    moved = getattr(Job.objects.all(), verb)()
    if state in _MAY_MOVE[verb]:
        assert moved == 1
    else:
        assert moved == 0
        assert list(Job.objects.values()) == before, job
