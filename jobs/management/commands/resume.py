"""Resume a schedule or a queue, whichever has the name."""

from __future__ import annotations

from argparse import Namespace

from clusters.management.base import operator
from jobs.api.queue_wire import queue_to_json
from jobs.api.schedule_wire import schedule_to_json
from jobs.engine import schedules
from jobs.management.commands.queues import find, queues
from jobs.management.named import TargetCommand


class Command(TargetCommand):
    help = "Resume a paused schedule or queue, by its name or id."
    sorts = ("schedule", "queue")

    def act(self, asked: Namespace) -> None:
        target = self.target(asked)
        if target.sort == "schedule":
            document = schedule_to_json(schedules.resume(target.thing.pk, by=operator()))
        else:
            if not queues().named(target.thing.name).resume():
                self.say("It was not paused; nothing has changed.")
            document = queue_to_json(find(target.thing.name))
        self.show(document, lambda: self.stdout.write(f"{target} goes on"))
