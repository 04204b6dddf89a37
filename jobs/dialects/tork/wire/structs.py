"""What a definition may say: its structures, in the order in which the original looks at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

STRING, INT, BOOL = "string", "int", "bool"
STRINGS, MAP = "[]string", "map[string]string"


@dataclass(frozen=True, eq=False)
class Struct:
    """An object with these members, as the original calls it in its refusals."""

    name: str
    fields: dict[str, Field] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"input.{self.name}"


class ListOf(NamedTuple):
    of: Struct

    def __str__(self) -> str:
        return f"[]{self.of}"


Type = str | Struct | ListOf


class Field(NamedTuple):
    """One member: the original's name of it, its type, and the tags that are tried in turn."""

    go: str
    type: Type
    tags: tuple[str, ...] = ()


def _struct(name: str, fields: Mapping[str, Field]) -> Struct:
    return Struct(name, dict(fields))


REGISTRY = _struct(
    "Registry", {"username": Field("Username", STRING), "password": Field("Password", STRING)}
)
RETRY = _struct("Retry", {"limit": Field("Limit", INT, ("required", "min=1", "max=10"))})
LIMITS = _struct("Limits", {"cpus": Field("CPUs", STRING), "memory": Field("Memory", STRING)})
MOUNT = _struct(
    "Mount",
    {
        "type": Field("Type", STRING),
        "source": Field("Source", STRING),
        "target": Field("Target", STRING),
        "opts": Field("Opts", MAP),
    },
)
PROBE = _struct(
    "Probe",
    {
        "path": Field("Path", STRING, ("required", "max=256")),
        "port": Field("Port", INT, ("required", "min=1", "max=65535")),
        "timeout": Field("Timeout", STRING, ("duration",)),
    },
)
_AUXILIARY = {
    "name": Field("Name", STRING, ("required",)),
    "description": Field("Description", STRING),
    "cmd": Field("CMD", STRINGS),
    "entrypoint": Field("Entrypoint", STRINGS),
    "run": Field("Run", STRING),
    "image": Field("Image", STRING),
    "registry": Field("Registry", REGISTRY),
    "env": Field("Env", MAP),
    "files": Field("Files", MAP),
    "timeout": Field("Timeout", STRING, ("duration",)),
}
AUXILIARY = _struct("AuxTask", _AUXILIARY)
SIDECAR = _struct("SidecarTask", {**_AUXILIARY, "probe": Field("Probe", PROBE)})
WEBHOOK = _struct(
    "Webhook",
    {
        "url": Field("URL", STRING, ("required",)),
        "headers": Field("Headers", MAP),
        "event": Field("Event", STRING),
        "if": Field("If", STRING, ("expr",)),
    },
)
PERMISSION = _struct("Permission", {"user": Field("User", STRING), "role": Field("Role", STRING)})
AUTO_DELETE = _struct("AutoDelete", {"after": Field("After", STRING, ("duration",))})
DEFAULTS = _struct(
    "Defaults",
    {
        "retry": Field("Retry", RETRY),
        "limits": Field("Limits", LIMITS),
        "timeout": Field("Timeout", STRING, ("duration",)),
        "queue": Field("Queue", STRING, ("queue",)),
        "priority": Field("Priority", INT, ("min=0", "max=9")),
    },
)
TASK, PARALLEL, EACH, SUBJOB = (Struct(name) for name in ("Task", "Parallel", "Each", "SubJob"))
TASK.fields.update(
    {
        "name": Field("Name", STRING, ("required",)),
        "description": Field("Description", STRING),
        "cmd": Field("CMD", STRINGS),
        "entrypoint": Field("Entrypoint", STRINGS),
        "run": Field("Run", STRING),
        "image": Field("Image", STRING),
        "registry": Field("Registry", REGISTRY),
        "env": Field("Env", MAP),
        "files": Field("Files", MAP),
        "queue": Field("Queue", STRING, ("queue",)),
        "pre": Field("Pre", ListOf(AUXILIARY)),
        "post": Field("Post", ListOf(AUXILIARY)),
        "sidecars": Field("Sidecars", ListOf(SIDECAR)),
        "mounts": Field("Mounts", ListOf(MOUNT)),
        "networks": Field("Networks", STRINGS),
        "retry": Field("Retry", RETRY),
        "limits": Field("Limits", LIMITS),
        "timeout": Field("Timeout", STRING, ("duration",)),
        "var": Field("Var", STRING, ("max=64",)),
        "if": Field("If", STRING, ("expr",)),
        "parallel": Field("Parallel", PARALLEL),
        "each": Field("Each", EACH),
        "subjob": Field("SubJob", SUBJOB),
        "gpus": Field("GPUs", STRING),
        "tags": Field("Tags", STRINGS),
        "workdir": Field("Workdir", STRING, ("max=256",)),
        "priority": Field("Priority", INT, ("min=0", "max=9")),
    }
)
PARALLEL.fields["tasks"] = Field("Tasks", ListOf(TASK), ("required", "min=1"))
EACH.fields.update(
    {
        "var": Field("Var", STRING, ("max=64",)),
        "list": Field("List", STRING, ("required", "expr")),
        "task": Field("Task", TASK, ("required",)),
        "concurrency": Field("Concurrency", INT, ("min=0", "max=99999")),
    }
)
SUBJOB.fields.update(
    {
        # Accepted and without effect.
        "id": Field("ID", STRING),
        "name": Field("Name", STRING, ("required",)),
        "description": Field("Description", STRING),
        "tasks": Field("Tasks", ListOf(TASK), ("required",)),
        "inputs": Field("Inputs", MAP),
        "secrets": Field("Secrets", MAP),
        "autoDelete": Field("AutoDelete", AUTO_DELETE),
        "output": Field("Output", STRING, ("expr",)),
        "detached": Field("Detached", BOOL),
        "webhooks": Field("Webhooks", ListOf(WEBHOOK)),
    }
)
_JOB = {
    "name": Field("Name", STRING, ("required", "max=256")),
    "description": Field("Description", STRING),
    "tags": Field("Tags", STRINGS),
    "tasks": Field("Tasks", ListOf(TASK), ("required", "min=1")),
    "inputs": Field("Inputs", MAP),
    "secrets": Field("Secrets", MAP),
    "output": Field("Output", STRING, ("expr",)),
    "defaults": Field("Defaults", DEFAULTS),
    "webhooks": Field("Webhooks", ListOf(WEBHOOK)),
    "permissions": Field("Permissions", ListOf(PERMISSION)),
    "autoDelete": Field("AutoDelete", AUTO_DELETE),
}
JOB = _struct(
    "Job", {**_JOB, "wait": Field("Wait", _struct("Wait", {"timeout": Field("Timeout", STRING)}))}
)
SCHEDULE = _struct("Schedule", {"cron": Field("Cron", STRING, ("required", "cron"))})
SCHEDULED_JOB = _struct(
    "ScheduledJob",
    {
        **_JOB,
        "name": Field("Name", STRING, ("required", "max=64")),
        "schedule": Field("Schedule", SCHEDULE, ("required",)),
    },
)
USER = _struct(
    "User",
    {
        "name": Field("Name", STRING),
        "username": Field("Username", STRING),
        "password": Field("Password", STRING),
    },
)
