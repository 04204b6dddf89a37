"""Does every test go red when the guard it protects is removed?

Each entry removes one guard by replacing text in a copy of the tree, runs the test named for it there,
and expects it to fail. A text that is not found exactly once is an error: the table is out of date.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = "tests/faults/"
MINUTES = 6
BOTH = ("sqlite", "postgresql")


@dataclass(frozen=True)
class Mutation:
    guard: str
    file: str
    old: str
    new: str
    test: str  # below tests/faults/
    backends: tuple[str, ...] = BOTH
    scale: float = 0.2
    # Guards behind this one, of the same harm: file, old and new text of each.
    also: tuple[tuple[str, str, str], ...] = ()

    @property
    def replacements(self) -> tuple[tuple[str, str, str], ...]:
        return ((self.file, self.old, self.new), *self.also)


KILL = "test_kill.py::test_killed_nodes_lose_no_job_and_run_none_twice_without_reason"
CHILD = "test_kill.py::test_a_killed_child_is_replaced_and_disturbs_nobody_else"
URGENT = "test_kill.py::test_what_a_job_returned_is_out_before_the_next_one_kills_the_process"
POISON = "test_kill.py::test_a_job_that_takes_its_process_down_is_poisoned_after_three_times"
CUT_OFF = "test_silence.py::test_a_node_that_is_cut_off_stops_its_work_before_others_may_start_it"
HANGS = "test_silence.py::test_a_node_whose_loop_hangs_ends_itself_and_its_jobs_go_on_elsewhere"
DRAIN = "test_silence.py::test_nodes_that_drain_keep_their_lease_and_run_nothing_twice"
HANDS = "test_silence.py::test_what_waits_in_the_hands_of_a_draining_node_goes_to_others_at_once"
STALE = "test_stale_holder.py"
CLAIM = "test_claims.py::test_eight_claimers_get_each_job_once_and_never_more_than_they_asked_for"
ALONE = "test_claims.py::test_a_claim_that_is_not_committed_holds_up_nobody"
PAUSED = "test_claims.py::test_a_queue_that_is_paused_while_it_is_drained_starts_nothing_more"
LOST = "test_lost_commits.py::test_claims_and_completions_whose_commit_was_lost_have_each_job_begun_once"
LIFE = "test_life_of_a_job.py"
VERBS = f"{LIFE}::test_a_verb_leaves_alone_what_is_not_its"
KEY = "test_asked_twice.py::test_clients_that_share_a_key_make_one_job_and_hear_the_same_id"
STOP = "test_stops.py::test_cancelled_work_is_dead_within_a_beat_and_the_grace"
AGAIN = "test_fires.py::test_an_instant_that_comes_again_makes_no_second_job"
TOGETHER = "test_fires.py::test_nodes_that_fire_together_deal_with_each_schedule_once"
MIXED = "test_mixed_clusters.py::test_hundreds_of_requests_of_two_clusters_never_mix"
POSTGRES, SQLITE = ("postgresql",), ("sqlite",)
# A binding that threads share.
SHARED = """
class _Shared:
    value = None

    def get(self):
        return self.value

    def set(self, value):
        before, self.value = self.value, value
        return before

    def reset(self, before):
        self.value = before


