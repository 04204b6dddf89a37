"""Steps that fail, are cancelled, run in the end, and are taken up again."""

from __future__ import annotations

import pytest

from jobs.engine import conductor, fires
from jobs.engine.enqueue import NewJob, enqueue
from jobs.engine.step_rows import wake_late
from jobs.engine.waiting import why_waiting
from jobs.engine.watchdog import Watchdog
from jobs.models import Attempt, Job, Queue, Step, StepsRun
from jobs.rights import Rights
from jobs.states import Outcome, Reason, State
from tests.factories import make_queue
from tests.jobs.schedule_cases import fire, hours_ago, make_schedule, put_back
from tests.jobs.steps.cases import Fails, TestNode, do, run, states, submit, the_run

pytestmark = pytest.mark.usefixtures("alpha")


class Flaky:
    """Work that fails until it is told not to."""

    def __init__(self, *names: str) -> None:
        self.broken = {*names}

    def __call__(self, job):
        name = Step.objects.get(pk=job.id).name
        if name in self.broken:
            raise Fails(f"{name} is broken")
        return name


def test_a_failed_step_fails_the_job_and_nothing_after_it_runs():
    node = TestNode()
    job = run(do("a"), do("b", {"fail": "no luck"}), do("c"), node=node)
    assert (job.state, job.reason) == (State.FAILED, Reason.ERROR)
    assert job.error == "step 'b': no luck"
    assert node.ran == ["a", "b"]
    attempt = Attempt.objects.get(job=job)
    assert (attempt.outcome, attempt.error_type) == (Outcome.FAILED, "StepFailed")


def test_a_tolerated_failure_is_passed_over():
    job = run(
        do("a", {"fail": "x"}, continue_on_error=True, var="a"),
        do("b", "{{ tasks.a }}", var="b"),
        output="<{{ tasks.b }}>",
    )
    assert (job.state, job.result) == (State.SUCCEEDED, "<>")


def test_open_siblings_of_a_failure_are_cancelled():
    make_queue("closed", is_paused=True)
    group = {"name": "fan", "parallel": [do("bad", {"fail": "x"}), do("late", queue="closed")]}
    job = run(group)
    assert job.state == State.FAILED
    assert states(job) == {"fan": "failed", "bad": "failed", "late": "cancelled"}


@pytest.mark.parametrize("main, ended", [({"fail": "x"}, "failed"), (None, "succeeded")])
def test_final_steps_run_whatever_happened(main, ended):
    node = TestNode()
    job = run(
        do("a", main),
        do("b"),
        node=node,
        **{"finally": [do("tidy", {"fail": "y"} if main else None), do("last")]},
    )
    assert job.state == ended
    assert node.ran[-2:] == ["tidy", "last"]


def test_a_failed_final_step_fails_the_job():
    job = run(do("a"), **{"finally": [do("tidy", {"fail": "y"})]})
    assert (job.state, job.error) == (State.FAILED, "step 'tidy': y")


def test_a_bad_expression_fails_the_job_and_stops_what_runs():
    make_queue("closed", is_paused=True)
    job = run(
        do("a", queue="closed", needs=[]),
        do("b", "{{ nosuch }}", needs=[]),
        **{"finally": [do("tidy")]},
    )
    assert job.state == State.FAILED
    assert "nosuch" in job.error
    assert states(job) == {"tidy": "succeeded"}


def test_a_bad_expression_later_stops_what_runs():
    make_queue("closed", is_paused=True)
    job = run(
        do("a", needs=[]),
        do("waits", queue="closed", needs=[]),
        do("b", "{{ nosuch }}", needs=["a"]),
    )
    assert job.state == State.FAILED
    assert states(job) == {"a": "succeeded", "waits": "cancelled"}


def test_a_step_that_cannot_be_enqueued_fails_the_job_and_no_other():
    good = submit(do("x"))
    job = run(do("a", queue="no{{ inputs.q }}"), inputs={"q": "where"})
    good.refresh_from_db()
    assert good.state == State.SUCCEEDED
    assert job.state == State.FAILED
    assert job.error == "step 'a': queue: there is no queue 'nowhere'"


