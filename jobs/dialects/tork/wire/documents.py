"""Native definitions as this API shows them: what was not submitted here, and what steps have become."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jobs.dialects.tork.wire.definition import LENIENT
from jobs.dialects.tork.wire.times import duration_to_wire
from jobs.step_words import STEPS

# Objects whose names are the user's: there an empty text says something.
_MAPS = frozenset({"env", "files", "inputs", "secrets", "headers", "opts"})


def lean(value: Any) -> Any:
    """The value without what is empty, at every depth; texts in lists are kept whatever they are."""
    if isinstance(value, Mapping):
        found = {key: item if key in _MAPS else lean(item) for key, item in value.items()}
        return {key: item for key, item in found.items() if not _is_empty(item)}
    if isinstance(value, list):
        return [lean(item) for item in value]
    return value


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value in ("", 0, [], {})


def definition_to_wire(native: Mapping[str, Any]) -> dict[str, Any]:
    """A native definition in the words of this API, as far as it has any."""
    said: dict[str, Any] = lean(
        {
            **{key: native.get(key) for key in ("name", "description", "secrets", "output")},
            "inputs": _texts(native.get("inputs")),
            "defaults": _terms(native.get("defaults") or {}),
            "webhooks": [
                {key: hook.get(key) for key in ("url", "headers", "event", "if")}
                for hook in _list(native.get("webhooks"))
            ],
        }
    )
    return said | {"tasks": [step_to_wire(step) for step in _list(native.get("steps"))]}


def step_to_wire(step: Mapping[str, Any]) -> dict[str, Any]:
    """A step of a native definition as a task."""
    said: dict[str, Any] = {
        **{key: step.get(key) for key in ("name", "description", "var", "if", "tags")},
        **_terms(step),
    }
    if step.get("parallel") is not None:
        said = _bare(said) | {"parallel": {"tasks": [*map(step_to_wire, step["parallel"])]}}
    elif step.get("each") is not None:
        said = _bare(said) | {"each": each_to_wire(step["each"])}
    elif step.get("subjob") is not None:
        said = _bare(said) | {"subjob": subjob_to_wire(step["subjob"])}
    else:
        said |= work_to_wire(step.get("kind") or "", step.get("payload"))
    return dict(lean(said))


def each_to_wire(each: Mapping[str, Any]) -> dict[str, Any]:
    listed = each.get("list")
    return {
        "var": each.get("var"),
        "list": listed if isinstance(listed, str) else None,
        "task": step_to_wire(each.get("step") or {}),
        "concurrency": each.get("concurrency"),
    }


def subjob_to_wire(native: Mapping[str, Any]) -> dict[str, Any]:
    said = definition_to_wire(native)
    said.pop("defaults", None)
    return said | ({"detached": True} if native.get("detached") else {})


def work_to_wire(kind: str, payload: Any) -> dict[str, Any]:
    """What a task does; of kinds that this API does not know it is not said."""
    if not isinstance(payload, dict):
        return {}
    if kind == STEPS:
        return {"subjob": subjob_to_wire(payload)}
    if kind == "shell":
        return _command(payload) | _around(payload)
    if kind == "container":
        keys = ("image", "cmd", "entrypoint", "run", "registry", "env", "files", "networks")
        said = {key: payload.get(key) for key in (*keys, "limits", "gpus", "workdir")}
        said["mounts"] = [
            {**{k: v for k, v in mount.items() if k != "options"}, "opts": mount.get("options")}
            for mount in _list(payload.get("mounts"))
        ]
        said["sidecars"] = [_auxiliary(one) for one in _list(payload.get("sidecars"))]
        return said | _around(payload)
    return {}


def _command(payload: Mapping[str, Any]) -> dict[str, Any]:
    script = payload.get("script")
    if isinstance(script, str):
        return {"run": script.removeprefix(LENIENT)}
    return {"cmd": payload.get("argv")}


def _around(payload: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "env": payload.get("env"),
        "files": payload.get("files"),
        **{key: [_auxiliary(one) for one in _list(payload.get(key))] for key in ("pre", "post")},
    }


def _auxiliary(one: Mapping[str, Any]) -> dict[str, Any]:
    said = {key: value for key, value in one.items() if key not in ("timeout_seconds", "probe")}
    if "script" in said or "argv" in said:
        said = {k: v for k, v in said.items() if k not in ("script", "argv")} | _command(one)
    if one.get("timeout_seconds"):
        said["timeout"] = duration_to_wire(one["timeout_seconds"])
    if isinstance(probe := one.get("probe"), dict):
        said["probe"] = {"path": probe.get("path"), "port": probe.get("port")}
        if probe.get("timeout_seconds"):
            said["probe"]["timeout"] = duration_to_wire(probe["timeout_seconds"])
    return said


def _terms(step: Mapping[str, Any]) -> dict[str, Any]:
    attempts, seconds, priority = (
        step.get(key) for key in ("max_attempts", "timeout_seconds", "priority")
    )
    return {
        "queue": step.get("queue"),
        # No more than the original's language can say, so that it may be submitted again.
        "retry": {"limit": min(attempts - 1, 10)} if attempts and attempts > 1 else None,
        "timeout": duration_to_wire(seconds) if seconds else None,
        "priority": min(-priority, 9) if priority and priority < 0 else None,
    }


def _bare(said: dict[str, Any]) -> dict[str, Any]:
    """What a composite task cannot say is left out."""
    return {key: item for key, item in said.items() if key not in ("queue", "retry", "timeout")}


def _texts(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {
        key: item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
        for key, item in value.items()
    }


def _list(value: Any) -> list[Any]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
