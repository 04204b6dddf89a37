"""What operators name by its name or its id: schedules, workflows and queues."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from clusters.api.fields import parse_uuid
from clusters.management.base import NotFound, UsageError
from jobs.management.base import JobsCommand
from jobs.models import Queue, Schedule, Workflow

ABOUT_TARGET = "name or id"


class Target(NamedTuple):
    """A thing of one of several sorts."""

    sort: str
    thing: Any

    def __str__(self) -> str:
        pk = "" if isinstance(self.thing, Queue) else f" ({self.thing.pk})"
        return f"the {self.sort} {self.thing.name!r}{pk}"


def find_schedule(text: str, *, with_deleted: bool = False) -> Schedule:
    """A schedule by its name, in any case, or by its id; deleted ones by their id only."""
    found = _schedules(text, with_deleted=with_deleted)
    if not found:
        raise NotFound(f"there is no schedule {text[:100]!r}")
    return found[0]


def find_workflow(text: str) -> Workflow:
    """A workflow by its name, in any case, or by its id."""
    found = _workflows(text)
    if not found:
        raise NotFound(f"there is no workflow {text[:100]!r}")
    return found[0]


def find_one(text: str, sorts: Sequence[str]) -> Target:
    """The one thing of these sorts that is called so; refuses a name that several have."""
    found = [Target(sort, thing) for sort in sorts for thing in _SORTS[sort](text)]
    if not found:
        raise NotFound(f"there is no {' or '.join(sorts)} {text[:100]!r}")
    if len(found) > 1:
        named = " and ".join(map(str, found))
        raise UsageError(
            f"{text[:100]!r} is ambiguous: {named}; give an id, or say --sort", field="target"
        )
    return found[0]


def _schedules(text: str, *, with_deleted: bool = False) -> list[Schedule]:
    rows = Schedule.objects.all() if with_deleted else Schedule.objects.all().kept()
    key = _key(text)
    if key is not None and (found := list(rows.filter(pk=key))):
        return found
    return list(Schedule.objects.all().kept().filter(name__iexact=text))


def _workflows(text: str) -> list[Workflow]:
    rows, key = Workflow.objects.all().kept(), _key(text)
    if key is not None and (found := list(rows.filter(pk=key))):
        return found
    return list(rows.filter(name__iexact=text))


def _queues(text: str) -> list[Queue]:
    return list(Queue.objects.filter(name=text))


def _key(text: str) -> UUID | None:
    return parse_uuid(text)


_SORTS: dict[str, Callable[[str], list[Any]]] = {
    "schedule": _schedules,
    "workflow": _workflows,
    "queue": _queues,
}


class TargetCommand(JobsCommand):
    """A command without verbs, about one thing of several sorts."""

    sorts: tuple[str, ...] = ()

    def shape(self, parser: ArgumentParser) -> None:
        parser.set_defaults(run=self.act)
        parser.add_argument("target", help=ABOUT_TARGET)
        parser.add_argument("--sort", choices=self.sorts, help="where several have the name")
        self.add_options(parser)
        self.add_common(parser)

    def add_options(self, parser: ArgumentParser) -> None:
        """Options of its own."""

    def act(self, asked: Namespace) -> None:
        raise NotImplementedError

    def target(self, asked: Namespace) -> Target:
        return find_one(asked.target, (asked.sort,) if asked.sort else self.sorts)
