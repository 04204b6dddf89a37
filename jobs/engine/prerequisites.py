"""Prerequisites: the schedules that must have succeeded before another may run; never a circle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.db import connections

from jobs.errors import DependencyCycle, InvalidSchedule, ScheduleInUse
from jobs.models import Schedule, ScheduleDependency, WorkflowNode

MAX_PREREQUISITES = 100
MAX_NAMED = 5
_NO_WAIT = "the schedule of a workflow waits for no other"
# Runs of workflows are the workflow's: their schedule never learns of a success.
_NO_SUCCESS = "no schedule waits for that of a workflow"


def replace(using: str, schedule: Schedule, ids: Sequence[UUID]) -> None:
    """Let these take the place of those before; no ids: it waits for nobody."""
    lock_all(using)
    check(using, schedule, ids)
    edges = ScheduleDependency.objects.using(using)
    edges.filter(schedule_id=schedule.pk).delete()
    edges.bulk_create(ScheduleDependency(schedule=schedule, prerequisite_id=pk) for pk in ids)
    if ids and _comes_back(using, schedule.pk):
        raise DependencyCycle(field="depends_on")


def check(using: str, schedule: Schedule, ids: Sequence[UUID]) -> None:
    """Refuse schedules that nobody, or not this one, can wait for; circles are found later."""
    if schedule.workflow_id is not None and ids:
        raise InvalidSchedule(_NO_WAIT, field="depends_on")
    if len(set(ids)) != len(ids):
        raise InvalidSchedule("names a schedule twice", field="depends_on")
    if schedule.pk in ids:
        raise InvalidSchedule("a schedule cannot depend on itself", field="depends_on")
    if len(ids) > MAX_PREREQUISITES:
        raise InvalidSchedule(f"at most {MAX_PREREQUISITES} schedules", field="depends_on")
    known = Schedule.objects.using(using).kept().filter(pk__in=ids)
    workflows = dict(known.values_list("pk", "workflow_id"))
    missing = set(ids) - workflows.keys()
    if missing:
        raise InvalidSchedule(f"there is no schedule {min(missing)}", field="depends_on")
    if any(workflows.values()):
        raise InvalidSchedule(_NO_SUCCESS, field="depends_on")


def refuse_workflow(using: str, schedule: Schedule) -> None:
    """Refuse to make a schedule that waits, or is waited for, that of a workflow."""
    lock_all(using)
    edges = ScheduleDependency.objects.using(using)
    if edges.filter(schedule_id=schedule.pk).exists():
        raise InvalidSchedule(_NO_WAIT, field="workflow_id")
    if edges.filter(prerequisite_id=schedule.pk, schedule__deleted_at=None).exists():
        raise InvalidSchedule(_NO_SUCCESS, field="workflow_id")


def of(schedule: Schedule) -> list[Schedule]:
    """The schedules that one depends on, by name, those that are deleted included."""
    rows = Schedule.objects.using(schedule._state.db)
    return list(rows.filter(dependants__schedule_id=schedule.pk).order_by("name", "pk"))


class Needed(NamedTuple):
    """Who needs a schedule: by name, the first of each."""

    schedules: list[str]
    workflows: list[str]


def who_needs(using: str, pk: UUID) -> Needed:
    """The schedules and workflows that need this one, without those that are deleted."""
    edges, nodes = _needs(using, pk)
    schedules = edges.filter(schedule__deleted_at=None).order_by("schedule__name")
    workflows = nodes.filter(workflow__deleted_at=None).order_by("workflow__name")
    return Needed(
        list(schedules.values_list("schedule__name", flat=True)[:MAX_NAMED]),
        list(workflows.values_list("workflow__name", flat=True)[:MAX_NAMED]),
    )


def refuse_if_needed(using: str, schedule: Schedule) -> None:
    """Raise ScheduleInUse where others need the schedule; forget those that are deleted themselves."""
    lock_all(using)
    needed = who_needs(using, schedule.pk)
    if names := [*needed.schedules, *needed.workflows]:
        shown = ", ".join(repr(name) for name in names)
        raise ScheduleInUse(f"others need this schedule: {shown}")
    for rows in _needs(using, schedule.pk):
        rows.delete()


def _needs(using: str, pk: UUID) -> tuple[Any, Any]:
    return (
        ScheduleDependency.objects.using(using).filter(prerequisite_id=pk),
        WorkflowNode.objects.using(using).filter(schedule_id=pk),
    )


def lock_all(using: str) -> None:
    """Let nobody else change who needs whom until the transaction ends.

    Two changes at the same time could each close half of a circle, or need what the other deletes. To be
    called before the first row is written: whoever has written one would wait for the other's.
    """
    connection = connections[using]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("LOCK TABLE schedule_dependency IN SHARE ROW EXCLUSIVE MODE")


def _comes_back(using: str, pk: UUID) -> bool:
    """Whether one comes back to a schedule by going from one prerequisite to the next."""
    connection = connections[using]
    key = pk if connection.vendor == "postgresql" else pk.hex
    with connection.cursor() as cursor:
        cursor.execute(
            """WITH RECURSIVE above(id) AS (
                 SELECT prerequisite_id FROM schedule_dependency WHERE schedule_id = %s
                 UNION
                 SELECT e.prerequisite_id FROM above JOIN schedule_dependency e
                     ON e.schedule_id = above.id)
               SELECT 1 FROM above WHERE id = %s LIMIT 1""",
            [key, key],
        )
        return cursor.fetchone() is not None
