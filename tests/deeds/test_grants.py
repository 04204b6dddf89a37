"""Kinds that need a grant need it of whoever starts them, or writes down what will start them.

The domain asks, so no surface can forget it: every entry point of the domain is walked here, and every
route of every API that starts something.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from django.db import connections
from django.test.utils import CaptureQueriesContext

from authn.models import Role
from authn.permissions import LEAST_ROLE
from clusters.acting import Acting, acting_as
from clusters.models import REFUSED, AuditEntry
from jobs.engine import fires, missed, schedule_runs, schedules, workflows
from jobs.engine.edit import Changes, edit
from jobs.engine.enqueue import enqueue, enqueue_many
from jobs.engine.new_job import NewJob
from jobs.engine.requeue import requeue
from jobs.engine.workflow_rows import NewNode
from jobs.errors import KindNotGranted
from jobs.models import Job, Schedule, Workflow, WorkflowRun
from tests.api.conftest import Api, make_key  # noqa: F401  fixtures
from tests.deeds import world
from tests.deeds.stories import STORIES
from tests.deeds.test_apis import ROUTES
from tests.factories import make_job
from tests.refusals import refused, the_refusal

pytestmark = pytest.mark.usefixtures("alpha")
SHELL = {"argv": ["/bin/true"]}
STEPS = {"steps": [{"name": "a", "kind": "shell", "payload": SHELL}]}
T = dict[str, str]


def job(things: T, name: str) -> Job:
    return Job.objects.get(pk=things[name])


def jobs(things: T, *names: str) -> Any:
    return Job.objects.filter(pk__in=[things[name] for name in names])


def nightly(things: T) -> UUID:
    return UUID(things["nightly"])


NEW = {**world.NIGHTLY, "name": "new", "kind": "shell", "type": "x", "payload": SHELL}
# Every entry point of the domain by which somebody starts work, or says what will be started.
ENTRY_POINTS: dict[str, Callable[[T], Any]] = {
    "enqueue": lambda t: enqueue(NewJob(type="a", kind="shell", payload=SHELL), by="x"),
    "enqueue steps": lambda t: enqueue(NewJob(type="a", kind="steps", payload=STEPS), by="x"),
    "enqueue_many": lambda t: enqueue_many(
        [NewJob(type="a"), NewJob(type="a", kind="shell", payload=SHELL)], by="x"
    ),
    "jobs.retry": lambda t: jobs(t, "failed").retry(),
    "job.retry": lambda t: job(t, "failed").retry(),
    "jobs.restart": lambda t: jobs(t, "failed").restart(),
    "jobs.restart, scheduled": lambda t: jobs(t, "scheduled").restart(),
    "jobs.run_now": lambda t: jobs(t, "scheduled").run_now(),
    "job.run_now": lambda t: job(t, "scheduled").run_now(),
    "requeue": lambda t: requeue(job(t, "succeeded"), by="x"),
    "edit": lambda t: edit(job(t, "ready"), Changes(payload={"argv": ["/bin/false"]})),
    "schedule_runs.retry": lambda t: schedule_runs.retry(job(t, "run_failed"), by="x"),
    "schedules.create": lambda t: schedules.create(NEW, by="x"),
    "schedules.change": lambda t: schedules.change(nightly(t), {"priority": 4}, by="x"),
    "schedules.change, away": lambda t: schedules.change(
        nightly(t), {"kind": "python", "type": "demo:noop", "payload": None}, by="x"
    ),
    "schedules.reschedule": lambda t: schedules.reschedule(
        nightly(t), {"timing": "interval", "interval_seconds": 900}, by="x"
    ),
    "schedules.set_exclusions": lambda t: schedules.set_exclusions(
        nightly(t), {"dates": ["2034-01-01"]}, by="x"
    ),
    "schedules.add_exclusions": lambda t: schedules.add_exclusions(
        nightly(t), {"dates": ["2034-01-01"]}, by="x"
    ),
    "schedules.set_dependencies": lambda t: schedules.set_dependencies(
        nightly(t), [UUID(t["sent"])], needs="all", by="x"
    ),
    "schedules.restore": lambda t: schedules.restore(UUID(t["deleted"]), by="x"),
    "fires.trigger": lambda t: fires.trigger(nightly(t), by="x"),
    "fires.trigger, otherwise": lambda t: fires.trigger(nightly(t), by="x", payload=SHELL),
    "missed.run_missed": lambda t: missed.run_missed(nightly(t), UUID(t["gap"]), "latest", by="x"),
    "workflows.create": lambda t: workflows.create("new", [NewNode(nightly(t))], by="x"),
    "workflows.change": lambda t: workflows.change(
        UUID(t["flow"]), by="x", nodes=[NewNode(nightly(t))]
    ),
    "workflows.start_run": lambda t: workflows.start_run(UUID(t["flow"]), by="x"),
    "workflows.rerun": lambda t: workflows.rerun(UUID(t["ended"]), by="x"),
}


def somebody(*kinds: str) -> Acting:
    granted = frozenset(kinds)
    return Acting("key:x", may=lambda *_: True, kinds=lambda _: granted, surface="test")


@pytest.fixture
def things() -> T:
    """All that could be started is a program of its own."""
    made = world.build()
    Job.objects.update(kind="shell", type="x", payload=SHELL)
    Schedule.objects.update(kind="shell", type="x", payload=SHELL)
    return made


def everything() -> Any:
    return (
        world.rows_of_jobs(),
        [*Job.objects.order_by("pk").values_list("pk", "payload")],
        [*Schedule.objects.order_by("pk").values_list("pk", "version", "deleted_at")],
        [*Workflow.objects.order_by("pk").values_list("pk", "version")],
        WorkflowRun.objects.count(),
        AuditEntry.objects.exclude(verb=REFUSED).count(),
    )


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_each_entry_point_asks_for_the_grant(name: str, things: T) -> None:
    before = everything()
    with acting_as(somebody("container")), pytest.raises(KindNotGranted) as excused:
        ENTRY_POINTS[name](things)
    assert excused.value.field == "kind"
    assert excused.value.index == (1 if name == "enqueue_many" else None)
    assert everything() == before
    with acting_as(somebody("shell")):
        ENTRY_POINTS[name](things)
    assert everything() != before


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_the_program_itself_needs_none(name: str, things: T) -> None:
    ENTRY_POINTS[name](things)


def test_a_schedule_of_a_workflow_asks_for_what_that_starts(things: T) -> None:
    values = {**world.NIGHTLY, "name": "runs it", "workflow_id": UUID(things["flow"])}
    values = {k: v for k, v in values.items() if k not in ("kind", "type")}
    with acting_as(somebody()), pytest.raises(KindNotGranted):
        schedules.create(values, by="x")
    made = schedules.create(values, by="x")
    with acting_as(somebody()), pytest.raises(KindNotGranted):
        fires.trigger(made.pk, by="x")


def test_most_work_costs_no_question_more(alpha: Any) -> None:
    enqueue(NewJob(type="a"), by="x")

    def asked(act: Callable[[], Any]) -> int:
        with CaptureQueriesContext(connections["cluster-alpha"]) as queries:
            act()
        return len(queries)

    plain = asked(lambda: enqueue(NewJob(type="a"), by="x"))
    failed = [make_job("failed") for _ in range(2)]
    with acting_as(somebody()):
        assert asked(lambda: enqueue(NewJob(type="a"), by="x")) == plain
        looked_at = asked(failed[0].retry)
    with acting_as(somebody("shell", "container")):
        assert asked(failed[1].retry) < looked_at


# -- Surfaces --------------------------------------------------------------------------------------

STARTERS = {
    *("jobs.enqueue", "jobs.retry", "jobs.run_now", "jobs.requeue", "jobs.change"),
    *("schedules.create", "schedules.change", "schedules.reschedule", "schedules.restore"),
    *("schedules.trigger", "schedules.import", "schedules.run_missed"),
    *("workflows.create", "workflows.change", "workflows.trigger"),
}
# What they offer to start never needs a grant: names of handlers, and nothing else.
NEVER = {
    "native JobViewSet partial_update",
    "asyncjobs TaskView create",
    "asyncjobs ScheduleView create",
    "forge JobView enqueue",
    "forge JobView enqueue_demo",
    "scheduler JobView create",
    "scheduler AdminView import_jobs",
    # Of a workflow its words only; and what waits was started by somebody with the grant.
    "native WorkflowViewSet partial_update",
    "scheduler WorkflowView update",
    "native WorkflowRunViewSet skip",
    # Many at once: those that are not granted are left out, and the answer says how many were meant.
    "asyncjobs TaskView retry_many",
    "forge MoveView retry_all_failed",
    "forge MoveView retry_all_by_status",
    # Made by its own API as a definition of steps, below.
    "tork JobView restart",
}
SHELL_JOB = {"type": "x", "kind": "shell", "payload": SHELL}
BODIES: dict[str, Any] = {
    "native JobViewSet create": SHELL_JOB,
    "native JobViewSet bulk": {"jobs": [{"type": "a"}, SHELL_JOB]},
    "native ScheduleViewSet create": {
        **{"name": "new", "timing": "cron", "expression": "0 4 * * *"},
        **SHELL_JOB,
    },
}


def starting_routes() -> list[str]:
    return sorted(
        name for name in STORIES if ROUTES[name.partition(",")[0]] in STARTERS and name not in NEVER
    )


def test_every_route_that_starts_something_is_walked() -> None:
    assert len(starting_routes()) > 35
    assert {name.partition(" ")[0] for name in starting_routes()} == {
        *("native", "asyncjobs", "forge", "scheduler", "tork")
    }
    assert set(BODIES) <= set(starting_routes())
    assert set(STORIES) >= NEVER and set(LEAST_ROLE) >= STARTERS


@pytest.mark.once
@pytest.mark.parametrize("name", starting_routes())
def test_each_route_asks_for_the_grant(
    name: str,
    things: T,
    make_key: Callable[..., str],  # noqa: F811
) -> None:
    story = STORIES[name]
    text = json.dumps([story.path, BODIES.get(name, story.body)])
    for word, pk in things.items():
        text = text.replace(f"{{{word}}}", pk)
    path, body = json.loads(text)
    before = everything()
    api = Api(make_key(Role.ADMIN, grants=("container",)))
    content = b"" if body is None else json.dumps(body).encode()
    headers = {**api.headers, "Content-Type": "application/json"}
    answer = api.client.generic(story.method, path, content, "application/json", headers=headers)
    # The dialect of schedulers has no word for such a schedule, and answers as if it were not there.
    is_unknown = name.startswith("scheduler") and answer.status_code in (400, 404)
    assert answer.status_code == 403 or is_unknown, answer.content
    assert everything() == before
    if answer.status_code == 403:
        row = the_refusal(answer, ROUTES[name.partition(",")[0]], "key:admin-1", kind="shell")
        assert row.surface == name.partition(" ")[0]
    else:
        assert not refused()