def test_a_full_queue_is_waited_for():
    make_queue("small", max_entries=1)
    enqueue(NewJob(type="other", queue="small"), by="test")
    job = submit(do("a", queue="small"))
    node = TestNode()
    node.run()
    job.refresh_from_db()
    assert job.state == State.WAITING
    run_ = the_run(job.pk)
    assert "no room" in run_.state["waits"]
    assert run_.woken_at is not None
    Queue.objects.filter(name="small").update(max_entries=None)
    StepsRun.objects.filter(pk=job.pk).update(woken_at=run_.created_at)
    node.run()
    job.refresh_from_db()
    assert job.state == State.SUCCEEDED


def test_queues_are_made_where_the_definition_says_so():
    job = run(do("a", queue="fresh"), create_queues=True)
    assert job.state == State.SUCCEEDED
    assert Queue.objects.filter(name="fresh").exists()


def test_cancel_reaches_every_step_at_every_depth():
    make_queue("closed", is_paused=True)
    inner = {"name": "in", "parallel": [do("x", queue="closed"), do("y", queue="closed")]}
    sub = {"name": "sub", "subjob": {"steps": [inner, do("z")]}}
    job = submit({"name": "fan", "parallel": [sub, do("w", queue="closed")]})
    node = TestNode()
    node.run()
    assert Job.objects.filter(state=State.WAITING).count() == 4
    job.refresh_from_db()
    job.cancel()
    node.run()
    job.refresh_from_db()
    assert job.state == State.CANCELLED
    assert set(Job.objects.values_list("state", flat=True)) == {State.CANCELLED}
    assert job.error == "cancelled"


def test_cancel_before_the_first_step_is_made():
    job = submit(do("a"))
    node = TestNode()
    claimed = node.claim()
    job.refresh_from_db()
    job.cancel()
    node.start(claimed)
    node.run()
    job.refresh_from_db()
    assert job.state == State.CANCELLED
    assert not Step.objects.exists()


def test_a_running_step_is_asked_to_stop_and_the_job_ends_after_it():
    job = submit(do("a"), do("b"))
    node = TestNode()
    node.start(node.claim())
    conductor.conduct(node.using)
    (step,) = node.claim()
    job.refresh_from_db()
    job.cancel()
    node.run()
    job.refresh_from_db()
    assert job.state == State.WAITING
    node.end(step, Outcome.CANCELLED)
    node.run()
    job.refresh_from_db()
    assert job.state == State.CANCELLED


def test_a_cancelled_step_cancels_its_job():
    make_queue("closed", is_paused=True)
    job = submit(do("a", queue="closed"))
    node = TestNode()
    node.run()
    Step.objects.get().job.cancel()
    node.run()
    job.refresh_from_db()
    assert job.state == State.CANCELLED


def test_a_retry_goes_on_from_what_failed_and_keeps_the_rest():
    work = Flaky("p1", "b")
    node = TestNode(work)
    group = {"name": "fan", "parallel": [do("p0"), do("p1")]}
    job = run(do("a", var="a"), group, do("b"), output="{{ tasks.a }}", node=node)
    assert job.state == State.FAILED
    work.broken -= {"p1"}
    job.retry()
    node.run()
    job.refresh_from_db()
    assert (job.state, job.error) == (State.FAILED, "step 'b': b is broken")
    work.broken.clear()
    job.retry()
    node.run()
    job.refresh_from_db()
    assert (job.state, job.result, job.attempts) == (State.SUCCEEDED, "a", 3)
    assert sorted(node.ran) == sorted(["a", "p0", "p1", "p1", "b", "b"])


def test_a_retry_of_a_failed_step_takes_up_its_job():
    work = Flaky("deep")
    node = TestNode(work)
    job = run({"name": "sub", "subjob": {"steps": [do("deep")]}}, do("after"), node=node)
    assert job.state == State.FAILED
    work.broken.clear()
    Step.objects.get(name="deep").job.retry()
    node.run()
    job.refresh_from_db()
    assert job.state == State.SUCCEEDED
    assert states(job)["after"] == "succeeded"


def test_a_retry_runs_the_final_steps_again():
    work = Flaky("a")
    node = TestNode(work)
    job = run(do("a"), node=node, **{"finally": [do("tidy")]})
    assert job.state == State.FAILED
    work.broken.clear()
    job.retry()
    node.run()
    job.refresh_from_db()
    assert job.state == State.SUCCEEDED
    assert node.ran == ["a", "tidy", "a", "tidy"]


