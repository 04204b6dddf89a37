"""After a backup was restored: what is uncertain, and the word that lets jobs start again."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

from clusters.api.fields import format_time
from clusters.binding import current_cluster
from clusters.management.base import UsageError, operator
from clusters.models import ClusterSetting, current_policy
from jobs.engine import restored
from jobs.management.base import JobsCommand
from jobs.models import Job
from jobs.states import OnLost

# In place of one decision for all: each job's own.
OWN = "own"


class Command(JobsCommand):
    help = (
        "After a backup was restored: no job starts until a person confirms. Jobs that were running "
        "when it was taken are listed, for nobody knows how they ended."
    )

    def add_verbs(self) -> None:
        self.verb("mark", self.mark, "let no job start, as `worker --restored` does")
        self.verb("show", self.show_waiting, "whether the cluster waits, and the uncertain jobs")
        parser = self.verb("confirm", self.confirm_restored, "decide, and let jobs start")
        parser.add_argument(
            "--uncertain",
            choices=[*OnLost.values, OWN],
            help="what becomes of the uncertain jobs: run again, fail, fail and be held for a "
            "person, or as each one's own on_lost says",
        )
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def mark(self, asked: Namespace) -> None:
        is_new = ClusterSetting.objects.all().mark_restored(by=operator())
        self.say("no job starts until you confirm" if is_new else "it waited before")
        self.show_waiting(asked)

    def show_waiting(self, asked: Namespace) -> None:
        using = current_cluster().alias
        waits = restored.waiting(using)
        if waits is None:
            self.show({"awaits_confirmation": False, "items": []}, lambda: None)
            self.say(f"{current_cluster().id} does not wait for a confirmation")
            return
        about = {
            "awaits_confirmation": True,
            "since": format_time(waits.since),
            "by": waits.by,
            "last_heartbeat_at": format_time(waits.last_heartbeat_at),
            "unstarted": waits.unstarted,
        }
        jobs = [*restored.uncertain(using).order_by("started_at", "pk")]
        if self.is_json:
            self.print_json({**about, "items": [_to_json(job) for job in jobs]})
            return
        self.print_record(about)
        self.stdout.write("")
        self.print_table(
            ("id", "type", "queue", "node", "started", "on lost"),
            ((str(j.pk), j.type, j.queue, str(j.node_id), j.started_at, j.on_lost) for j in jobs),
        )
        self.say(
            f"{len(jobs)} jobs were running when the backup was taken: nobody knows how they ended. "
            f"{waits.unstarted} had not started; those that ran since then run again."
        )

    def confirm_restored(self, asked: Namespace) -> None:
        using, by = current_cluster().alias, operator()
        count = restored.uncertain(using).count() if restored.waiting(using) else 0
        if count and asked.uncertain is None:
            raise UsageError(
                f"{count} jobs are uncertain; say what becomes of them with --uncertain",
                field="uncertain",
            )
        question = f"Let jobs of {current_cluster().id} start ({count} uncertain)?"
        self.confirm(question, is_confirmed=asked.yes)
        decision = None if asked.uncertain in (None, OWN) else OnLost(asked.uncertain)
        decided = restored.confirm(using, current_policy(), decision, by=by)
        self.show({"decided": decided}, lambda: self.say(f"{decided} decided; jobs start again"))


def _to_json(job: Job) -> dict[str, Any]:
    return {
        "id": str(job.pk),
        "type": job.type,
        "queue": job.queue,
        "node_id": str(job.node_id),
        "fence": job.fence,
        "started_at": format_time(job.started_at),
        "on_lost": job.on_lost,
    }
