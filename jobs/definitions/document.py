"""What may stand in a file of definitions, and what is wrong with one, each with its place."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from jobs.errors import JobError
from jobs.models import Calendar, Queue, Schedule, Timing, Workflow, WorkflowNode
from jobs.models.queue_policies import POLICIES

SECTIONS = ("queues", "calendars", "schedules", "workflows")
MOMENTS = ("run_at", "anchor_at", "starts_at", "ends_at")
WHEN = {
    "expression": Timing.CRON,
    "interval_seconds": Timing.INTERVAL,
    "run_at": Timing.ONCE,
}
_NUMBER = (int, float)
# In the order in which they are written. Names that differ from the column's are in COLUMNS.
SCHEDULE: Mapping[str, Any] = {
    **{"description": str, "enabled": (bool, dict), "workflow": str, "kind": str, "type": str},
    **{"payload": object, "payload_base64": str, "has_variables": bool, "queue": str},
    **{"priority": int, "timeout_seconds": _NUMBER, "max_attempts": int},
    **{"expires_in_seconds": _NUMBER},
    **{"retry_base_seconds": _NUMBER, "retry_cap_seconds": _NUMBER, "retry_curve": str},
    **{"on_lost": str, "tags": list, "metadata": dict},
    **{"timing": str, "expression": str, "interval_seconds": _NUMBER, "run_at": str},
    **{"timezone": str, "anchor_at": str, "starts_at": str, "ends_at": str, "gap": str},
    **{"spread_seconds": _NUMBER, "exclusions": dict, "misfire": str},
    **{"misfire_grace_seconds": _NUMBER, "misfire_limit": int, "overlap": str, "needs": str},
    "depends_on": list,
}
COLUMNS = {"enabled": "is_enabled", "workflow": "workflow_id", "payload_base64": "payload_bytes"}
CALENDAR = {"description": str, "dates": list}
WORKFLOW = {"description": str, "nodes": list}
NODE = {"schedule": str, "depends_on": list, "on_failure": str}
QUEUE = {name: (policy.kind, _NUMBER)[policy.kind is float] for name, policy in POLICIES.items()}


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong: where, and what."""

    path: str
    text: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}"


class InvalidDefinitions(JobError):
    """The definitions cannot be applied; nothing was changed."""

    code = "invalid"

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)), field=self.problems[0].path)


@dataclass(slots=True)
class Definitions:
    """What files say, by section and name; of schedules and workflows by name in lower case too."""

    queues: dict[str, dict[str, Any]] = field(default_factory=dict)
    calendars: dict[str, dict[str, Any]] = field(default_factory=dict)
    schedules: dict[str, dict[str, Any]] = field(default_factory=dict)
    workflows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_document(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SECTIONS if getattr(self, name)}


def merge(documents: Iterable[tuple[str, Any]]) -> Definitions:
    """Put files together, each with its name; what is wrong with any of them is told at once."""
    found = Definitions()
    problems: list[Problem] = []
    places: dict[tuple[str, str], str] = {}
    for file, document in documents:
        if document is None:
            continue
        if not isinstance(document, dict):
            problems.append(Problem(file, f"must have some of {', '.join(SECTIONS)}"))
            continue
        for section, things in document.items():
            if section not in SECTIONS:
                problems.append(Problem(f"{section}", f"must be one of {', '.join(SECTIONS)}"))
            elif not isinstance(things, dict | None):
                problems.append(Problem(section, "must have names as keys"))
            else:
                _add(found, section, things or {}, file, places, problems)
    if problems:
        raise InvalidDefinitions(problems)
    return found


def _add(
    found: Definitions,
    section: str,
    things: Mapping[Any, Any],
    file: str,
    places: dict[tuple[str, str], str],
    problems: list[Problem],
) -> None:
    known: Mapping[str, Mapping[str, Any]]
    known = {"queues": QUEUE, "calendars": CALENDAR, "schedules": SCHEDULE, "workflows": WORKFLOW}
    for name, said in things.items():
        path = f"{section}.{name}"
        if not isinstance(name, str):
            problems.append(Problem(path, "a name is a text: put it in quotes"))
            continue
        folded = name.strip().lower() if section in ("schedules", "workflows") else name
        if (other := places.setdefault((section, folded), file)) != file or any(
            one != name and one.lower() == folded for one in getattr(found, section)
        ):
            problems.append(Problem(path, f"is defined twice (also in {other})"))
            continue
        if not isinstance(said, dict | None):
            problems.append(Problem(path, "must have settings as keys"))
            continue
        said = said or {}
        wrong = [*_wrong(path, said, known[section])]
        if section == "schedules":
            wrong += _wrong_schedule(path, said)
        elif section == "workflows":
            wrong += _wrong_nodes(path, said)
        problems += wrong
        getattr(found, section)[name] = said


