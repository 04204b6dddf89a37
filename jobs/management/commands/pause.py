"""Pause a schedule or a queue, whichever has the name."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from clusters.management.base import operator
from jobs.api.queue_wire import queue_to_json
from jobs.api.schedule_wire import schedule_to_json
from jobs.management.commands.queues import find, queues
from jobs.management.commands.schedules import add_pause, pause
from jobs.management.named import TargetCommand


class Command(TargetCommand):
    help = "Pause a schedule or a queue, by its name or id."
    sorts = ("schedule", "queue")

    def add_options(self, parser: ArgumentParser) -> None:
        add_pause(parser)

    def act(self, asked: Namespace) -> None:
        target = self.target(asked)
        if target.sort == "schedule":
            document = schedule_to_json(pause(target.thing, asked))
        else:
            queues().named(target.thing.name).pause(
                by=operator(),
                reason=asked.reason,
                resume_at=asked.until,
                resume_in_seconds=asked.seconds,
            )
            document = queue_to_json(find(target.thing.name))
        self.show(document, lambda: self.stdout.write(f"{target} is paused"))
