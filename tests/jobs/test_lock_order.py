"""Whoever ends several jobs locks them, and those who wait for them, in one order: no circle of waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections, transaction
from django.utils import timezone

from clusters.binding import cluster_bound
from jobs.engine.clock import countdown
from jobs.engine.complete import Success
from jobs.engine.dependencies import Waits, attach_many
from jobs.engine.turn import take_turn
from jobs.models import Job
from jobs.states import Reason, State
from tests.factories import make_job, make_node

USING = "cluster-alpha"
pytestmark = pytest.mark.django_db(transaction=True)
# PostgreSQL looks for a deadlock after a second of waiting; meanwhile the other one gets stuck.
STUCK_SECONDS = 0.5


@pytest.fixture(autouse=True)
def _alpha(transactional_db: None, is_postgresql: bool) -> Iterator[None]:
    if not is_postgresql:
        pytest.skip("one writes at a time on SQLite")
    with cluster_bound("alpha"):
        yield


def chain(state: str, **columns: Any) -> tuple[Job, list[Job], Job]:
    """A job, others that wait for it, and one that was made after them and that another waits for."""
    first = make_job(state, **columns)
    children = [make_job(State.BLOCKED) for _ in range(3)]
    last = make_job(state, **columns)
    other = make_job(State.BLOCKED)
    wait(*((child, first) for child in children), (other, last))
    return first, children, last


def wait(*edges: tuple[Job, Job]) -> None:
    with transaction.atomic(using=USING):
        attach_many(USING, [Waits(child.pk, [parent.pk]) for child, parent in edges])


def while_the_first_holds(first: Callable[[], Any], second: Callable[[], Any]) -> list[Any]:
    """Let the second begin when the first has locked what it locks first; what each returned."""
    is_held = threading.Event()
    results: list[Any] = [None, None]
    errors: list[BaseException] = []

    def note(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        found = execute(sql, params, many, context)
        # The second is what follows a completion.
        is_after = "FOR NO KEY UPDATE" in sql or '"finished_at" IS NOT NULL' in sql
        if is_after and context["connection"].in_atomic_block and not is_held.is_set():
            is_held.set()
            time.sleep(STUCK_SECONDS)
        return found

    def run(number: int, work: Callable[[], Any]) -> None:
        try:
            with cluster_bound("alpha"):
                if number:
                    assert is_held.wait(60)
                    results[number] = work()
                else:
                    with connections[USING].execute_wrapper(note):
                        results[number] = work()
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate((first, second))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    if errors:
        raise errors[0]
    return results


def cancel(*jobs: Job) -> Callable[[], int]:
    ids = [job.pk for job in jobs]
    return lambda: Job.objects.using(USING).filter(pk__in=ids).cancel()


def states(*jobs: Job) -> list[str]:
    rows = dict(Job.objects.values_list("pk", "state"))
    return [rows[job.pk] for job in jobs]


def test_cancels_of_overlapping_sets_do_not_wait_for_each_other_in_a_circle():
    first, children, last = chain(State.READY)
    results = while_the_first_holds(cancel(first, last), cancel(*children, last))
    assert results == [2, 0]
    assert states(first, last) == ["cancelled", "cancelled"]
    assert {
        (job.state, job.reason) for job in Job.objects.filter(pk__in=[c.pk for c in children])
    } == {(State.FAILED, Reason.DEPENDENCY)}


def test_those_are_locked_too_who_end_because_others_end():
    first, (child, *_), last = chain(State.READY)
    grandchild = make_job(State.BLOCKED)
    later = make_job(State.READY)
    wait((grandchild, child))
    results = while_the_first_holds(cancel(first, later), cancel(grandchild, later))
    assert results == [2, 0]
    assert states(grandchild, last) == ["failed", "ready"]


def test_a_node_that_completes_and_a_cancel_do_not_wait_for_each_other_in_a_circle():
    node = make_node()
    held = {"node": node, "fence": 1, "started_at": timezone.now(), "attempts": 1}
    first, children, last = chain(State.RUNNING, **held)
    now = countdown()
    batch = [Success(str(job.pk), 1, str(node.pk), now, now, None) for job in (first, last)]
    results = while_the_first_holds(
        lambda: take_turn(connections[USING], batch, None).superseded,
        cancel(*children, last),
    )
    # Those who waited were free to run, and are cancelled.
    assert results == [[], 3]
    assert states(first, last) == ["succeeded", "succeeded"]
    assert set(states(*children)) == {"cancelled"}