def test_a_job_with_attempts_left_takes_itself_up_again():
    work = Flaky("a")
    node = TestNode(work)
    new = NewJob(kind="steps", payload={"steps": [do("a")]}, max_attempts=2, retry_base_seconds=0)
    job = enqueue(new, by="test").job
    node.run()
    job.refresh_from_db()
    assert (job.state, job.attempts) == (State.SCHEDULED, 1)
    work.broken.clear()
    Job.objects.filter(pk=job.pk).run_now()
    node.run()
    job.refresh_from_db()
    assert (job.state, job.attempts) == (State.SUCCEEDED, 2)


def test_a_job_that_is_not_done_in_time_is_stopped():
    make_queue("closed", is_paused=True)
    job = submit(do("a", queue="closed"))
    node = TestNode()
    node.run()
    assert wake_late(node.using) == 0
    StepsRun.objects.filter(pk=job.pk).update(stop_by=job.created_at)
    assert wake_late(node.using) == 1
    node.run()
    job.refresh_from_db()
    assert (job.state, job.reason) == (State.FAILED, Reason.TIMEOUT)
    assert states(job) == {"a": "cancelled"}


def test_a_result_that_is_too_large_fails_the_job():
    job = run(do("a", "x" * 40_000, var="a"), output="{{ tasks.a }}{{ tasks.a }}")
    assert (job.state, job.reason) == (State.FAILED, Reason.ERROR)
    assert "larger" in job.error


def test_a_result_may_name_the_character_that_it_may_not_hold():
    written = "a \\u0000 in a text"
    job = run(do("a", written, var="a"), output="{{ tasks.a }}")
    assert (job.state, job.result) == (State.SUCCEEDED, written)


def test_deleting_a_job_deletes_its_steps():
    job = run(do("a"), {"name": "sub", "subjob": {"steps": [do("deep")]}})
    job.delete_final()
    assert not Job.objects.exists()
    assert not Step.objects.exists()
    assert not StepsRun.objects.exists()


def test_a_step_of_an_open_job_is_kept():
    make_queue("closed", is_paused=True)
    submit(do("a", var="a"), do("b", queue="closed"))
    TestNode().run()
    done = Step.objects.get(name="a").job
    assert Job.objects.filter(pk=done.pk).delete_final() == 0


def test_a_group_is_made_by_others_only():
    from jobs.errors import InvalidJob

    with pytest.raises(InvalidJob, match="made by others"):
        enqueue(NewJob(kind="group", payload={"parallel": []}), by="test")


def test_why_a_job_waits_for_its_steps():
    make_queue("closed", is_paused=True)
    job = submit({"name": "fan", "parallel": [do("a", queue="closed"), do("b", queue="closed")]})
    TestNode().run()
    fan = Step.objects.get(name="fan").job
    assert [reason.code for reason in why_waiting(fan)] == ["step", "step"]
    job.refresh_from_db()
    (reason,) = why_waiting(job)
    assert (reason.code, reason.data["name"], reason.data["state"]) == ("step", "fan", "waiting")


def test_a_job_that_cannot_be_taken_on_keeps_back_no_other(caplog):
    bad, good = submit(do("a")), submit(do("b"))
    node = TestNode()
    node.start(node.claim())
    # Nothing writes such a state; whatever it is, others go on.
    StepsRun.objects.filter(pk=bad.pk).update(state={"phase": "finally", "failed": 7})
    node.run()
    good.refresh_from_db()
    assert good.state == State.SUCCEEDED
    assert f"job {bad.pk} cannot be taken on" in caplog.text
    assert the_run(bad.pk).woken_at is not None


def test_a_step_of_a_kind_that_needs_a_grant_needs_it_when_it_is_made(monkeypatch):
    granted = {"key:ops": frozenset({"shell"})}

    def rights(actor, verb, cluster):
        return Rights(actor in granted, granted.get(actor, frozenset()))

    monkeypatch.setattr(conductor, "rights_of", rights)
    program = {"name": "sh", "kind": "shell", "payload": {"script": "true"}}
    steps = {"steps": [{"name": "sub", "subjob": {"steps": [program]}}]}
    may = enqueue(NewJob(kind="steps", payload=steps), by="key:ops").job
    may_not = enqueue(NewJob(kind="steps", payload=steps), by="key:other").job
    code = enqueue(NewJob(kind="steps", payload=steps), by="billing").job
    TestNode(lambda job: None).run()
    for job in (may, may_not, code):
        job.refresh_from_db()
    assert (may.state, code.state) == (State.SUCCEEDED, State.SUCCEEDED)
    assert may_not.state == State.FAILED
    assert "key:other may not start jobs of kind shell" in may_not.error
    assert Job.objects.filter(kind="shell").count() == 2


