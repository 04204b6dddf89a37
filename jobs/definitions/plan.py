"""The difference between files and a cluster, and how the cluster comes to be as they say.

All of it is one transaction: what is wrong with any part changes nothing. A plan is the same, undone at
its end, so it never says anything else than what would happen. What does not differ is not written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from django.db import connections, router, transaction

from jobs.definitions.changes import (
    CHANGE,
    CREATE,
    DELETE,
    Change,
    Outcome,
    columns,
    dependants_first,
    differences,
)
from jobs.definitions.document import (
    COLUMNS,
    Definitions,
    InvalidDefinitions,
    Problem,
    default_of,
    schedule_values,
)
from jobs.definitions.stored import (
    calendar_document,
    deleted_prerequisites,
    node_document,
    nodes_of,
    prerequisites,
    queue_document,
    schedule_document,
    schedule_names,
    workflow_document,
)
from jobs.engine import calendars, schedules, workflows
from jobs.engine.clock import database_now
from jobs.engine.prerequisites import who_needs
from jobs.engine.workflow_rows import NewNode
from jobs.errors import JobError
from jobs.models import (
    Calendar,
    OnNodeFailure,
    Queue,
    Schedule,
    Source,
    Workflow,
)
from jobs.models.queue_policies import POLICIES
from jobs.sealing import is_sealed
from jobs.secrets import meant_payload

# How columns that hold references are called in files.
_FIELDS = {column: name for name, column in COLUMNS.items()} | {"schedule_id": "schedule"}


def plan(wanted: Definitions, **options: Any) -> Outcome:
    """What ``apply`` would do now; nothing is changed."""
    return _carry_out(wanted, is_kept=False, **options)


def apply(wanted: Definitions, **options: Any) -> Outcome:
    """Let the bound cluster be as the definitions say, all of it or nothing."""
    return _carry_out(wanted, is_kept=True, **options)


def _carry_out(
    wanted: Definitions,
    *,
    by: str,
    is_kept: bool,
    environment: str | None = None,
    prune: bool = False,
) -> Outcome:
    using = router.db_for_write(Schedule)
    with transaction.atomic(using=using):
        work = _Work(using, wanted, by, environment)
        work.queues()
        work.calendars()
        work.schedules()
        work.dependencies()
        work.workflows()
        work.starters()
        if prune:
            work.prune()
        if work.problems:
            # Leaving by an error undoes what was done up to here.
            raise InvalidDefinitions(work.problems)
        if not is_kept:
            transaction.set_rollback(True, using=using)
    return work.outcome


class _Work:
    """One pass, in the order in which things may refer to each other."""

    def __init__(self, using: str, wanted: Definitions, by: str, environment: str | None) -> None:
        self._using, self._wanted, self._by, self._environment = using, wanted, by, environment
        self.problems: list[Problem] = []
        # By name in lower case, what is wrong itself: who refers to it is not told of once more.
        self._failed: set[str] = set()
        self._failed_workflows: set[str] = set()
        self.outcome = Outcome()
        # Where in the outcome a thing is told of.
        self._told: dict[tuple[str, str], int] = {}
        self._now = database_now(connections[using])
        rows = Schedule.objects.using(using).kept()
        # Only what files name is read as a whole.
        self._ids = {name.lower(): pk for pk, name in schedule_names(using).items()}
        named = [self._ids[name.lower()] for name in wanted.schedules if name.lower() in self._ids]
        self._stored: dict[UUID, Schedule] = {}
        for start in range(0, len(named), 500):
            self._stored |= rows.in_bulk(named[start : start + 500])
        self._edges = prerequisites(using)
        self._workflows = dict(Workflow.objects.using(using).kept().values_list("pk", "name"))

    # -- Queues and calendars ------------------------------------------------------------------------

    def queues(self) -> None:
        stored = {queue.name: queue for queue in Queue.objects.using(self._using).all()}
        for name, said in self._wanted.queues.items():
            values = {k: v for k, v in said.items() if v is not None}
            queue = stored.get(name)
            old = {} if queue is None else queue_document(queue)
            fresh = Queue(name=name, **{k: v for k, v in values.items() if k in POLICIES})
            differing = differences(old, queue_document(fresh), lambda k: default_of(Queue, k))
            rows = Queue.objects.using(self._using)
            if queue is None:
                self._do(
                    CREATE, "queues", name, differing, partial(rows.create_queue, name, **values)
                )
            elif differing:
                new = {key: value for key, (_, value) in differing.items()}
                self._do(
                    CHANGE, "queues", name, differing, partial(rows.filter(name=name).change, **new)
                )

    def calendars(self) -> None:
        stored = {one.name: one for one in Calendar.objects.using(self._using).all()}
        for name, said in self._wanted.calendars.items():
            dates, description = said.get("dates") or [], said.get("description") or ""
            calendar = stored.get(name)
            old = {} if calendar is None else calendar_document(calendar)
            unique = sorted({one for one in dates if isinstance(one, str)})
            new = calendar_document(Calendar(dates=unique, description=description))
            differing = differences(old, new, lambda k: default_of(Calendar, k))
            values: dict[str, Any] = {
                "dates": dates,
                "description": description,
                "by": self._by,
            }
            if calendar is None:
                self._do(
                    CREATE, "calendars", name, differing, partial(calendars.create, name, **values)
                )
            elif differing or len(unique) != len(dates):
                self._do(
                    CHANGE, "calendars", name, differing, partial(calendars.change, name, **values)
                )

    # -- Schedules -----------------------------------------------------------------------------------

    def schedules(self) -> None:
        """Those that make jobs. What starts a workflow comes when there are workflows."""
        for name, said in self._wanted.schedules.items():
            if said.get("workflow") is None:
                self._schedule(name, said)

    def starters(self) -> None:
        for name, said in self._wanted.schedules.items():
            if said.get("workflow") is not None:
                self._schedule(name, said)

    def _schedule(self, name: str, said: Mapping[str, Any]) -> None:
        path = f"schedules.{name}"
        stored = self._stored.get(self._ids.get(name.strip().lower(), UUID(int=0)))
        if stored is not None and stored.source == Source.CODE:
            self._fail(path, "stands in code; change it there")
            return
        values = {**schedule_values(said, self._environment), "name": name}
        if stored is not None and is_sealed(stored.payload) and "payload" in values:
            # Secrets are not in files; what stands for them there is what is stored.
            values["payload"] = meant_payload(stored.kind, values["payload"], stored.payload)
        if self._has_ended(values):
            self.outcome.remarks.append(f"{path} has had its time and is left alone")
            return
        if said.get("workflow") is not None:
            starts = self._workflow_id(said["workflow"])
            if starts is None:
                if said["workflow"].strip().lower() not in self._failed_workflows:
                    self._fail(f"{path}.workflow", "there is no such workflow")
                return
            values["workflow_id"] = starts
        draft: Schedule | None = self._try(path, partial(schedules.draft, values))
        if draft is None:
            self._failed.add(name.strip().lower())
            return
        differing = self._schedule_differences(stored, draft, values)
        if stored is None:
            made = self._do(
                CREATE,
                "schedules",
                name,
                differing,
                partial(schedules.create, values, by=self._by, source=Source.FILE),
            )
            if made is not None:
                self._ids[made.name.lower()] = made.pk
        elif differing:
            new = columns(draft, differing)
            self._do(
                CHANGE,
                "schedules",
                name,
                differing,
                partial(schedules.change, stored.pk, new, by=self._by, source=Source.FILE),
            )

    def _has_ended(self, values: Mapping[str, Any]) -> bool:
        """A file outlives what it once planned; there is nothing to make of that, and no harm in it."""
        last = [values.get("run_at"), values.get("ends_at")]
        return any(isinstance(at, datetime) and at <= self._now for at in last)

    def _schedule_differences(
        self, stored: Schedule | None, draft: Schedule, values: Mapping[str, Any]
    ) -> dict[str, tuple[Any, Any]]:
        new = schedule_document(draft, (), self._workflow_name(draft))
        old: dict[str, Any] = {}
        if stored is not None:
            old = schedule_document(stored, (), self._workflow_name(stored))
            for name in ("enabled", "anchor_at"):
                if COLUMNS.get(name, name) not in values:
                    old.pop(name, None)
                    new.pop(name, None)
            if stored.name != draft.name:
                old["name"], new["name"] = stored.name, draft.name
        return differences(old, new, lambda k: default_of(Schedule, COLUMNS.get(k, k)))

    def _workflow_name(self, schedule: Schedule) -> str | None:
        return self._workflows.get(schedule.workflow_id) if schedule.workflow_id else None

    def dependencies(self) -> None:
        """All that go first, then those that come: no circle is seen that is only passed through."""
        names = {pk: name for name, pk in self._ids.items()}
        names |= {
            pk: f"{name} (deleted)" for pk, name in deleted_prerequisites(self._using).items()
        }
        wanted: dict[str, tuple[UUID, list[UUID], dict[str, tuple[Any, Any]]]] = {}
        for name, said in self._wanted.schedules.items():
            pk = self._ids.get(name.strip().lower())
            if pk is None:
                continue
            ids = self._resolve(f"schedules.{name}.depends_on", said.get("depends_on") or ())
            before = self._edges.get(pk, [])
            if ids is None or set(ids) == set(before):
                continue
            old = sorted(names[one] for one in before)
            change = {"depends_on": (old or None, sorted(names[one] for one in ids) or None)}
            wanted[name] = pk, ids, change
        for pk, ids, _ in wanted.values():
            stays = [one for one in self._edges.get(pk, ()) if one in ids]
            if len(stays) < len(self._edges.get(pk, ())):
                schedules.change(pk, {}, by=self._by, depends_on=stays)
        for name, (pk, ids, change) in wanted.items():
            self._do(
                CHANGE,
                "schedules",
                name,
                change,
                partial(schedules.change, pk, {}, by=self._by, depends_on=ids, source=Source.FILE),
            )

    def _resolve(self, path: str, names: Iterable[str]) -> list[UUID] | None:
        found = []
        for index, name in enumerate(names):
            pk = self._ids.get(name.strip().lower())
            if pk is None:
                # One that these files define and that is wrong itself was told of as such.
                if name.strip().lower() not in self._failed:
                    self._fail(f"{path}.{index}", f"there is no schedule {name!r}")
                return None
            found.append(pk)
        return found

    # -- Workflows -----------------------------------------------------------------------------------

    def workflows(self) -> None:
        rows = Workflow.objects.using(self._using).kept()
        stored = {one.name.lower(): one for one in rows}
        names = schedule_names(self._using) if self._wanted.workflows else {}
        for name, said in self._wanted.workflows.items():
            nodes = self._nodes(f"workflows.{name}", said.get("nodes") or ())
            if nodes is None:
                self._failed_workflows.add(name.strip().lower())
                continue
            description = said.get("description") or ""
            workflow = stored.get(name.strip().lower())
            described = {"description": description} if description else {}
            new: dict[str, Any] = {
                **described,
                "nodes": self._listed(said.get("nodes") or (), names),
            }
            old: dict[str, Any] = {}
            if workflow is not None:
                old = workflow_document(workflow, nodes_of(self._using, workflow))
                if workflow.name != name.strip():
                    old["name"], new["name"] = workflow.name, name.strip()
            differing = differences(old, new, lambda k: None if k == "nodes" else "")
            words: dict[str, Any] = {
                "by": self._by,
                "description": description,
                "source": Source.FILE,
            }
            if workflow is None:
                make = partial(workflows.create, name, nodes, **words)
                made = self._do(CREATE, "workflows", name, differing, make)
                if made is None:
                    self._failed_workflows.add(name.strip().lower())
                else:
                    self._workflows[made.pk] = made.name
            elif differing:
                pk, asked = workflow.pk, {**words, "name": name}
                self._do(
                    CHANGE,
                    "workflows",
                    name,
                    differing,
                    partial(workflows.change, pk, nodes=nodes, **asked),
                )

    def _listed(
        self, nodes: Sequence[Mapping[str, Any]], names: Mapping[UUID, str]
    ) -> list[dict[str, Any]]:
        """Nodes as they would be written: names as the schedules have them."""

        def named(name: str) -> str:
            return names.get(self._ids.get(name.strip().lower(), UUID(int=0)), name)

        return [
            node_document(
                named(node["schedule"]),
                [named(one) for one in node.get("depends_on") or ()],
                node.get("on_failure") or OnNodeFailure.STOP,
            )
            for node in nodes
        ]

    def _nodes(self, path: str, said: Sequence[Mapping[str, Any]]) -> list[NewNode] | None:
        found: list[NewNode] = []
        for index, node in enumerate(said):
            place = f"{path}.nodes.{index}"
            own = self._resolve(f"{place}.schedule", [node["schedule"]])
            before = self._resolve(f"{place}.depends_on", node.get("depends_on") or ())
            if own is None or before is None:
                continue
            found.append(NewNode(own[0], before, node.get("on_failure") or OnNodeFailure.STOP))
        return found if len(found) == len(said) else None

    def _workflow_id(self, name: str) -> UUID | None:
        known = {one.lower(): pk for pk, one in self._workflows.items()}
        return known.get(name.strip().lower())

    # -- What files do not name any more -------------------------------------------------------------

    def prune(self) -> None:
        """Delete what came from files and is in none of these."""
        named = {name.strip().lower() for name in self._wanted.schedules}
        rows = Schedule.objects.using(self._using).kept().filter(source=Source.FILE)
        gone = [one for one in rows.order_by("name") if one.name.lower() not in named]
        # What starts a workflow first: it would keep the workflow.
        for one in [schedule for schedule in gone if schedule.workflow_id is not None]:
            self._prune_schedule(one)
        named = {name.strip().lower() for name in self._wanted.workflows}
        flows = Workflow.objects.using(self._using).kept().filter(source=Source.FILE)
        for flow in [one for one in flows.order_by("name") if one.name.lower() not in named]:
            pk = flow.pk
            self._do(DELETE, "workflows", flow.name, {}, partial(workflows.delete, pk, by=self._by))
        jobs = [schedule for schedule in gone if schedule.workflow_id is None]
        for one in dependants_first(jobs, self._edges):
            self._prune_schedule(one)

    def _prune_schedule(self, schedule: Schedule) -> None:
        pk, using = schedule.pk, self._using
        needed = who_needs(using, pk)
        if users := [*needed.schedules, *needed.workflows]:
            shown = ", ".join(map(repr, sorted(users)[:5]))
            path = f"schedules.{schedule.name}"
            self._fail(path, f"cannot be deleted, it is needed by {shown}")
            return
        self._do(DELETE, "schedules", schedule.name, {}, partial(schedules.delete, pk, by=self._by))

    # -- Doing ---------------------------------------------------------------------------------------

    def _do(
        self,
        action: str,
        section: str,
        name: str,
        fields: Mapping[str, tuple[Any, Any]],
        verb: Callable[[], Any],
    ) -> Any:
        done = self._try(f"{section}.{name}", verb)
        self._tell(Change(action, section, name, dict(fields)))
        return done

    def _tell(self, change: Change) -> None:
        """A thing that is touched twice, for itself and for what it depends on, is told of once."""
        key = (change.section, change.name)
        if key not in self._told:
            self._told[key] = len(self.outcome.changes)
            self.outcome.changes.append(change)
            return
        told = self.outcome.changes[self._told[key]]
        merged = {**told.fields, **change.fields}
        self.outcome.changes[self._told[key]] = Change(told.action, *key, merged)

    def _try(self, path: str, verb: Callable[[], Any]) -> Any:
        try:
            with transaction.atomic(using=self._using):
                return verb()
        except JobError as error:
            parts = [part for part in re.split(r"[].[]+", error.field or "") if part]
            place = ".".join([path, *(_FIELDS.get(part, part) for part in parts)])
            self._fail(place, str(error))
            return None

    def _fail(self, path: str, text: str) -> None:
        self.problems.append(Problem(path, text))
