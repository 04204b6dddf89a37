"""The payload of a ``shell`` job. Pure: it starts nothing and reads nothing.

    {"argv": ["/usr/bin/rsync", "-a", "in/", "out/"], "env": {"RSYNC_RSH": "ssh"}, "stdin": "text"}
    {"script": "curl -fsS https://example.com/report | gzip > report.gz"}
    {"script": "sh tool > $JOB_OUTPUT", "files": {"tool": "…"}, "pre": [{"name": "get", "script": "…"}]}

``argv`` is run as it is, no shell involved. ``script`` is run by ``/bin/sh -eu``: it ends at the first
command that fails and at the first variable that is not set. ``files`` lie in the job's directory, to
read. ``pre`` runs before and ``post`` after it, in the same directory; ``post`` only when all went well.
``aliases`` gives further names to the variables ``JOB_OUTPUT`` and ``JOB_PROGRESS``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.errors import InvalidJob
from jobs.executors.command_fields import (
    MAX_COMMANDS,
    RESERVED,
    read_aliases,
    read_argv,
    read_env,
    read_files,
    read_list,
    read_name,
    read_object,
    read_script,
    read_seconds,
    read_text,
)

KEYS = ("argv", "script", "env", "stdin", "files", "pre", "post", "aliases")
STEP_KEYS = ("name", "argv", "script", "env", "timeout_seconds")
MAX_STDIN_BYTES = 1 << 20

# Also what makes the loader run other code than the program's.
_RESERVED = re.compile(f"{RESERVED.pattern}|LD_.*")


@dataclass(frozen=True, slots=True)
class ShellCommand:
    # Exactly one of the two is set.
    argv: tuple[str, ...] | None
    script: str | None
    env: Mapping[str, str]
    stdin: str | None = None
    # What a step of ``pre`` or ``post`` has besides.
    name: str = ""
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ShellWork:
    """All that one attempt runs, in this order: ``pre``, ``main``, ``post``."""

    pre: tuple[ShellCommand, ...]
    main: ShellCommand
    post: tuple[ShellCommand, ...]
    files: Mapping[str, str]
    aliases: Mapping[str, str]


def validate(payload: Any) -> None:
    """Raise ``InvalidJob``, naming the field, when no node could ever run this payload."""
    read(payload)


def read(payload: Any) -> ShellWork:
    """Return what a payload describes, or raise ``InvalidJob``."""
    read_object(payload, KEYS, "payload", "the payload of a shell job")
    stdin = None
    if "stdin" in payload:
        stdin = read_text(payload["stdin"], MAX_STDIN_BYTES, "payload.stdin", may_have_nul=True)
    argv, script = _read_program(payload, "payload")
    env = read_env(payload.get("env", {}), "payload.env", _RESERVED)
    return ShellWork(
        _read_steps(payload.get("pre", []), "payload.pre"),
        ShellCommand(argv, script, env, stdin),
        _read_steps(payload.get("post", []), "payload.post"),
        read_files(payload.get("files", {}), "payload.files"),
        read_aliases(payload.get("aliases", {}), env, "payload.aliases", _RESERVED),
    )


def _read_program(value: dict[str, Any], field: str) -> tuple[tuple[str, ...] | None, str | None]:
    if ("argv" in value) == ("script" in value):
        raise InvalidJob("give either argv or script", field=field)
    if "argv" in value:
        return read_argv(value["argv"], f"{field}.argv"), None
    return None, read_script(value["script"], f"{field}.script")


def _read_steps(steps: Any, field: str) -> tuple[ShellCommand, ...]:
    return tuple(
        _read_step(step, f"{field}.{index}")
        for index, step in enumerate(read_list(steps, MAX_COMMANDS, field))
    )


def _read_step(value: Any, field: str) -> ShellCommand:
    step = read_object(value, STEP_KEYS, field, "a step")
    argv, script = _read_program(step, field)
    return ShellCommand(
        argv,
        script,
        read_env(step.get("env", {}), f"{field}.env", _RESERVED),
        name=read_name(step["name"], f"{field}.name") if "name" in step else "",
        timeout_seconds=(
            read_seconds(step["timeout_seconds"], f"{field}.timeout_seconds")
            if "timeout_seconds" in step
            else None
        ),
    )
