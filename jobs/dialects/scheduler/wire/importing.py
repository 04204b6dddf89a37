"""What an export holds, read again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from jobs.dialects.scheduler.wire.jobs import new_job_from_wire
from jobs.dialects.scheduler.wire.reading import Reader, read_text, refuse
from jobs.dialects.scheduler.wire.timing import (
    MAX_PREREQUISITES,
    dependencies_from_wire,
    exclusions_from_wire,
)
from jobs.dialects.scheduler.wire.words import CONDITIONS
from jobs.models import Schedule
from jobs.models.schedule import MAX_NAME_LENGTH
from jobs.models.schedule_queryset import ScheduleQuerySet
from jobs.secrets import masks_left

# What becomes of a job whose name is taken.
MODES = ("skip", "upsert", "rename")


@dataclass(slots=True)
class Item:
    name: str
    values: dict[str, Any]
    created_by: str | None
    # Of the values those that a change of a job does not know.
    rules: dict[str, Any]
    # Members whose value is a mask.
    masked: list[str]


@dataclass(slots=True)
class Report:
    created: int = 0
    updated: int = 0
    skipped: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[dict[str, Any]] = field(default_factory=list)

    def refuse(self, index: int, item: Any, errors: dict[str, list[str]]) -> None:
        self.errors.append({"index": index, "name": _name_of(item), "errors": errors})

    def warn(self, index: int, item: Any, text: str) -> None:
        self.warnings.append({"index": index, "name": _name_of(item), "message": text})

    def to_wire(self) -> dict[str, Any]:
        return {
            "created": self.created,
            "updated": self.updated,
            "skipped": self.skipped,
            "errors": self.errors,
            "warnings": self.warnings,
        }


class Names:
    """Whose names are taken, asked of the database once for all items of an import."""

    def __init__(self, rows: ScheduleQuerySet, items: Iterable[Any]) -> None:
        self._rows = rows
        names = (_name_of(item) for item in items)
        asked = rows.named(name.strip() for name in names if name is not None)
        self._keys = {name: one.key for name, one in asked.items()}
        self._taken = {one.key: one.id for one in asked.values() if one.id is not None}
        # Of a name the number that is tried next.
        self._next: dict[str, int] = {}

    def find(self, name: str) -> UUID | None:
        return self._taken.get(self._keys.get(name, ""))

    def add(self, schedule: Schedule) -> None:
        if (key := self._keys.get(schedule.name)) is not None:
            self._taken[key] = schedule.pk

    def free(self, name: str) -> str:
        """The name with the first number behind it that is free."""
        key = self._keys[name]
        number = self._next.get(key, 2)
        while True:
            suffix = f" ({number})"
            wanted = name[: MAX_NAME_LENGTH - len(suffix)] + suffix
            number += 1
            found = self._rows.named([wanted])[wanted]
            if found.id is None:
                self._keys[wanted], self._next[key] = found.key, number
                return wanted


def _name_of(item: Any) -> str | None:
    name = Reader(item).raw("name")
    return name if isinstance(name, str) else None


def read_item(item: Any) -> Item:
    """One job of an import, with its exclusions."""
    values, created_by = new_job_from_wire(item, allow_masks=True)
    rules: dict[str, Any] = {}
    reader = Reader(item)
    exclusions = reader.reader("exclusions")
    if exclusions is not None:
        rules["exclusions"] = exclusions_from_wire(exclusions)
    reader.done()
    masked = masks_left(reader.raw("jobConfiguration"), "jobConfiguration")
    name = values.get("name", "").strip()
    return Item(name, values | rules, created_by, rules, masked)


def resolved(item: Any, rows: ScheduleQuerySet) -> tuple[list[UUID], str] | None:
    """The jobs that this one depends on, by their names here, or else by the ids they have."""
    reader = Reader(item)
    given = reader.reader("dependencies")
    reader.done()
    if given is None:
        return None
    names = given.items("dependsOnJobNames", read_text, MAX_PREREQUISITES)
    if not names:
        ids, needs = dependencies_from_wire(given)
        given.done()
        return ids, needs
    condition = given.choice("condition", tuple(CONDITIONS))
    given.need("condition")
    given.done()
    assert condition is not None
    found = {name: one.id for name, one in rows.named(names).items()}
    known = set(rows.filter(pk__in=[*filter(None, found.values())]).values_list("pk", flat=True))
    ids = []
    for index, name in enumerate(names):
        pk = found.get(name)
        if pk is None or pk not in known:
            refuse(f"dependencies.dependsOnJobNames[{index}]", "There is no job of this name.")
        ids.append(pk)
    return ids, CONDITIONS[condition].value