@pytest.mark.parametrize(
    "bad",
    [do("bad", "{{ nosuch }}"), do("bad", queue="nosuch"), do("bad", "{{ 1 / inputs.x }}")],
)
@pytest.mark.parametrize("main", [None, {"fail": "x"}])
def test_a_final_step_that_cannot_be_made_is_passed_over(bad, main):
    node = TestNode()
    job = run(do("a", main), node=node, **{"finally": [bad, do("last")]})
    assert job.state == State.FAILED
    assert node.ran == ["a", "last"]
    assert ("step 'a': x" if main else "step 'bad'") in job.error


def test_a_final_step_without_a_grant_is_passed_over(monkeypatch):
    monkeypatch.setattr(conductor, "rights_of", lambda *asked: Rights(False))
    program = {"name": "sh", "kind": "shell", "payload": {"script": "true"}}
    payload = {"steps": [do("a")], "finally": [program]}
    job = enqueue(NewJob(kind="steps", payload=payload), by="key:other").job
    TestNode().run()
    job.refresh_from_db()
    assert job.state == State.FAILED
    assert "may not start" in job.error


def test_a_full_queue_does_not_keep_a_cancelled_job_for_ever():
    make_queue("small", max_entries=1)
    enqueue(NewJob(type="other", queue="small"), by="test")
    job = submit(do("a"), **{"finally": [do("tidy", queue="small")]})
    node = TestNode()
    node.run()
    job.refresh_from_db()
    assert job.state == State.WAITING
    job.cancel()
    for _ in range(3):
        StepsRun.objects.filter(pk=job.pk).update(woken_at=job.created_at)
        node.run()
    job.refresh_from_db()
    assert job.state == State.CANCELLED


def test_what_succeeded_is_kept_as_long_as_its_job_and_not_done_again():
    work = Flaky("b")
    node = TestNode(work)
    job = run(do("a"), do("b"), node=node)
    assert Job.objects.filter(state=State.SUCCEEDED).delete_final() == 0
    work.broken.clear()
    job.retry()
    node.run()
    assert node.ran == ["a", "b", "b"]
    job.refresh_from_db()
    job.delete_final()
    assert not Job.objects.exists()


def test_a_cancel_reaches_a_step_that_was_retried_just_now():
    node = TestNode(Flaky("a"))
    job = run(do("a"), node=node)
    Step.objects.get().job.retry()
    job.refresh_from_db()
    assert job.state == State.READY
    job.cancel()
    node.run()
    assert set(Job.objects.values_list("state", flat=True)) == {State.CANCELLED}
    assert node.ran == ["a"]


def test_a_job_with_an_open_step_is_not_deleted():
    job = run(do("a", {"fail": "x"}))
    Job.objects.filter(pk=Step.objects.get().pk).update(
        state=State.READY, finished_at=None, reason=None
    )
    assert Job.objects.filter(pk=job.pk).delete_final() == 0


def test_a_restart_counts_what_is_open_when_it_holds_the_counter(monkeypatch):
    from jobs.engine import steps_restart

    node = TestNode(Flaky("a"))
    job = run(do("a"), node=node)
    step = Step.objects.get().job
    node.work = lambda claimed: None
    step.retry()
    claimed = node.claim()
    do_anew = steps_restart._do_anew

    def meanwhile(using, ids):
        do_anew(using, ids)
        # The step, which was claimed beside its job, ends before the counter is held.
        node.do(next(one for one in claimed if one.kind == "python"))

    monkeypatch.setattr(steps_restart, "_do_anew", meanwhile)
    node.start(claimed)
    node.run()
    job.refresh_from_db()
    assert job.state == State.SUCCEEDED


def test_a_look_does_no_more_than_it_has_time_for(monkeypatch):
    monkeypatch.setattr(conductor, "LOOK_SECONDS", -1.0)
    first, second = submit(do("a")), submit({"name": "p", "parallel": [do("b"), do("c")]})
    node = TestNode()
    node.start(node.claim())
    assert conductor.conduct(node.using) == 1
    node.run()
    for job in (first, second):
        job.refresh_from_db()
        assert job.state == State.SUCCEEDED


