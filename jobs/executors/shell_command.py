"""The payload of a ``shell`` job. Pure: it starts nothing and reads nothing.

    {"argv": ["/usr/bin/rsync", "-a", "in/", "out/"], "env": {"RSYNC_RSH": "ssh"}, "stdin": "text"}
    {"script": "curl -fsS https://example.com/report | gzip > report.gz"}

``argv`` is run as it is, no shell involved. ``script`` is run by ``/bin/sh -eu``: it ends at the first
command that fails and at the first variable that is not set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.errors import InvalidJob

KEYS = ("argv", "script", "env", "stdin")
MAX_ARGUMENTS = 1000
# Below what Linux takes for all arguments together, and for one of them.
MAX_ARGV_BYTES = 512 << 10
MAX_ARGUMENT_BYTES = 128 << 10
MAX_SCRIPT_BYTES = 256 << 10
MAX_STDIN_BYTES = 1 << 20
MAX_VARIABLES = 100
MAX_ENV_BYTES = 64 << 10

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# What a called system relies on, and what makes the loader run other code than the program's.
_RESERVED = re.compile(r"JOB_.*|IDEMPOTENCY_KEY|YARDMASTER_NODE|LD_.*")


@dataclass(frozen=True, slots=True)
class ShellCommand:
    # Exactly one of the two is set.
    argv: tuple[str, ...] | None
    script: str | None
    env: Mapping[str, str]
    stdin: str | None


def validate(payload: Any) -> None:
    """Raise ``InvalidJob``, naming the field, when no node could ever run this payload."""
    read(payload)


def read(payload: Any) -> ShellCommand:
    """Return the command a payload describes, or raise ``InvalidJob``."""
    if not isinstance(payload, dict):
        raise InvalidJob("the payload of a shell job is an object", field="payload")
    for key in payload:
        if key not in KEYS:
            raise InvalidJob(
                f"unknown; a shell job has {', '.join(KEYS)}", field=f"payload.{str(key)[:40]}"
            )
    if ("argv" in payload) == ("script" in payload):
        raise InvalidJob("give either argv or script", field="payload")
    argv = script = stdin = None
    if "argv" in payload:
        argv = _read_argv(payload["argv"])
    else:
        script = _read_text(payload["script"], MAX_SCRIPT_BYTES, "payload.script")
        if not script.strip():
            raise InvalidJob("the script is empty", field="payload.script")
    if "stdin" in payload:
        stdin = _read_text(payload["stdin"], MAX_STDIN_BYTES, "payload.stdin", may_have_nul=True)
    return ShellCommand(argv, script, _read_env(payload.get("env", {})), stdin)


def _read_argv(argv: Any) -> tuple[str, ...]:
    field = "payload.argv"
    if not isinstance(argv, list) or not 1 <= len(argv) <= MAX_ARGUMENTS:
        raise InvalidJob(f"a list of 1 to {MAX_ARGUMENTS} strings", field=field)
    arguments = tuple(
        _read_text(argument, MAX_ARGUMENT_BYTES - 1, f"{field}.{index}")
        for index, argument in enumerate(argv)
    )
    if not arguments[0]:
        raise InvalidJob("the first one is the program to run", field=field)
    if sum(len(argument.encode()) + 1 for argument in arguments) > MAX_ARGV_BYTES:
        raise InvalidJob(f"at most {MAX_ARGV_BYTES} bytes", field=field)
    return arguments


def _read_env(env: Any) -> dict[str, str]:
    field = "payload.env"
    if not isinstance(env, dict) or len(env) > MAX_VARIABLES:
        raise InvalidJob(f"an object of at most {MAX_VARIABLES} variables", field=field)
    size = 0
    for name, value in env.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InvalidJob(f"{str(name)[:40]!r} is not the name of a variable", field=field)
        if _RESERVED.fullmatch(name):
            raise InvalidJob("this variable cannot be set", field=f"{field}.{name[:40]}")
        size += len(name) + len(_read_text(value, MAX_ENV_BYTES, f"{field}.{name[:40]}").encode())
    if size > MAX_ENV_BYTES:
        raise InvalidJob(f"at most {MAX_ENV_BYTES} bytes", field=field)
    return dict(env)


def _read_text(value: Any, most: int, field: str, *, may_have_nul: bool = False) -> str:
    if not isinstance(value, str):
        raise InvalidJob("a string", field=field)
    try:
        size = len(value.encode())
    except UnicodeEncodeError:
        raise InvalidJob("not Unicode text: it holds half a character", field=field) from None
    if size > most:
        raise InvalidJob(f"at most {most} bytes", field=field)
    if "\0" in value and not may_have_nul:
        raise InvalidJob("a NUL character cannot be passed on", field=field)
    return value