def _wrong(path: str, said: Mapping[Any, Any], known: Mapping[str, Any]) -> Iterable[Problem]:
    for name, value in said.items():
        wanted = known.get(name)
        if wanted is None:
            yield Problem(f"{path}.{name}", "there is no such setting")
        elif value is None and name not in ("dates", "nodes", "enabled"):
            continue  # the same as leaving it out
        elif not isinstance(value, wanted) or (isinstance(value, bool) and not _takes(wanted)):
            yield Problem(f"{path}.{name}", f"must be {_word(wanted)}")


def _takes(wanted: Any) -> bool:
    return wanted is object or bool in (wanted if isinstance(wanted, tuple) else (wanted,))


def _word(wanted: Any) -> str:
    if wanted == _NUMBER:
        return "a number"
    words = {str: "a text", int: "a whole number", bool: "true or false", list: "a list"}
    return (
        words.get(wanted, "true, false, or one of them for each environment")
        if (wanted is not dict)
        else "settings with keys"
    )


def _wrong_schedule(path: str, said: Mapping[str, Any]) -> Iterable[Problem]:
    when = [name for name in WHEN if said.get(name) is not None]
    if len(when) != 1:
        told = "needs one of" if not when else "may have only one of"
        yield Problem(path, f"{told} {', '.join(WHEN)}")
    elif said.get("timing") not in (None, WHEN[when[0]]):
        yield Problem(f"{path}.timing", f"{when[0]} means {WHEN[when[0]].value}")
    for name in MOMENTS:
        if isinstance(said.get(name), str) and _moment(said[name]) is None:
            yield Problem(f"{path}.{name}", "is no time with an offset, such as 2030-01-31T12:00Z")
    if said.get("payload") is not None and said.get("payload_base64") is not None:
        yield Problem(f"{path}.payload_base64", "give this or payload, not both")
    elif isinstance(said.get("payload_base64"), str) and _bytes(said["payload_base64"]) is None:
        yield Problem(f"{path}.payload_base64", "is not base64")
    if isinstance(said.get("enabled"), dict):
        for environment, value in said["enabled"].items():
            if not isinstance(environment, str) or not isinstance(value, bool):
                yield Problem(f"{path}.enabled.{environment}", "must be true or false")
    yield from _wrong_names(path, "depends_on", said.get("depends_on"))
    yield from _wrong_names(path, "tags", said.get("tags"))


def _wrong_nodes(path: str, said: Mapping[str, Any]) -> Iterable[Problem]:
    nodes = said.get("nodes")
    for index, node in enumerate(nodes if isinstance(nodes, list) else ()):
        place = f"{path}.nodes.{index}"
        if not isinstance(node, dict):
            yield Problem(place, "must have schedule, depends_on, on_failure as keys")
            continue
        yield from _wrong(place, node, NODE)
        yield from _wrong_names(place, "depends_on", node.get("depends_on"))
        if "schedule" not in node:
            yield Problem(f"{place}.schedule", "is needed")
    if nodes is None:
        yield Problem(f"{path}.nodes", "is needed")


def _wrong_names(path: str, name: str, value: Any) -> Iterable[Problem]:
    for index, one in enumerate(value if isinstance(value, list) else ()):
        if not isinstance(one, str):
            yield Problem(f"{path}.{name}.{index}", "must be a text: put it in quotes")


# -- Values ----------------------------------------------------------------------------------------


def schedule_values(said: Mapping[str, Any], environment: str | None) -> dict[str, Any]:
    """What a file says of a schedule as columns, references left out; what it does not say is not
    there."""
    values: dict[str, Any] = {}
    for name, value in said.items():
        if value is None or name in ("timing", "workflow", "depends_on"):
            continue
        if name == "enabled":
            value = _chosen(value, environment)
            if value is None:
                continue
        elif name in MOMENTS:
            value = _moment(value)
        elif name == "payload_base64":
            value = _bytes(value)
        values[COLUMNS.get(name, name)] = value
    values["timing"] = next(WHEN[name].value for name in WHEN if said.get(name) is not None)
    return values


def _chosen(said: Any, environment: str | None) -> bool | None:
    """Whether a schedule is enabled here; None where the file leaves that alone."""
    if not isinstance(said, dict):
        return bool(said)
    return said.get(environment, said.get("default"))


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _bytes(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def default_of(
    model: type[Queue | Calendar | Schedule | Workflow | WorkflowNode], name: str
) -> Any:
    field: Any = model._meta.get_field(name)
    return field.get_default()
