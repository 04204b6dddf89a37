"""Look at the schedules of a cluster, pause and resume them, and run them now."""

from __future__ import annotations

import json
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import connections
from django.db.models import F
from django.db.models.functions import Lower

from clusters.management.base import UsageError, duration, moment, operator
from jobs.api.schedule_forms import ALL_KINDS, MAX_PREVIEW
from jobs.api.schedule_wire import (
    fire_to_json,
    missed_runs_to_json,
    occurrence_to_json,
    schedule_detail_to_json,
    schedule_to_json,
)
from jobs.api.schedules import listed
from jobs.engine import fires, missed, prerequisites, schedules
from jobs.engine.clock import database_now
from jobs.engine.edit import UNCHANGED
from jobs.errors import FireNotFound
from jobs.management.base import JobsCommand
from jobs.management.named import ABOUT_TARGET, find_schedule
from jobs.models import Fire, FireState, Misfire, Schedule, Source, Status, Timing

MAX_LISTED = 10_000
ORDERS: dict[str, tuple[Any, ...]] = {
    "created_at": ("-created_at", "-pk"),
    "name": (Lower("name"), "pk"),
    "next_run_at": (F("next_run_at").asc(nulls_last=True), "pk"),
}
FILTERS = (
    *("state", "kind", "type", "queue", "tag", "timing", "source", "search", "failing"),
    *("late", "missed"),
)


class Command(JobsCommand):
    help = "Look at the schedules of a cluster, pause and resume them, and run them now."

    def add_verbs(self) -> None:
        self._add_list()
        for name, run, about in (
            ("show", self.show_schedule, "one schedule with all of its definition"),
            ("next", self.next, "its next runs"),
            ("fires", self.fires, "what became of its instants, the newest first"),
            ("pause", self.pause, "leave out what is due from now on"),
            ("resume", self.resume, "let it go on"),
            ("trigger", self.trigger, "run it now"),
            ("skip-next", self.skip_next, "leave out its next run, and no other"),
            ("run-missed", self.run_missed, "run what was missed, or leave it out for good"),
        ):
            parser = self.verb(name, run, about)
            parser.add_argument("schedule", help=ABOUT_TARGET)
            if name == "next":
                parser.add_argument("--count", type=count, default=10, help="default 10")
            elif name == "fires":
                parser.add_argument("--limit", type=limit, default=50, help="default 50")
                parser.add_argument("--state", choices=FireState.values)
            elif name == "pause":
                add_pause(parser)
            elif name == "trigger":
                add_payload(parser)
            elif name == "skip-next":
                parser.add_argument("--reason", default="")
            elif name == "run-missed":
                add_missed(parser)
        pause_all = self.verb("pause-all", self.pause_all, "pause all that run")
        pause_all.add_argument("--reason", default="")
        self.verb("resume-all", self.resume_all, "resume those that were paused with all others")

    # -- Looking -----------------------------------------------------------------------------------

    def _add_list(self) -> None:
        parser = self.verb("list", self.list_schedules, "the schedules")
        parser.add_argument("--state", choices=Status.values)
        parser.add_argument("--kind", choices=ALL_KINDS)
        parser.add_argument("--type")
        parser.add_argument("--queue")
        parser.add_argument("--tag")
        parser.add_argument("--timing", choices=Timing.values)
        parser.add_argument("--source", choices=Source.values)
        parser.add_argument("--search", metavar="TEXT", help="part of the name or description")
        parser.add_argument(
            "--failing", action="store_true", default=None, help="whose last run failed"
        )
        parser.add_argument(
            "--late", action="store_true", default=None, help="whose next run has not begun in time"
        )
        parser.add_argument(
            "--missed", action="store_true", default=None, help="with runs that were missed"
        )
        parser.add_argument("--order", choices=[*ORDERS], default="name", help="default: name")
        parser.add_argument("--limit", type=limit, default=200, help="how many (default 200)")

    def list_schedules(self, asked: Namespace) -> None:
        words = {name: getattr(asked, name) for name in FILTERS}
        rows = listed({name: word for name, word in words.items() if word is not None})
        found = list(rows.order_by(*ORDERS[asked.order])[: asked.limit + 1])
        shown = found[: asked.limit]
        self.show(
            {"items": [schedule_to_json(one) for one in shown], "next": None, "previous": None},
            lambda: self.print_table(
                ("id", "name", "state", "timing", "zone", "next run", "last run", "last"),
                (
                    (
                        str(one.pk),
                        one.name,
                        str(one.status),
                        timing(one),
                        one.timezone,
                        one.next_run_at,
                        one.last_run_at,
                        one.last_state,
                    )
                    for one in shown
                ),
            ),
        )
        if len(found) > asked.limit:
            self.say("There are more: --limit, or a filter")

    def show_schedule(self, asked: Namespace) -> None:
        self._show(find_schedule(asked.schedule, with_deleted=True))

    def next(self, asked: Namespace) -> None:
        schedule = find_schedule(asked.schedule, with_deleted=True)
        found = schedules.next_runs(schedule, asked.count)
        self.show(
            {"items": [occurrence_to_json(one) for one in found]},
            lambda: self.print_table(
                ("due", "local", "clock change", "excluded"),
                (
                    (one.instant, str(one.local), one.is_on_clock_change, one.excluded)
                    for one in found
                ),
            ),
        )
        if schedule.status != Status.ENABLED:
            self.say(f"It is {schedule.status}: none of them will happen as things are.")

    def fires(self, asked: Namespace) -> None:
        schedule = find_schedule(asked.schedule, with_deleted=True)
        rows = Fire.objects.filter(schedule_id=schedule.pk)
        rows = rows.filter(state=asked.state) if asked.state else rows
        found = list(rows.order_by("-due_at")[: asked.limit])
        self.show(
            {"items": [fire_to_json(one) for one in found], "next": None, "previous": None},
            lambda: self.print_table(
                ("due", "state", "reason", "count", "job", "detail"),
                (
                    (
                        one.due_at,
                        str(one.state),
                        one.reason,
                        one.count,
                        str(one.job_id or one.workflow_run_id or ""),
                        one.detail,
                    )
                    for one in found
                ),
            ),
        )

    # -- Moves -------------------------------------------------------------------------------------

    def pause(self, asked: Namespace) -> None:
        self._show(pause(find_schedule(asked.schedule), asked))

    def resume(self, asked: Namespace) -> None:
        schedule = find_schedule(asked.schedule)
        self._show(schedules.resume(schedule.pk, by=operator()))

    def trigger(self, asked: Namespace) -> None:
        made = trigger(find_schedule(asked.schedule), asked)
        self.show(made, lambda: self.stdout.write(made["job_id"] or made["workflow_run_id"]))

    def skip_next(self, asked: Namespace) -> None:
        schedule = find_schedule(asked.schedule)
        self._show(missed.skip_next(schedule.pk, by=operator(), reason=asked.reason))

    def run_missed(self, asked: Namespace) -> None:
        schedule = find_schedule(asked.schedule)
        said = {"by": operator(), "reason": asked.reason}
        dealt = missed.run_missed(schedule.pk, _gap(schedule, asked), asked.which, **said)
        told = f"{dealt.runs} run, {dealt.left} left"
        self.show(missed_runs_to_json(dealt), lambda: self.stdout.write(told))

    def pause_all(self, asked: Namespace) -> None:
        done = schedules.pause_all(by=operator(), reason=asked.reason)
        self.show({"count": done}, lambda: self.stdout.write(f"{done} paused"))

    def resume_all(self, asked: Namespace) -> None:
        done = schedules.resume_all(by=operator())
        self.show({"count": done}, lambda: self.stdout.write(f"{done} resumed"))

    def _show(self, schedule: Schedule) -> None:
        document = schedule_detail_to_json(schedule, prerequisites.of(schedule))
        self.show(document, lambda: self.print_record(document))


