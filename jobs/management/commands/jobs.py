"""Look at the jobs of a cluster and act on them."""

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from django.db import connections

from clusters.csv_text import printable
from clusters.management.base import (
    FAILED,
    UsageError,
    duration,
    moment,
    operator,
)
from jobs.api.items import item_sql
from jobs.api.job_wire import (
    attempt_to_json,
    job_detail_to_json,
    log_to_json,
    running_attempt_to_json,
)
from jobs.api.steps import step_to_json
from jobs.api.waits import why_to_json
from jobs.engine.edit import Changes, edit
from jobs.engine.enqueue import NewJob, enqueue
from jobs.engine.requeue import requeue
from jobs.executors import PUBLIC_KINDS
from jobs.job_search import find as find_jobs
from jobs.listing import Position
from jobs.management.bulk import add_line, line_words
from jobs.management.job_actions import JobActions, find
from jobs.management.job_arguments import (
    add_filters,
    add_payload,
    count,
    job_id,
    metadata,
    read_file,
    read_payload,
    words,
)
from jobs.models import Attempt, Job, Needs, OnParentFailure
from jobs.states import FINAL, OnLost, State
from jobs.step_logs import POLL_SECONDS, Follower, is_made_of_steps, lines_of
from jobs.step_tree import steps_of


