"""What an export holds, read again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db.models.functions import Lower

from jobs.dialects.scheduler.wire.jobs import new_job_from_wire
from jobs.dialects.scheduler.wire.reading import Reader, read_text, refuse
from jobs.dialects.scheduler.wire.timing import (
    MAX_PREREQUISITES,
    dependencies_from_wire,
    exclusions_from_wire,
)
from jobs.dialects.scheduler.wire.words import CONDITIONS
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


def resolved(item: Any, rows: Any) -> tuple[list[UUID], str] | None:
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
    wanted = rows.annotate(lower=Lower("name")).filter(lower__in=[name.lower() for name in names])
    known = dict(wanted.values_list("lower", "pk"))
    for index, name in enumerate(names):
        if name.lower() not in known:
            refuse(f"dependencies.dependsOnJobNames[{index}]", "There is no job of this name.")
    return [known[name.lower()] for name in names], CONDITIONS[condition].value
