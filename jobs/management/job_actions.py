"""What can be done with jobs from the command line: with one, with some by id, with all of a filter."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from uuid import UUID

from clusters.management.base import CommandFailed, UsageError
from jobs.api.job_wire import job_detail_to_json
from jobs.errors import JobError, JobNotFound
from jobs.management.base import job_failure
from jobs.management.bulk import BulkVerbs
from jobs.management.job_arguments import add_filters, is_filtered, job_id, matching
from jobs.models import Job
from jobs.models.job_queryset import JobQuerySet, Touched
from jobs.states import STOPPABLE

# Many jobs are changed in portions, each short enough to hold up nobody.
PORTION = 500
SAMPLE = 5


class Action(NamedTuple):
    """One verb for a job, for many, and the jobs it can be used on at all."""

    done: str
    one: Callable[[Job], None]
    many: Callable[[JobQuerySet], Touched]
    eligible: Callable[[JobQuerySet], JobQuerySet]


CANCEL = Action(
    "cancelled or asked to stop",
    Job.cancel,
    JobQuerySet.cancel,
    JobQuerySet.cancellable,
)
RETRY = Action(
    "ready again", Job.retry, JobQuerySet.retry, lambda jobs: jobs.retryable(include_held=True)
)
RUN_NOW = Action("ready", Job.run_now, JobQuerySet.run_now, JobQuerySet.scheduled)
DELETE = Action("deleted", Job.delete_final, JobQuerySet.delete_final, JobQuerySet.final)


def move_to(asked: Namespace) -> Action:
    return Action(
        f"now in {asked.to}",
        lambda job: job.move(asked.to),
        lambda jobs: jobs.move(asked.to),
        lambda jobs: jobs.unstarted().exclude(queue=asked.to),
    )


def priority_to(asked: Namespace) -> Action:
    return Action(
        f"now of priority {asked.to}",
        lambda job: job.set_priority(asked.to),
        lambda jobs: jobs.set_priority(asked.to),
        lambda jobs: jobs.unstarted().exclude(priority=asked.to),
    )


class JobActions(BulkVerbs):
    """One verb of the command for each of these."""

    def add_actions(self) -> None:
        self._add_action("cancel", CANCEL, "cancel jobs; running ones are asked to stop")
        self._add_action("retry", RETRY, "make failed, cancelled and skipped jobs ready again")
        self._add_action("run-now", RUN_NOW, "make scheduled jobs ready without waiting")
        self._add_action("delete", DELETE, "delete finished jobs with attempts and logs")
        self._add_action("move", move_to, "put jobs that have not started into another queue")
        self._add_action("set-priority", priority_to, "change it for jobs that have not started")

    def _add_action(
        self, name: str, action: Action | Callable[[Namespace], Action], about: str
    ) -> None:
        def run(asked: Namespace) -> None:
            self._act(asked, name, action if isinstance(action, Action) else action(asked))

        parser = self.verb(name, run, about)
        parser.add_argument("ids", nargs="*", type=job_id, metavar="id")
        if action is move_to:
            parser.add_argument("--to", required=True, metavar="QUEUE", help="where they go")
        elif action is priority_to:
            parser.add_argument("--to", required=True, type=int, metavar="N", help="the new one")
        add_filters(parser)
        parser.add_argument("--all", action="store_true", help="all that can be, without a filter")
        parser.add_argument("--dry-run", action="store_true", help="count and sample only")
        parser.add_argument("--yes", action="store_true", help="do not ask")

    def _act(self, asked: Namespace, name: str, action: Action) -> None:
        if asked.ids and (asked.all or is_filtered(asked)):
            raise UsageError("give ids or a filter, not both")
        if not asked.ids and not asked.all and not is_filtered(asked):
            raise UsageError("which jobs? Give ids, a filter such as --state, or --all", field="id")
        if asked.ids and not asked.dry_run:
            self._act_on_each(asked, name, action)
        else:
            self._act_on_many(asked, name, action)

    def _act_on_each(self, asked: Namespace, name: str, action: Action) -> None:
        if action is DELETE:
            self.confirm(f"Delete {len(asked.ids)} job(s)?", is_confirmed=asked.yes)
        if len(asked.ids) == 1:
            job = find(asked.ids[0])
            action.one(job)
            document = {"deleted": 1} if action is DELETE else job_detail_to_json(job)
            self.show(document, lambda: self.stdout.write(f"{job.pk} {outcome(job, action)}"))
            return
        items: list[dict[str, Any]] = []
        for pk in asked.ids:
            try:
                job = find(pk)
                action.one(job)
                items.append({"id": str(pk), "ok": True, "state": outcome(job, action)})
            except JobError as error:
                problem = job_failure(error).problem()
                items.append({"id": str(pk), "ok": False, "problem": problem})
        self.show(
            {"items": items},
            lambda: self.print_table(
                ("id", "result"),
                ((i["id"], i["state"] if i["ok"] else i["problem"]["detail"]) for i in items),
            ),
        )
        failed = sum(not item["ok"] for item in items)
        if failed:
            raise CommandFailed(f"{failed} of {len(items)} could not be done", code="partial")

    def _act_on_many(self, asked: Namespace, name: str, action: Action) -> None:
        jobs = action.eligible(matching(asked, ids=asked.ids))
        if asked.all and action is RETRY:
            # Held jobs wait for a person's decision about each of them.
            jobs = jobs.retryable()
        total = jobs.count()
        if asked.dry_run or not total:
            sample = [str(pk) for pk in jobs.values_list("pk", flat=True)[:SAMPLE]]
            self.show(
                {"matched": total, "changed": 0, "sample": sample},
                lambda: self.stdout.write("\n".join([f"{total} jobs match", *sample])),
            )
            return
        self.confirm(f"{name}: {total} job(s)?", is_confirmed=asked.yes)
        changed = 0
        outcomes: Counter[str] = Counter()
        for portion in portions(jobs):
            touched = action.many(portion)
            changed += touched
            outcomes.update(touched.outcomes)
        self.show(
            {"matched": total, "changed": changed, "outcomes": dict(outcomes)},
            lambda: self.stdout.write(f"{changed} {action.done}"),
        )


def find(pk: UUID) -> Job:
    try:
        return Job.objects.get(pk=pk)
    except Job.DoesNotExist:
        raise JobNotFound(f"there is no job {pk}") from None


def portions(jobs: JobQuerySet) -> Iterator[JobQuerySet]:
    """The jobs in portions by id; each is looked at once, whatever becomes of it."""
    after = UUID(int=0)
    while ids := [*jobs.filter(pk__gt=after).order_by("pk").values_list("pk", flat=True)[:PORTION]]:
        yield jobs.filter(pk__in=ids)
        after = ids[-1]


def outcome(job: Job, action: Action) -> str:
    if action is DELETE:
        return action.done
    return "asked to stop" if action is CANCEL and job.state in STOPPABLE else str(job.state)
