"""What differs: changes as they are told, and the fields that they are about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from jobs.definitions.document import COLUMNS, WHEN
from jobs.engine.definition import COMPANION
from jobs.models import Schedule, Timing
from jobs.sealing import taken

CREATE, CHANGE, DELETE = "create", "change", "delete"


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that differs, with its fields as they are and as they are to be."""

    action: str
    section: str
    name: str
    fields: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        fields = [{"field": k, "old": old, "new": new} for k, (old, new) in self.fields.items()]
        return {
            "action": self.action,
            "section": self.section,
            "name": self.name,
            "fields": fields,
        }


@dataclass(slots=True)
class Outcome:
    """What differed, and what is worth knowing beside it."""

    changes: list[Change] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], default: Callable[[str], Any]
) -> dict[str, tuple[Any, Any]]:
    """Fields that are not the same, each as it is and as it is to be."""
    names = [*old, *(name for name in new if name not in old)]
    found = {}
    for name in names:
        pair = (
            old[name] if name in old else _default(default, name),
            new[name] if name in new else _default(default, name),
        )
        if pair[0] != pair[1]:
            found[name] = pair
    return found


def _default(default: Callable[[str], Any], name: str) -> Any:
    return None if name in ("depends_on", "workflow", "type", "name") else default(name)


def columns(draft: Schedule, differing: Mapping[str, Any]) -> dict[str, Any]:
    """What must be written for these fields: a timing as a whole, all else by itself."""
    values = {
        COLUMNS.get(name, name): getattr(draft, COLUMNS.get(name, name)) for name in differing
    }
    if not differing.keys().isdisjoint(WHEN):
        for name in WHEN:
            values.pop(name, None)
        companion = COMPANION[Timing(draft.timing)]
        values |= {"timing": draft.timing, companion: getattr(draft, companion)}
    if "payload" in values or "payload_bytes" in values:
        values |= {"payload": taken(draft.payload), "payload_bytes": draft.payload_bytes}
    if "workflow_id" in values:
        # From one kind of work to the other.
        values |= {"kind": draft.kind, "type": draft.type, "payload": taken(draft.payload)}
    return values


def dependants_first(
    rows: Sequence[Schedule], edges: Mapping[UUID, Sequence[UUID]]
) -> list[Schedule]:
    by_id = {one.pk: one for one in rows}
    found: dict[UUID, Schedule] = {}

    def visit(pk: UUID) -> None:
        for parent in edges.get(pk, ()):
            if parent in by_id and parent not in found:
                visit(parent)
        found.setdefault(pk, by_id[pk])

    for one in rows:
        visit(one.pk)
    return list(reversed(found.values()))
