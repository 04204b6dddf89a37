"""Counters of steps that do not fit are repaired, which never happens by itself."""

from __future__ import annotations

import pytest

from clusters.policy import ClusterPolicy
from jobs.engine.step_sweep import sweep_steps
from jobs.models import StepsRun
from jobs.states import State
from tests.factories import make_queue
from tests.jobs.steps.cases import TestNode, do, submit, the_run

pytestmark = pytest.mark.usefixtures("alpha")


@pytest.fixture
def waiting():
    make_queue("closed", is_paused=True)
    job = submit({"name": "fan", "parallel": [do("a", queue="closed"), do("b", queue="closed")]})
    TestNode().run()
    job.refresh_from_db()
    assert job.state == State.WAITING
    return job


def sweep(node: TestNode) -> int:
    return sweep_steps(node.using, ClusterPolicy())


def test_what_fits_is_left_alone(waiting):
    assert sweep(TestNode()) == 0
    assert the_run(waiting.pk).woken_at is None


@pytest.mark.parametrize("columns", [{"open_steps": 7}, {"open_steps": 0}])
def test_a_wrong_counter_is_repaired(waiting, columns, caplog):
    StepsRun.objects.filter(pk=waiting.pk).update(**columns)
    assert sweep(TestNode()) == 1
    assert the_run(waiting.pk).open_steps == 1
    assert f"counts {columns['open_steps']} steps and has 1" in caplog.text


def test_a_job_that_nothing_would_wake_is_woken():
    job = submit(do("a"))
    node = TestNode()
    node.start(node.claim())
    StepsRun.objects.filter(pk=job.pk).update(woken_at=None)
    assert sweep(node) == 1
    node.run()
    job.refresh_from_db()
    assert job.state == State.SUCCEEDED
