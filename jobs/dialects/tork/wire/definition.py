"""A definition of this API as a native one, which nodes run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jobs.dialects.tork.errors import refuse
from jobs.dialects.tork.wire.times import parse_duration
from jobs.engine.new_job import MAX_TIMEOUT_SECONDS
from jobs.models.queue import DEFAULT_QUEUE

# Names that programs written for this API know, and what nodes call the same.
ALIASES = {"TORK_OUTPUT": "JOB_OUTPUT", "TORK_PROGRESS": "JOB_PROGRESS"}
# The original's shell goes on after a command that failed, and knows empty variables.
LENIENT = "set +eu\n"
# What programs in the shell of a node cannot have, and how it is said.
_NOT_IN_SHELL = {
    "mounts": "mounts are",
    "entrypoint": "entrypoint is",
    "limits": "limits are",
    "networks": "networks are",
    "registry": "registry is",
    "sidecars": "sidecars are",
    "gpus": "gpus are",
    "workdir": "workdir is",
}


def to_native(document: Mapping[str, Any]) -> dict[str, Any]:
    """The payload of the job; the document breaks no rule."""
    defaults = document.get("defaults") or {}
    native: dict[str, Any] = {
        "steps": [_step(task, defaults) for task in document["tasks"]],
        "create_queues": True,
        "dialect": "tork",
    }
    for key in ("name", "description", "inputs", "secrets", "output"):
        if document.get(key):
            native[key] = document[key]
    if webhooks := document.get("webhooks"):
        native["webhooks"] = [{**_filled(webhook), "format": "tork"} for webhook in webhooks]
    return native


def seconds_of(text: str | None) -> float | None:
    """Seconds of a duration; nothing and less is none."""
    seconds = parse_duration(text) if text else None
    return seconds if seconds and seconds > 0 else None


def _step(task: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    step = {key: task[key] for key in ("name", "description", "var", "if", "tags") if task.get(key)}
    priority = task.get("priority") or defaults.get("priority")
    if priority:
        # Theirs run the higher number first.
        step["priority"] = -priority
    if task.get("parallel") is not None:
        step["parallel"] = [_step(one, defaults) for one in task["parallel"]["tasks"]]
    elif task.get("each") is not None:
        each = task["each"]
        step["each"] = {"list": each["list"], "step": _step(each["task"], defaults)}
        step["each"] |= {key: each[key] for key in ("var", "concurrency") if each.get(key)}
    elif task.get("subjob") is not None:
        step["subjob"] = to_native(task["subjob"])
        if task["subjob"].get("detached"):
            step["subjob"]["detached"] = True
    else:
        return step | _work(task, defaults)
    # They wait for others, as long as it takes, and are not tried again themselves.
    return step | {"max_attempts": 1, "timeout_seconds": MAX_TIMEOUT_SECONDS}


def _work(task: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    retry = (task.get("retry") or {}).get("limit") or (defaults.get("retry") or {}).get("limit")
    work: dict[str, Any] = {
        "queue": task.get("queue") or defaults.get("queue") or DEFAULT_QUEUE,
        "max_attempts": 1 + (retry or 0),
        "retry_base_seconds": 0,
    }
    timeout = seconds_of(task.get("timeout")) or seconds_of(defaults.get("timeout"))
    if timeout is not None:
        work["timeout_seconds"] = timeout
    if task.get("image"):
        return work | {"kind": "container", "payload": _container(task, defaults)}
    return work | {"kind": "shell", "payload": _shell(task)}


def _container(task: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    payload = _program(task)
    limits = _filled({**(defaults.get("limits") or {}), **_filled(task.get("limits") or {})})
    if limits:
        payload["limits"] = limits
    for key in ("networks", "gpus"):
        if task.get(key):
            payload[key] = task[key]
    if mounts := task.get("mounts"):
        payload["mounts"] = [_mount(mount) for mount in mounts]
    for key in ("pre", "post"):
        if task.get(key):
            payload[key] = [_timed(one) for one in task[key]]
    if sidecars := task.get("sidecars"):
        payload["sidecars"] = [_sidecar(one) for one in sidecars]
    payload["aliases"] = _aliases(task)
    return payload


def _program(task: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("image", "run", "cmd", "entrypoint", "env", "files", "workdir")
    program = {key: task[key] for key in keys if task.get(key)}
    if registry := _filled(task.get("registry") or {}):
        program["registry"] = registry
    return program


def _timed(one: Mapping[str, Any]) -> dict[str, Any]:
    program = {"name": one["name"], **_program(one)}
    if timeout := seconds_of(one.get("timeout")):
        program["timeout_seconds"] = timeout
    return program


def _sidecar(one: Mapping[str, Any]) -> dict[str, Any]:
    program = {"name": one["name"], **_program(one)}
    if (probe := one.get("probe")) is not None:
        program["probe"] = {"path": probe["path"], "port": probe["port"]}
        if timeout := seconds_of(probe.get("timeout")):
            program["probe"]["timeout_seconds"] = timeout
    return program


def _mount(mount: Mapping[str, Any]) -> dict[str, Any]:
    native = {key: mount[key] for key in ("type", "source", "target") if mount.get(key)}
    if mount.get("opts"):
        native["options"] = mount["opts"]
    return native


def _shell(task: Mapping[str, Any]) -> dict[str, Any]:
    payload = _command(task)
    for key in ("env", "files"):
        if task.get(key):
            payload[key] = task[key]
    for key in ("pre", "post"):
        if task.get(key):
            payload[key] = [_shell_step(one) for one in task[key]]
    payload["aliases"] = _aliases(task)
    return payload


def _shell_step(one: Mapping[str, Any]) -> dict[str, Any]:
    if one.get("image"):
        refuse("image is not supported on shell runtime")
    if one.get("files"):
        refuse("files of pre and post are not supported on shell runtime")
    step = {"name": one["name"], **_command(one)}
    if one.get("env"):
        step["env"] = one["env"]
    if timeout := seconds_of(one.get("timeout")):
        step["timeout_seconds"] = timeout
    return step


def _command(task: Mapping[str, Any]) -> dict[str, Any]:
    for key, said in _NOT_IN_SHELL.items():
        if task.get(key):
            refuse(f"{said} not supported on shell runtime")
    if task.get("cmd"):
        if task.get("run"):
            refuse("cmd is not supported on shell runtime")
        return {"argv": task["cmd"]}
    return {"script": LENIENT + (task.get("run") or "")}


def _aliases(task: Mapping[str, Any]) -> dict[str, str]:
    return {name: meant for name, meant in ALIASES.items() if name not in (task.get("env") or {})}


def _filled(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: item for key, item in value.items() if item}
