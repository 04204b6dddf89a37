"""Steps one after the other, at once, for each item, within each other."""

from __future__ import annotations

import pytest

from jobs.models import Attempt, Job, Step, Tally
from jobs.states import Outcome, State
from tests.jobs.steps.cases import TestNode, do, run, states, submit, the_run

pytestmark = pytest.mark.usefixtures("alpha")


def test_steps_run_one_after_the_other_and_see_what_came_before():
    node = TestNode()
    job = run(
        do("a", {"n": 1}, var="first"),
        do("b", {"seen": "{{ tasks.first.n }}", "who": "{{ inputs.who }}"}, var="second"),
        inputs={"who": "me"},
        output="{{ tasks.second }}",
        node=node,
    )
    assert (job.state, job.result) == (State.SUCCEEDED, {"seen": 1, "who": "me"})
    assert node.ran == ["a", "b"]
    assert job.progress_percent == 100
    assert states(job) == {"a": "succeeded", "b": "succeeded"}


def test_the_parent_waits_without_a_holder_and_ends_as_one_attempt():
    job = submit(do("a"))
    node = TestNode()
    node.start(node.claim())
    node.turn()
    job.refresh_from_db()
    assert job.state in (State.WAITING, State.SUCCEEDED)
    node.run()
    job.refresh_from_db()
    assert (job.state, job.attempts, job.fence) == (State.SUCCEEDED, 1, 1)
    attempt = Attempt.objects.get(job=job)
    assert (attempt.outcome, attempt.number) == (Outcome.SUCCEEDED, 1)
    assert Tally.objects.filter(type="steps", event="succeeded").count() == 1


def test_a_skipped_step_counts_as_done():
    job = run({**do("a"), "if": "{{ inputs.go == 'yes' }}"}, do("b"), inputs={"go": "no"})
    assert job.state == State.SUCCEEDED
    assert states(job) == {"a": "skipped", "b": "succeeded"}


def test_needs_make_a_graph():
    node = TestNode()
    run(
        do("a", needs=[]),
        do("b", needs=[]),
        do("c", needs=["a", "b"]),
        do("d", needs=["a"]),
        node=node,
    )
    assert node.most_at_once == 2
    assert sorted(node.ran[:2]) == ["a", "b"]
    assert sorted(node.ran[2:]) == ["c", "d"]


def test_parallel_steps_run_at_once():
    node = TestNode()
    job = run({"name": "fan", "parallel": [do(f"p{n}") for n in range(20)]}, do("after"), node=node)
    assert job.state == State.SUCCEEDED
    assert node.most_at_once == 20
    assert node.ran[-1] == "after"


@pytest.mark.parametrize("concurrency", [0, 1, 3])
def test_each_makes_a_step_for_every_item(concurrency):
    node = TestNode()
    each = {
        "list": "{{ inputs.items }}",
        "concurrency": concurrency,
        "step": do("do {{ item.index }}", "{{ item.value }}", var="r{{ item.index }}"),
    }
    job = run(
        {"name": "all", "each": each},
        inputs={"items": ["x", "y", "z", "u", "v"]},
        output="{{ tasks.r4 }}{{ tasks.r0 }}",
        node=node,
    )
    assert (job.state, job.result) == (State.SUCCEEDED, "vx")
    assert sorted(node.ran) == [f"do {n}" for n in range(5)]
    assert node.most_at_once == (concurrency or 5)


def test_each_over_nothing_is_done_at_once():
    each = {"list": [], "step": do("never")}
    job = run({"name": "none", "each": each}, do("after"))
    assert job.state == State.SUCCEEDED
    assert states(job) == {"none": "succeeded", "after": "succeeded"}


def test_groups_nest_and_names_reach_down():
    inner = {
        "list": "{{ outer.value }}",
        "step": do(
            "i", "{{ outer.index }}-{{ item.value }}", var="v{{ outer.index }}{{ item.index }}"
        ),
    }
    each = {"list": [["a", "b"], ["c"]], "var": "outer", "step": {"name": "in", "each": inner}}
    job = run(
        {"name": "out", "each": each}, output="{{ tasks.v00 }} {{ tasks.v01 }} {{ tasks.v10 }}"
    )
    assert (job.state, job.result) == (State.SUCCEEDED, "0-a 0-b 1-c")


def test_a_subjob_has_inputs_and_results_of_its_own():
    child = {
        "name": "inner {{ tasks.a }}",
        "inputs": {"x": "{{ tasks.a }}"},
        "steps": [do("deep", "{{ inputs.x }}!", var="d")],
        "output": "{{ tasks.d }}",
    }
    job = run(
        do("a", "hi", var="a"),
        {"name": "sub", "var": "s", "subjob": child},
        output="{{ tasks.s }}/{{ tasks.d }}",
    )
    assert (job.state, job.result) == (State.SUCCEEDED, "hi!/")
    sub = Step.objects.get(name="sub").job
    assert the_run(sub.pk).name == "inner hi"
    assert states(sub) == {"deep": "succeeded"}


def test_a_detached_subjob_is_a_job_of_its_own():
    child = {"steps": [do("bad", {"fail": "no"})], "detached": True}
    job = run({"name": "sub", "subjob": child}, do("after"))
    assert job.state == State.SUCCEEDED
    other = Job.objects.filter(kind="steps").exclude(pk=job.pk).get()
    assert other.state == State.FAILED
    assert not Step.objects.filter(job=other).exists()