class Command(JobActions):
    help = "Look at the jobs of a cluster and act on them."

    def add_verbs(self) -> None:
        self._add_list()
        self._add_enqueue()
        for name, run, about in (
            ("show", self.show_job, "one job with all that is known of it"),
            ("why", self.why, "why a job does not run now"),
            ("attempts", self.attempts, "the finished tries of a job"),
        ):
            self.verb(name, run, about).add_argument("id", type=job_id)
        logs = self.verb("logs", self.logs, "what a job printed and logged")
        logs.add_argument("id", type=job_id)
        logs.add_argument("--limit", type=count, default=200, help="the last lines (default 200)")
        logs.add_argument("-f", "--follow", action="store_true", help="until the job ends")
        logs.add_argument("--own", action="store_true", help="without the lines of its steps")
        steps = self.verb("steps", self.steps, "the steps of a job, as far as they have been made")
        steps.add_argument("id", type=job_id)
        steps.add_argument("--limit", type=count, default=1000, help="how many (default 1000)")
        self.add_actions()
        self._add_edit()
        requeue = self.verb("requeue", self.requeue, "enqueue copies of jobs, due now")
        requeue.add_argument("ids", nargs="+", type=job_id, metavar="id")
        self.add_bulk_verbs()

    # -- list, show -------------------------------------------------------------------------------

    def _add_list(self) -> None:
        parser = self.verb("list", self.list_jobs, "the newest jobs")
        add_filters(parser)
        add_line(parser)
        parser.add_argument("--limit", type=count, default=50, help="how many (default 50)")
        parser.add_argument("--after", type=job_id, metavar="ID", help="those older than this job")

    def list_jobs(self, asked: Namespace) -> None:
        using = Job.objects.all().db
        last = find(asked.after) if asked.after else None
        found, reached = find_jobs(
            using,
            {**words(asked), **line_words(asked.filter)},
            item_sql(connections[using].vendor),
            asked.limit + 1,
            beyond=Position(last.created_at, last.pk) if last else None,
        )
        jobs = [json.loads(item) for (item,) in found[: asked.limit]]
        following = jobs[-1]["id"] if len(found) > asked.limit else reached and str(reached.id)
        self.show(
            {"items": jobs, "next": following, "previous": None},
            lambda: self.print_table(
                ("id", "state", "type", "queue", "attempts", "created", "error"),
                (
                    (
                        job["id"],
                        job["state"],
                        job["type"],
                        job["queue"],
                        f"{job['attempts']}/{job['max_attempts']}",
                        datetime.fromisoformat(job["created_at"]),
                        first_line(job["error"]),
                    )
                    for job in jobs
                ),
            ),
        )
        if reached is not None:
            self.say(f"Searched back to {reached.created_at:%Y-%m-%d %H:%M:%S}.")
        if following and not self.is_json:
            self.say(f"There are more: --after {following}")

    def show_job(self, asked: Namespace) -> None:
        job = find(asked.id)
        if job.state in FINAL:
            self._show(job)
            return
        reasons = why_to_json(job)["reasons"]
        document = {**job_detail_to_json(job), "why": reasons}
        told = {**document, "why": "\n".join(reason["message"] for reason in reasons)}
        self.show(document, lambda: self.print_record(told))

    def why(self, asked: Namespace) -> None:
        document = why_to_json(find(asked.id))
        told = (reason["message"] for reason in document["reasons"])
        self.show(document, lambda: self.stdout.write(printable("\n".join(told))))

    def _show(self, job: Job, **more: Any) -> None:
        document = {**job_detail_to_json(job), **more}
        self.show(document, lambda: self.print_record(document))

    def attempts(self, asked: Namespace) -> None:
        job = find(asked.id)
        ended = Attempt.objects.all().of_job(job.pk)
        tries = [attempt_to_json(attempt) for attempt in ended]
        if job.state == State.RUNNING:
            tries.append(running_attempt_to_json(job))
        self.show(
            {"items": tries, "next": None},
            lambda: self.print_table(
                ("number", "outcome", "started", "finished", "node", "error"),
                (
                    (
                        one["number"],
                        one["outcome"] or State.RUNNING.value,
                        one["started_at"],
                        one["finished_at"],
                        one["node_id"],
                        # The last line of a trace is the error itself.
                        first_line((one["error"] or "").strip().rpartition("\n")[2]),
                    )
                    for one in tries
                ),
            ),
        )

    # -- logs -------------------------------------------------------------------------------------

    def logs(self, asked: Namespace) -> None:
        job = find(asked.id)
        with_steps = is_made_of_steps(job) and not asked.own
        using = Job.objects.all().db
        newest_first = lines_of(
            using, job.pk, with_steps=with_steps, limit=asked.limit, is_newest_first=True
        )
        lines = [*reversed(newest_first)]
        if self.is_json and not asked.follow:
            self.print_json({"items": [log_to_json(line) for line in lines]})
            return
        self._print_lines(lines)
        if not asked.follow:
            return
        last = lines[-1].pk if lines else -1
        for news in Follower(using, job.pk, with_steps=with_steps, after=last):
            self._print_lines(news)
            if not news:
                time.sleep(POLL_SECONDS)

    def steps(self, asked: Namespace) -> None:
        job = find(asked.id)
        found = steps_of(Job.objects.all().db, job.pk, limit=asked.limit)
        if self.is_json:
            self.print_json({"items": [step_to_json(step) for step in found]})
            return
        depths = {job.pk: -1}
        below: dict[UUID, list[Any]] = {}
        for step in found:
            depths[step.job_id] = depths[step.parent_id] + 1
            below.setdefault(step.parent_id, []).append(step)
        for step in _down(job.pk, below):
            row = step.job
            name = "  " * depths[step.job_id] + printable(step.name)
            took = row.finished_at - row.started_at if row.finished_at and row.started_at else ""
            error = printable((row.error or "").splitlines()[0][:100]) if row.error else ""
            told = f"{row.state:<10} {str(took)[:12]:<12} {step.job_id}  {name}  {error}"
            self.stdout.write(told.rstrip())

    def _print_lines(self, lines: list[Any]) -> None:
        for line in lines:
            if self.is_json:  # while following, one object a line
                self.stdout.write(json.dumps(log_to_json(line), ensure_ascii=False))
            else:
                logged_at = f"{line.logged_at:%Y-%m-%d %H:%M:%S}"
                source = line.level or line.stream
                step = f"[{printable(line.step_name)}] " if line.step_name else ""
                self.stdout.write(f"{logged_at} {source:<7} {step}{printable(line.message)}")
        self.stdout.flush()

    # -- enqueue ----------------------------------------------------------------------------------

    def _add_enqueue(self) -> None:
        parser = self.verb("enqueue", self.enqueue, "accept a new job")
        parser.add_argument("type", nargs="?", default="", help="handler name, or a label")
        add_payload(parser)
        parser.add_argument("--kind", choices=PUBLIC_KINDS, default="python")
        parser.add_argument("--queue", default="default")
        parser.add_argument("--priority", type=int, help="-100 runs first, 100 last")
        due = parser.add_mutually_exclusive_group()
        due.add_argument("--delay", type=duration, metavar="30s", help="run no earlier than in")
        due.add_argument("--run-at", type=moment, metavar="TIME", help="run no earlier than")
        started = parser.add_mutually_exclusive_group()
        started.add_argument(
            "--expires-in",
            type=duration,
            metavar="1h",
            help="fail if not started so long after due",
        )
        started.add_argument("--expires-at", type=moment, metavar="TIME", help="or by then")
        ended = parser.add_mutually_exclusive_group()
        ended.add_argument(
            "--deadline", type=duration, metavar="2h", help="fail if not finished so long after due"
        )
        ended.add_argument("--deadline-at", type=moment, metavar="TIME", help="or by then")
        parser.add_argument("--max-attempts", type=int, metavar="N")
        parser.add_argument("--timeout", type=duration, metavar="5m", help="of each attempt")
        parser.add_argument(
            "--progress-timeout", type=duration, metavar="1m", help="of an attempt without a word"
        )
        parser.add_argument(
            "--retry-base",
            type=duration,
            metavar="5s",
            help="longest first wait; 0s: retry at once",
        )
        parser.add_argument("--retry-cap", type=duration, metavar="1h", help="longest wait of all")
        parser.add_argument(
            "--retry-curve", metavar="CURVE", help="fixed, linear, exponential, or waits: 1,5,30"
        )
        parser.add_argument("--tag", action="append", default=[], help="may be given again")
        parser.add_argument(
            *("-m", "--metadata"),
            action="append",
            default=[],
            type=metadata,
            metavar="KEY=VALUE",
            help="a number, true, false, or else a string; may be given again",
        )
        parser.add_argument("--unique-key", metavar="KEY", help="one job with it until it ends")
        parser.add_argument(
            *("--depends-on",),
            action="append",
            default=[],
            type=job_id,
            metavar="ID",
            help="wait for this job; may be given again",
        )
        parser.add_argument("--needs", choices=Needs.values, default=Needs.ALL.value)
        parser.add_argument(
            "--on-dependency-failure",
            choices=OnParentFailure.values,
            default=OnParentFailure.FAIL.value,
        )
        parser.add_argument("--on-lost", choices=OnLost.values, default=OnLost.RETRY.value)
        parser.add_argument("--id", type=job_id, help="your own UUID: a repeat is the same job")
        parser.add_argument("--wait", action="store_true", help="until it ends; 1 if not succeeded")

    def enqueue(self, asked: Namespace) -> None:
        new = NewJob(
            type=asked.type,
            payload=read_payload(asked),
            payload_bytes=read_file(asked.bytes_file, "bytes-file") if asked.bytes_file else None,
            kind=asked.kind,
            queue=asked.queue,
            priority=asked.priority,
            run_at=asked.run_at,
            delay_seconds=asked.delay,
            expires_at=asked.expires_at,
            expires_in_seconds=asked.expires_in,
            deadline_at=asked.deadline_at,
            deadline_seconds=asked.deadline,
            max_attempts=asked.max_attempts,
            timeout_seconds=asked.timeout,
            progress_timeout_seconds=asked.progress_timeout,
            retry_base_seconds=asked.retry_base,
            retry_cap_seconds=asked.retry_cap,
            retry_curve=asked.retry_curve,
            tags=asked.tag,
            metadata=dict(asked.metadata),
            unique_key=asked.unique_key,
            depends_on=asked.depends_on,
            needs=asked.needs,
            on_dependency_failure=asked.on_dependency_failure,
            on_lost=asked.on_lost,
            id=asked.id,
        )
        enqueued = enqueue(new, by=operator())
        job = enqueued.job
        if not enqueued.created:
            self.say("This job was accepted before.")
        if asked.wait:
            job = self._wait(job)
            self._show(job, created=enqueued.created)
            if job.state != State.SUCCEEDED:
                sys.exit(FAILED)
        else:
            document = {**job_detail_to_json(job), "created": enqueued.created}
            self.show(document, lambda: self.stdout.write(str(job.pk)))
            self.say(f"{job.state} in queue {job.queue}")

    def _wait(self, job: Job) -> Job:
        """The job once it has ended. Ctrl-C ends the waiting, not the job."""
        pause = 0.05
        with self._progress() as draw:
            while job.state not in FINAL:
                draw(job)
                time.sleep(pause)
                pause = min(pause * 1.5, 1.0)
                job = find(job.pk)
        return job

    @contextmanager
    def _progress(self) -> Iterator[Callable[[Job], None]]:
        console = self.progress_console()
        if not console.is_terminal:
            yield lambda job: None
            return
        with console.status("") as status:
            yield lambda job: status.update(progress_line(job))

    # -- edit, requeue ----------------------------------------------------------------------------

    def _add_edit(self) -> None:
        parser = self.verb("edit", self.edit, "change a job that has not started")
        parser.add_argument("id", type=job_id)
        parser.add_argument("--queue")
        parser.add_argument("--priority", type=int, help="-100 runs first, 100 last")
        add_payload(parser)

    def edit(self, asked: Namespace) -> None:
        job = find(asked.id)
        given: dict[str, Any] = {
            name: getattr(asked, name)
            for name in ("queue", "priority")
            if getattr(asked, name) is not None
        }
        if asked.bytes_file:
            given["payload_bytes"] = read_file(asked.bytes_file, "bytes-file")
        elif asked.payload is not None or asked.payload_file:
            given["payload"] = read_payload(asked)
        if not given:
            raise UsageError("give --queue, --priority or a payload")
        edit(job, Changes(**given))
        self._show(job)

    def requeue(self, asked: Namespace) -> None:
        copies = [requeue(find(pk), by=operator()) for pk in asked.ids]
        items = [{"id": str(copy.pk), "copy_of": str(copy.copy_of)} for copy in copies]
        told = "\n".join(item["id"] for item in items)
        self.show({"items": items}, lambda: self.stdout.write(told))


# -- Jobs ------------------------------------------------------------------------------------------


def _down(pk: UUID, below: dict[UUID, list[Any]]) -> Iterator[Any]:
    """Each step, with those below it behind it, in the order of the definition."""
    for step in sorted(below.get(pk, ()), key=lambda step: (step.position, step.index, step.pk)):
        yield step
        yield from _down(step.job_id, below)


def first_line(text: str | None) -> str | None:
    return text.splitlines()[0][:80] if text else None


def progress_line(job: Job) -> str:
    line = f"{job.state}, attempt {job.attempts} of {job.max_attempts}"
    if job.state == State.RUNNING and job.progress_percent is not None:
        line += f", {job.progress_percent:.0f} % {printable(job.progress_note or '')}"
    return line.replace("[", r"\[")