_bound = _Shared()
"""

MUTATIONS = (
    # -- Recovery --
    Mutation(
        "rescue loop",
        "jobs/engine/rescue.py",
        "rescued += rescue_node(using, gone, policy)",
        "pass",
        KILL,
        scale=0.6,
    ),
    Mutation(
        "rescue's test that the node is dead",
        "clusters/models.py",
        "return self.alive().filter(lease_until__lt=Now())",
        "return self.alive()",
        STALE,
    ),
    Mutation(
        "rescue of closed nodes",
        "jobs/engine/rescue.py",
        "living = {*nodes.alive().filter(pk__in=holders)",
        "living = {*nodes.exclude(status=NodeStatus.DEAD).filter(pk__in=holders)",
        STALE,
    ),
    Mutation(
        "crash budget",
        "jobs/engine/complete.py",
        "if job.crashes + move.crash >= policy.max_crashes:",
        "if False:",
        POISON,
    ),
    # -- Children --
    Mutation(
        "mark in shared memory",
        "jobs/engine/marks.py",
        "self._map[_HEAD.size + seq % CELLS] = BEGUN",
        "pass",
        CHILD,
        scale=1.0,
    ),
    Mutation(
        "flush of urgent reports",
        "jobs/engine/execute.py",
        "if self.reporter.is_urgent:",
        "if False:",
        URGENT,
    ),
    Mutation(
        "kill of the group",
        "jobs/engine/child.py",
        "os.killpg(self.pid, number)",
        "os.kill(self.pid, number)",
        f"{STOP}[python]",
        scale=1.0,
        also=(
            ("jobs/engine/template.py", "os.killpg(pid, signal.SIGKILL)", "pass"),
            ("jobs/engine/template.py", "send(one, signal.SIGKILL)", "pass"),
        ),
    ),
    # -- Lease and drain --
    Mutation(
        "fuse of a node that is cut off",
        "jobs/engine/heartbeat.py",
        "self._policy.lease_seconds, self.lease_is_in_doubt, self._wake, self._stopping",
        "1e9, self.lease_is_in_doubt, self._wake, self._stopping",
        CUT_OFF,
        ("postgresql",),
    ),
    Mutation(
        "self-fence by silence",
        "jobs/engine/heartbeat.py",
        "return self.is_dead or silent > self._policy.lease_seconds * 2 / 3",
        "return self.is_dead or silent < 0",
        CUT_OFF,
        ("postgresql",),
    ),
    Mutation(
        "end of a node whose loop hangs",
        "jobs/engine/watchdog.py",
        "os._exit(EXIT_STUCK)",
        "pass",
        HANGS,
        ("sqlite",),
    ),
    Mutation(
        "beats during a drain",
        "jobs/engine/worker.py",
        "            self._say_draining()\n",
        "            self._say_draining()\n            self._heartbeat.stop()\n",
        DRAIN,
        ("sqlite",),
    ),
    Mutation(
        "recall at the start of a drain",
        "jobs/engine/worker.py",
        "child.recall()",
        "pass",
        HANDS,
    ),
    # -- The holder's guards --
    Mutation(
        "AND fence in a completion, PostgreSQL",
        "jobs/engine/complete.py",
        "AND job.id = d.id AND job.fence = d.fence",
        "AND job.id = d.id",
        STALE,
        POSTGRES,
    ),
    Mutation(
        "AND node in a completion, PostgreSQL",
        "jobs/engine/complete.py",
        "AND job.node_id = d.node AND job.state = d.held",
        "AND job.state = d.held",
        STALE,
        POSTGRES,
    ),
    Mutation(
        "AND fence in a completion, SQLite",
        "jobs/engine/complete.py",
        "job.id = d.id AND job.fence = d.fence AND +job.node_id = d.node",
        "job.id = d.id AND +job.node_id = d.node",
        STALE,
        SQLITE,
    ),
    Mutation(
        "AND node in a completion, SQLite",
        "jobs/engine/complete.py",
        "job.id = d.id AND job.fence = d.fence AND +job.node_id = d.node",
        "job.id = d.id AND job.fence = d.fence",
        STALE,
        SQLITE,
    ),
    Mutation(
        "state in a completion, PostgreSQL",
        "jobs/engine/complete.py",
        "AND job.node_id = d.node AND job.state = d.held",
        "AND job.node_id = d.node",
        STALE,
        POSTGRES,
    ),
    Mutation(
        "state in a completion, SQLite",
        "jobs/engine/complete.py",
        "AND +job.node_id = d.node AND {_SQLITE_RUNNING}",
        "AND +job.node_id = d.node",
        STALE,
        SQLITE,
    ),
    Mutation(
        "AND fence of log lines, PostgreSQL",
        "jobs/engine/journal.py",
        "JOIN job ON job.id = d.id AND job.fence = d.fence AND",
        "JOIN job ON job.id = d.id AND",
        STALE,
        POSTGRES,
    ),
    Mutation(
        "AND fence of log lines, SQLite",
        "jobs/engine/journal.py",
        "WHERE job.id = value ->> 0 AND job.fence = value ->> 1",
        "WHERE job.id = value ->> 0",
        STALE,
        SQLITE,
    ),
    Mutation(
        "AND fence of progress",
        "jobs/engine/journal.py",
        "WHERE job.id = d.id AND job.fence = d.fence AND job.node_id = %s AND job.state = 'running'",
        "WHERE job.id = d.id AND job.node_id = %s AND job.state = 'running'",
        STALE,
    ),
    Mutation(
        "beats of the dead",
        "jobs/engine/heartbeat.py",
        "living = nodes.filter(status__in=ALIVE).update(",
        "living = nodes.update(",
        STALE,
    ),
    # -- The claim --
    Mutation(
        "lock of the pick",
        "jobs/engine/claim.py",
        "LIMIT share.n FOR UPDATE SKIP LOCKED",
        "LIMIT share.n",
        ALONE,
        POSTGRES,
    ),
    Mutation(
        "bound of the pick",
        "jobs/engine/claim.py",
        "LIMIT share.n FOR UPDATE",
        "LIMIT share.n + 1 FOR UPDATE",
        CLAIM,
        POSTGRES,
    ),
    Mutation(
        "paused queues in the pick, PostgreSQL",
        "jobs/engine/claim.py",
        "WHERE NOT q.is_paused AND",
        "WHERE",
        PAUSED,
        POSTGRES,
        scale=1.0,
    ),
    Mutation(
        "IMMEDIATE",
        "clusters/databases.py",
        '"transaction_mode": "IMMEDIATE"',
        '"transaction_mode": "DEFERRED"',
        CLAIM,
        SQLITE,
        scale=1.0,
    ),
    # -- Lost commits --
    Mutation(
        "second look at an id that did not come back",
        "jobs/engine/turn.py",
        "elif (fence != row.fence or state == State.RUNNING) and (row.id, row.fence) not in written:",
        "else:",
        LOST,
        POSTGRES,
        scale=0.4,
    ),
    Mutation(
        "results kept in memory until they are written",
        "jobs/engine/worker.py",
        "batch = self._pending[:BATCH_LIMIT]\n",
        "batch = self._pending[:BATCH_LIMIT]\n        self._pending = self._pending[BATCH_LIMIT:]\n",
        LOST,
        POSTGRES,
    ),
    Mutation(
        "disowning what an unanswered claim took",
        "jobs/engine/worker.py",
        "if unknown := disown(connections[self.alias], self.node_id, held):",
        "if unknown := 0:",
        LOST,
        POSTGRES,
    ),
    Mutation(
        "retry of transient errors",
        "jobs/engine/worker.py",
        "# Whatever it is, the loop must live: the jobs in hand are its responsibility.",
        "raise",
        LOST,
        POSTGRES,
    ),
    # -- People's verbs --
    Mutation(
        "states of a retry",
        "jobs/models/job_queryset.py",
        'stopped = self.filter(state__in=RETRYABLE_FROM).order_by("pk")',
        'stopped = self.order_by("pk")',
        VERBS,
        also=(
            (
                "jobs/models/job_queryset.py",
                "jobs.filter(pk__any_of=chosen, state__in=RETRYABLE_FROM).update(",
                "jobs.filter(pk__any_of=chosen).update(",
            ),
        ),
    ),
    Mutation(
        "states of a promotion",
        "jobs/models/job_queryset.py",
        "return self.scheduled().update(state=State.READY)",
        "return self.update(state=State.READY)",
        LIFE,
    ),
    Mutation(
        "states of run-now",
        "jobs/models/job_queryset.py",
        "self.scheduled()._write(state=State.READY",
        "self._write(state=State.READY",
        LIFE,
    ),
    Mutation(
        "states of a deletion",
        "jobs/models/job_queryset.py",
        'final = self.final().order_by("pk")',
        'final = self.order_by("pk")',
        VERBS,
    ),
    Mutation(
        "states of a cancel",
        "jobs/models/job_queryset.py",
        "Q(state__in=UNSTARTED) | Q(state__in=STOPPABLE, cancel_requested_at=None)",
        "Q(cancel_requested_at=None)",
        VERBS,
        also=(
            (
                "jobs/models/job_queryset.py",
                "[row for row in rows if row.state in UNSTARTED]",
                "[*rows]",
            ),
            (
                "jobs/models/job_queryset.py",
                "jobs.unstarted().update(",
                "jobs.update(",
            ),
        ),
    ),
    Mutation(
        "cancel beats retry, PostgreSQL",
        "jobs/engine/complete.py",
        '_CANCELS = "job.cancel_requested_at IS NOT NULL AND',
        '_CANCELS = "job.cancel_requested_at IS NULL AND false AND',
        LIFE,
        POSTGRES,
    ),
    # -- Steps --
    Mutation(
        "wake-up by the last step",
        "jobs/models/steps_release.py",
        "woken_at = CASE WHEN {_IS_DUE} THEN {{now}} ELSE r.woken_at END",
        "woken_at = r.woken_at",
        "test_steps.py::test_fan_in_ends_each_parent_once_whoever_is_killed",
    ),
    # -- Clusters --
    Mutation(
        "binding of each request",
        "clusters/binding.py",
        '_bound: ContextVar[str | None] = ContextVar("yardmaster_cluster", default=None)',
        SHARED,
        MIXED,
        SQLITE,
    ),
    Mutation(
        "end of a binding",
        "clusters/binding.py",
        "_bound.reset(token)",
        "pass",
        MIXED,
        SQLITE,
    ),
    # -- Schedules --
    Mutation(
        "unique row of a fire",
        "jobs/migrations/0014_schedules.py",
        'UniqueConstraint(fields=("schedule", "due_at"), name="fire_once")',
        'UniqueConstraint(fields=("id", "due_at"), name="fire_once")',
        AGAIN,
        scale=1.0,
    ),
    Mutation(
        "lock of what is due",
        "jobs/engine/fires.py",
        "list(due.select_for_update(no_key=True, skip_locked=skip)[:size])",
        "list(due[:size])",
        TOGETHER,
        POSTGRES,
        scale=1.0,
    ),
    Mutation(
        "next instant from the last one",
        "jobs/engine/fires.py",
        "due = arm.next_due(schedule, plan.handled_until, calendars)",
        "due = arm.next_due(schedule, now, calendars)",
        TOGETHER,
        scale=1.0,
    ),
    Mutation(
        "unique index of the keys",
        "jobs/migrations/0001_initial.py",
        "models.UniqueConstraint(fields=('principal', 'key'), name='idempotency_key_once')",
        "",
        KEY,
        POSTGRES,
    ),
)


class OutOfDate(Exception):
    """The text of a guard is not where the table says."""


def check_texts() -> None:
    """Every text of the table is in the tree, once."""
    wrong = []
    for one in MUTATIONS:
        for file, old, _ in one.replacements:
            found = (ROOT / file).read_text().count(old)
            # A statement that exists once for each database may hold the guard twice.
            if found == 0 or (found > 1 and one.backends != BOTH):
                wrong.append(f"{one.guard}: {found} times in {file}: {old!r}")
    if wrong:
        raise OutOfDate("\n".join(wrong))


def run(
    words: Iterable[str], tell: Callable[[str, str, str, float], None], scale: float = 1.0
) -> bool:
    """Remove the guards whose name or test holds one of the words; true if every test went red."""
    check_texts()
    all_red = True
    words = list(words)
    for one in MUTATIONS:
        text = f"{one.guard} {one.test}"
        if words and not any(word in text for word in words):
            continue
        for backend in one.backends:
            begun = time.monotonic()
            verdict = _outcome(one, backend, scale)
            tell(one.guard, backend, verdict, time.monotonic() - begun)
            all_red = all_red and verdict == "red"
    return all_red


def _outcome(one: Mutation, backend: str, scale: float) -> str:
    with tempfile.TemporaryDirectory(prefix="yardmaster-mutant-") as directory:
        tree = Path(directory)
        _copy(tree)
        for file, old, new in one.replacements:
            path = tree / file
            path.write_text(path.read_text().replace(old, new))
        environment = {
            k: v for k, v in os.environ.items() if k not in ("YARDMASTER_TEST_DIR", "FAULTS_REPORT")
        }
        try:
            done = subprocess.run(
                [
                    sys.executable,
                    "-m",
                    "pytest",
                    "-q",
                    "-x",
                    "-p",
                    "no:cacheprovider",
                    HERE + one.test,
                ],
                cwd=tree,
                env={
                    **environment,
                    "YARDMASTER_TEST_BACKEND": backend,
                    "FAULTS_SCALE": str(one.scale * scale),
                },
                capture_output=True,
                text=True,
                timeout=MINUTES * 60,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "no end"
    # 1 is "tests failed"; everything above means that they did not even run.
    words = {0: "GREEN", 1: "red"}
    return words.get(done.returncode, f"broken ({done.returncode}): {done.stdout[-300:]}")


def _copy(target: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
