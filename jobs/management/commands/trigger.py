"""Run a schedule or a workflow now, whichever has the name."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from clusters.management.base import UsageError, operator
from jobs.engine import workflows
from jobs.management.commands.schedules import add_payload, trigger
from jobs.management.named import TargetCommand


class Command(TargetCommand):
    help = "Run a schedule or a workflow now, by its name or id."
    sorts = ("schedule", "workflow")

    def add_options(self, parser: ArgumentParser) -> None:
        add_payload(parser)

    def act(self, asked: Namespace) -> None:
        target = self.target(asked)
        if target.sort == "schedule":
            made = trigger(target.thing, asked)
        else:
            if asked.payload is not None:
                raise UsageError("a run of a workflow takes no payload", field="payload")
            run = workflows.start_run(target.thing.pk, by=operator())
            made = {"job_id": None, "workflow_run_id": str(run.pk)}
        self.show(made, lambda: self.stdout.write(made["job_id"] or made["workflow_run_id"]))