def test_a_job_that_can_never_be_taken_on_ends(monkeypatch):
    monkeypatch.setattr(conductor, "PATIENCE", 2)
    job = submit(do("a"))
    node = TestNode()
    node.start(node.claim())
    for _ in range(2):
        StepsRun.objects.filter(pk=job.pk).update(
            state={"phase": "finally", "failed": 7}, woken_at=job.created_at
        )
        conductor.conduct(node.using)
    job.refresh_from_db()
    assert (job.state, job.error) == (State.FAILED, "its steps cannot be taken on: TypeError")


def test_a_job_that_cannot_be_started_ends_and_keeps_back_no_other(monkeypatch):
    bad, good = submit(do("a")), submit(do("b"))
    node = TestNode()
    claimed = node.claim()
    right = conductor.start

    def start(using, node_id, jobs):
        if any(one.id == str(bad.pk) for one in jobs):
            raise ValueError("as the test wanted")
        right(using, node_id, jobs)

    monkeypatch.setattr(conductor, "start", start)
    thread = conductor.Conductor("alpha", node.id, Watchdog("test"))
    thread._alias = node.using
    thread._start(claimed)
    node.run()
    bad.refresh_from_db()
    good.refresh_from_db()
    assert (bad.state, good.state) == (State.FAILED, State.SUCCEEDED)


def test_a_full_queue_takes_what_fits_and_gets_the_rest_later():
    make_queue("tiny", max_entries=2)
    each = {"list": [1, 2, 3, 4, 5], "step": do("i{{ item.index }}", queue="tiny")}
    job = submit(
        {"name": "all", "each": each},
        {"name": "fan", "parallel": [do(f"p{n}", queue="tiny") for n in range(4)]},
    )
    node = TestNode()
    for _ in range(20):
        StepsRun.objects.filter(woken_at__isnull=False).update(woken_at=job.created_at)
        node.run()
    job.refresh_from_db()
    assert job.state == State.SUCCEEDED
    assert sorted(node.ran) == [*(f"i{n}" for n in range(5)), *(f"p{n}" for n in range(4))]


@pytest.mark.parametrize(
    "payload",
    [
        {"kind": "shell", "payload": {"script": "docker ps --format '{{.ID}}' {{ ) }}"}},
        {"kind": "shell", "payload": {"script": "cat t", "files": {"t": "{{ .Values.x }}"}}},
        {"kind": "python", "type": "do", "description": "{{ ) }}"},
    ],
)
def test_what_is_taken_as_it_is_may_hold_anything(payload):
    node = TestNode(lambda job: None)
    job = run({"name": "a", **payload}, node=node)
    assert (job.state, job.error) == (State.SUCCEEDED, None)


def test_an_error_of_an_expression_names_its_step():
    job = run({**do("a"), "if": "{{ nope }}"})
    assert job.error.startswith("step 'a': unknown name nope")


def test_a_list_without_braces_sees_results():
    each = {"list": "tasks.rows", "step": do("i", "{{ item.value }}", var="v{{ item.index }}")}
    job = run(do("a", [7, 8], var="rows"), {"name": "e", "each": each}, output="{{ tasks.v1 }}")
    assert (job.state, job.result) == (State.SUCCEEDED, 8)


def test_who_triggers_a_schedule_answers_for_its_steps(monkeypatch):
    def rights(actor, verb, cluster):
        return Rights(True, frozenset())

    monkeypatch.setattr(conductor, "rights_of", rights)
    payload = {"steps": [{"name": "sh", "kind": "shell", "payload": {"script": "true"}}]}
    # Written by code of this installation, which is trusted with its own runs.
    schedule = make_schedule(kind="steps", type="s", payload=payload, overlap="allow")
    put_back(schedule, hours_ago(0))
    fire()
    triggered = Job.objects.get(pk=fires.trigger(schedule.pk, by="key:other").job_id)
    TestNode(lambda job: None).run()
    triggered.refresh_from_db()
    assert triggered.state == State.FAILED
    assert "key:other may not start jobs of kind shell" in triggered.error
    assert Job.objects.get(schedule_id=schedule.pk, trigger="schedule").state == State.SUCCEEDED


def test_what_the_expressions_of_one_step_cost_is_bounded_in_all():
    dear = "{{ len(filter(1..4000, # % 7 == 3)) }}"
    few, many = run(do("a", [dear] * 3)), run(do("a", [dear] * 300))
    assert few.state == State.SUCCEEDED
    assert many.state == State.FAILED
    assert "cost more than" in many.error