# -- What the short commands share -----------------------------------------------------------------


def add_pause(parser: ArgumentParser) -> None:
    parser.add_argument("--reason", default="")
    end = parser.add_mutually_exclusive_group()
    end.add_argument("--until", type=moment, metavar="TIME", help="resume by itself then")
    end.add_argument("--for", type=duration, metavar="2h", dest="seconds", help="so long")


def add_payload(parser: ArgumentParser) -> None:
    parser.add_argument("--payload", metavar="JSON", help="in place of the schedule's")


def add_missed(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--which", choices=Misfire.values, required=True, help="all of them, the latest, or none"
    )
    parser.add_argument("--fire", type=UUID, metavar="ID", help="of the gap; the newest one")
    parser.add_argument("--reason", default="")


def _gap(schedule: Schedule, asked: Namespace) -> UUID:
    """The gap that is named, else the newest there is."""
    if asked.fire is not None:
        named: UUID = asked.fire
        return named
    gaps = Fire.objects.filter(schedule_id=schedule.pk, state=FireState.MISSED)
    newest = gaps.order_by("-due_at").values_list("pk", flat=True).first()
    if newest is None:
        raise FireNotFound("nothing of it was missed")
    return newest


def pause(schedule: Schedule, asked: Namespace) -> Schedule:
    until: datetime | None = asked.until
    if asked.seconds is not None:
        now = database_now(connections[str(schedule._state.db)])
        until = now + timedelta(seconds=asked.seconds)
    return schedules.pause(schedule.pk, by=operator(), reason=asked.reason, until=until)


def trigger(schedule: Schedule, asked: Namespace) -> dict[str, Any]:
    payload: Any = UNCHANGED
    if asked.payload is not None:
        try:
            payload = json.loads(asked.payload)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"the payload is not JSON: {error}", field="payload") from None
    made = fires.trigger(schedule.pk, by=operator(), payload=payload)
    run_id = made.workflow_run_id
    return {
        "job_id": str(made.job_id) if made.job_id else None,
        "workflow_run_id": str(run_id) if run_id else None,
    }


def timing(schedule: Schedule) -> str:
    """The timing in a word or two."""
    if schedule.timing == Timing.CRON:
        return schedule.expression or ""
    if schedule.timing == Timing.INTERVAL:
        return f"every {schedule.interval_seconds:g} s"
    return f"once, {schedule.run_at.astimezone(UTC):%Y-%m-%d %H:%M}Z" if schedule.run_at else "once"


def count(text: str) -> int:
    return _whole(text, MAX_PREVIEW)


def limit(text: str) -> int:
    return _whole(text, MAX_LISTED)


def _whole(text: str, most: int) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= most:
        return int(text)
    raise ArgumentTypeError(f"{text[:20]!r} is no number from 1 to {most}")
