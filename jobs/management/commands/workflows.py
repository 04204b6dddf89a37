"""Look at the workflows of a cluster and their runs, and run them now."""

from __future__ import annotations

import json
from argparse import Namespace
from typing import Any

from clusters.management.base import UsageError, operator
from jobs.api.workflow_wire import (
    payloads_of,
    run_detail_to_json,
    run_to_json,
    workflow_detail_to_json,
    workflow_to_json,
)
from jobs.engine import workflows
from jobs.management.base import JobsCommand
from jobs.management.commands.schedules import limit
from jobs.management.named import ABOUT_TARGET, find_workflow
from jobs.models import RunState, Schedule, Workflow, WorkflowRun
from jobs.models.runs import node_states


class Command(JobsCommand):
    help = "Look at the workflows of a cluster and their runs, and run them now."

    def add_verbs(self) -> None:
        listing = self.verb("list", self.list_workflows, "the workflows, by name")
        listing.add_argument("--search", metavar="TEXT", help="part of the name or description")
        listing.add_argument("--limit", type=limit, default=200, help="how many (default 200)")
        show = self.verb("show", self.show_workflow, "one workflow and its nodes")
        show.add_argument("workflow", help=ABOUT_TARGET)
        trigger = self.verb("trigger", self.trigger, "run it now")
        trigger.add_argument("workflow", help=ABOUT_TARGET)
        trigger.add_argument(
            "--payloads", metavar="JSON", help="an object: by the ids of nodes' schedules"
        )
        runs = self.verb("runs", self.runs, "its runs, the newest first")
        runs.add_argument("workflow", help=ABOUT_TARGET)
        runs.add_argument("--state", choices=RunState.values)
        runs.add_argument("--limit", type=limit, default=50, help="default 50")

    def list_workflows(self, asked: Namespace) -> None:
        rows = Workflow.objects.all().kept()
        rows = rows.search(asked.search) if asked.search else rows
        found = list(rows.order_by("name", "pk")[: asked.limit])
        self.show(
            {"items": [workflow_to_json(one) for one in found], "next": None, "previous": None},
            lambda: self.print_table(
                ("id", "name", "changed", "by", "description"),
                (
                    (str(one.pk), one.name, one.updated_at, one.updated_by, one.description)
                    for one in found
                ),
            ),
        )

    def show_workflow(self, asked: Namespace) -> None:
        workflow = find_workflow(asked.workflow)
        nodes = workflows.nodes_of(workflow)
        starting = Schedule.objects.all().kept().filter(workflow_id=workflow.pk).order_by("pk")
        document = workflow_detail_to_json(
            workflow, nodes, list(starting.values_list("pk", flat=True))
        )
        names = {str(node.schedule_id): node.schedule.name for node in nodes}
        told = {
            **document,
            "nodes": "\n".join(
                f"{node.schedule.name} ({node.on_failure}) after "
                + (", ".join(names[pk] for pk in node.depends_on) or "nothing")
                for node in nodes
            ),
        }
        self.show(document, lambda: self.print_record(told))

    def trigger(self, asked: Namespace) -> None:
        payloads = payloads_of({"payloads": _object(asked.payloads or "{}")})
        workflow = find_workflow(asked.workflow)
        run = workflows.start_run(workflow.pk, by=operator(), payloads=payloads)
        document = run_detail_to_json(run, node_states(str(run._state.db), [run]))
        self.show(document, lambda: self.stdout.write(str(run.pk)))

    def runs(self, asked: Namespace) -> None:
        rows = WorkflowRun.objects.filter(workflow_id=find_workflow(asked.workflow).pk)
        rows = rows.filter(state=asked.state) if asked.state else rows
        found = list(rows.order_by("-created_at", "-pk")[: asked.limit])
        self.show(
            {"items": [run_to_json(one) for one in found], "next": None, "previous": None},
            lambda: self.print_table(
                ("id", "state", "failures", "trigger", "created", "finished", "by"),
                (
                    (
                        str(one.pk),
                        str(one.state),
                        one.has_failures,
                        str(one.trigger),
                        one.created_at,
                        one.finished_at,
                        one.started_by,
                    )
                    for one in found
                ),
            ),
        )


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the payloads are not JSON: {error}", field="payloads") from None
    if not isinstance(value, dict):
        raise UsageError("the payloads are no object", field="payloads")
    return value
