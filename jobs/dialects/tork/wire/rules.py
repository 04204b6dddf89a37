"""The rules of a definition, in the form in which the original tells what breaks them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jobs import cron, expressions
from jobs.dialects.tork.errors import refuse
from jobs.dialects.tork.wire.structs import JOB, ListOf, Struct
from jobs.dialects.tork.wire.times import parse_duration
from jobs.errors import InvalidCron

MAX_TOLD = 100
# Queues of the original's own: nobody puts tasks into them.
COORDINATOR_QUEUES = frozenset(
    {
        *("pending", "started", "completed", "error", "heartbeat", "jobs", "logs", "progress"),
        "redeliveries",
    }
)
PRIVATE_PREFIX = "x-"
_PATH = re.compile(r"[-/.0-9a-zA-Z_= ]+")
_NOT_COMPOSITE = {
    **{"image": "image", "cmd": "cmd", "entrypoint": "entrypoint", "run": "run", "env": "env"},
    **{"queue": "queue", "pre": "pre", "post": "post", "mounts": "mounts"},
}


@dataclass(frozen=True, slots=True)
class People:
    """Who may be named: as a user, as a role."""

    is_user: Callable[[str], bool]
    is_role: Callable[[str], bool]


def check(document: Mapping[str, Any], people: People, struct: Struct = JOB) -> None:
    """Refuse a definition that breaks rules; all of them are told."""
    told = []
    for path, name, tag in _Checker(people).struct(document, struct, struct.name):
        told.append(f"Key: '{path}' Error:Field validation for '{name}' failed on the '{tag}' tag")
        if len(told) == MAX_TOLD:
            break
    if told:
        refuse("\n".join(told))


Broken = tuple[str, str, str]


class _Checker:
    def __init__(self, people: People) -> None:
        self._people = people

    def struct(self, value: Mapping[str, Any], struct: Struct, path: str) -> Iterator[Broken]:
        for key, field in struct.fields.items():
            given = value.get(key)
            where = f"{path}.{field.go}"
            if tag := next((tag for tag in field.tags if _breaks(tag, given)), None):
                yield where, field.go, tag.partition("=")[0]
            elif given is None:
                continue
            elif isinstance(field.type, Struct):
                yield from self.struct(given, field.type, where)
            elif isinstance(field.type, ListOf):
                for index, item in enumerate(given):
                    yield from self.struct(item, field.type.of, f"{where}[{index}]")
        rules = getattr(self, f"_{struct.name.lower()}", None)
        if rules is not None:
            for name, tag in rules(value):
                yield f"{path}.{name}", name, tag

    def _task(self, task: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        parallel, each, subjob = (task.get(key) is not None for key in _FORMS)
        if parallel and each:
            yield from (("each", "paralleloreach"), ("parallel", "paralleloreach"))
        if parallel and subjob:
            yield from (("subjob", "parallelorsubjob"), ("parallel", "parallelorsubjob"))
        if each and subjob:
            yield from (("subjob", "eachorsubjob"), ("each", "eachorsubjob"))
        if parallel or each or subjob:
            for key, name in _NOT_COMPOSITE.items():
                if task.get(key):
                    yield name, "invalidcompositetask"
            for key in ("retry", "limits"):
                if task.get(key) is not None:
                    yield key, "invalidcompositetask"
            if task.get("timeout"):
                yield "timeout", "invalidcompositetask"

    def _mount(self, mount: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        kind, source, target = (mount.get(key) or "" for key in ("type", "source", "target"))
        if not kind:
            yield "mount", "typerequired"
        elif kind == "volume" and source:
            yield "mount", "sourcenotempty"
        elif kind == "volume" and not target:
            yield "mount", "targetrequired"
        elif kind == "bind" and not source:
            yield "mount", "sourcerequired"
        elif source and not _PATH.fullmatch(source):
            yield "mount", "invalidsource"
        elif target and (not _PATH.fullmatch(target) or target == "/tork"):
            yield "mount", "invalidtarget"

    def _permission(self, permission: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        user, role = permission.get("user"), permission.get("role")
        if bool(user) is bool(role):
            yield "perm", "roleoruser"
        if user and not self._people.is_user(user):
            yield "perm", "invalidusername"
        if role and not self._people.is_role(role):
            yield "perm", "invalidrole"


_FORMS = ("parallel", "each", "subjob")


def _breaks(tag: str, value: Any) -> bool:
    name, _, limit = tag.partition("=")
    if name == "required":
        # An empty list is there, and has too few.
        return value is None or (not isinstance(value, list) and not value)
    if name == "min":
        return (len(value) if isinstance(value, list) else value or 0) < int(limit)
    if name == "max":
        size = len(value) if isinstance(value, str) else value or 0
        return bool(size > int(limit))
    return bool(value) and not _FITS[name](value)


def is_task_queue(name: str) -> bool:
    return not name.startswith(PRIVATE_PREFIX) and name not in COORDINATOR_QUEUES


def _is_expression(text: str) -> bool:
    try:
        if "{{" in text:
            expressions.Template.parse(text)
        else:
            expressions.compile(text)
    except expressions.ExpressionError:
        return False
    return True


def _is_cron(text: str) -> bool:
    try:
        cron.parse(text)
    except InvalidCron:
        return False
    return True


_FITS: Mapping[str, Callable[[str], bool]] = {
    "duration": lambda text: parse_duration(text) is not None,
    "queue": is_task_queue,
    "expr": _is_expression,
    "cron": _is_cron,
}
