"""Fields that kinds which run programs have in common: text, arguments, variables, files. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from jobs.errors import InvalidJob

MAX_ARGUMENTS = 1000
# Below what Linux takes for all arguments together, and for one of them.
MAX_ARGV_BYTES = 512 << 10
MAX_ARGUMENT_BYTES = 128 << 10
MAX_SCRIPT_BYTES = 256 << 10
MAX_VARIABLES = 100
MAX_ENV_BYTES = 64 << 10
MAX_FILES = 100
MAX_FILES_BYTES = 1 << 20
MAX_ALIASES = 10
MAX_COMMANDS = 20
MAX_SECONDS = 7 * 86400.0
MAX_SIZE = 1 << 50

# What a program may tell by writing into a file; the values of ``aliases``.
OUTPUT, PROGRESS = "JOB_OUTPUT", "JOB_PROGRESS"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 10, "m": 20, "g": 30, "t": 40}
# What a called system relies on, and what says whose a program is.
RESERVED = re.compile(r"JOB_.*|IDEMPOTENCY_KEY|YARDMASTER_NODE")


def read_object(value: Any, known: Sequence[str], field: str, what: str) -> dict[str, Any]:
    """Return an object that has no other keys than these."""
    if not isinstance(value, dict):
        raise InvalidJob(f"{what} is an object", field=field)
    for key in value:
        if key not in known:
            raise InvalidJob(
                f"unknown; {what} has {', '.join(known)}", field=f"{field}.{str(key)[:40]}"
            )
    return value


def read_text(value: Any, most: int, field: str, *, may_have_nul: bool = False) -> str:
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


def read_script(value: Any, field: str) -> str:
    script = read_text(value, MAX_SCRIPT_BYTES, field)
    if not script.strip():
        raise InvalidJob("the script is empty", field=field)
    return script


def read_argv(argv: Any, field: str) -> tuple[str, ...]:
    if not isinstance(argv, list) or not 1 <= len(argv) <= MAX_ARGUMENTS:
        raise InvalidJob(f"a list of 1 to {MAX_ARGUMENTS} strings", field=field)
    arguments = tuple(
        read_text(argument, MAX_ARGUMENT_BYTES - 1, f"{field}.{index}")
        for index, argument in enumerate(argv)
    )
    if not arguments[0]:
        raise InvalidJob("the first one is the program to run", field=field)
    if sum(len(argument.encode()) + 1 for argument in arguments) > MAX_ARGV_BYTES:
        raise InvalidJob(f"at most {MAX_ARGV_BYTES} bytes", field=field)
    return arguments


def read_env(env: Any, field: str, reserved: re.Pattern[str] = RESERVED) -> dict[str, str]:
    if not isinstance(env, dict) or len(env) > MAX_VARIABLES:
        raise InvalidJob(f"an object of at most {MAX_VARIABLES} variables", field=field)
    size = 0
    for name, value in env.items():
        _check_variable(name, field, reserved)
        size += len(name) + len(read_text(value, MAX_ENV_BYTES, f"{field}.{name[:40]}").encode())
    if size > MAX_ENV_BYTES:
        raise InvalidJob(f"at most {MAX_ENV_BYTES} bytes", field=field)
    return dict(env)


def _check_variable(name: Any, field: str, reserved: re.Pattern[str]) -> None:
    if not isinstance(name, str) or not _VARIABLE.fullmatch(name):
        raise InvalidJob(f"{str(name)[:40]!r} is not the name of a variable", field=field)
    if reserved.fullmatch(name):
        raise InvalidJob("this variable cannot be set", field=f"{field}.{name[:40]}")


def read_aliases(
    aliases: Any, env: Mapping[str, str], field: str, reserved: re.Pattern[str] = RESERVED
) -> dict[str, str]:
    """Return further names of variables for the files in which a program tells its output."""
    if not isinstance(aliases, dict) or len(aliases) > MAX_ALIASES:
        raise InvalidJob(f"an object of at most {MAX_ALIASES} variables", field=field)
    for name, meant in aliases.items():
        _check_variable(name, field, reserved)
        if meant not in (OUTPUT, PROGRESS):
            raise InvalidJob(f"{OUTPUT} or {PROGRESS}", field=f"{field}.{name[:40]}")
        if name in env:
            raise InvalidJob("env sets this variable too", field=f"{field}.{name[:40]}")
    return dict(aliases)


def read_files(files: Any, field: str) -> dict[str, str]:
    """Return texts by the name of the file that will hold each."""
    if not isinstance(files, dict) or len(files) > MAX_FILES:
        raise InvalidJob(f"an object of at most {MAX_FILES} files", field=field)
    size = 0
    for name, text in files.items():
        where = f"{field}.{str(name)[:40]}"
        read_text(name, 255, where)
        if not name or name in (".", "..") or "/" in name:
            raise InvalidJob("the name of one file, without a directory", field=where)
        size += len(read_text(text, MAX_FILES_BYTES, where, may_have_nul=True).encode())
    if size > MAX_FILES_BYTES:
        raise InvalidJob(f"at most {MAX_FILES_BYTES} bytes", field=field)
    return dict(files)


def read_list(value: Any, most: int, field: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise InvalidJob(f"a list of at most {most}", field=field)
    return value


def read_name(value: Any, field: str) -> str:
    name = read_text(value, 256, field)
    if not name.strip():
        raise InvalidJob("a name", field=field)
    return name


def read_seconds(value: Any, field: str) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value <= MAX_SECONDS:
        raise InvalidJob(f"a number of seconds above 0, at most {MAX_SECONDS:g}", field=field)
    return float(value)


def read_size(value: Any, field: str, least: int = 1) -> int:
    """Return a size such as 200m, or a whole number, in bytes."""
    size = 0.0
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif isinstance(value, str) and (found := _SIZE.fullmatch(value)):
        size = float(found[1]) * 2 ** _POWERS[found[2].lower()]
    if not least <= size <= MAX_SIZE:
        raise InvalidJob(f"a size such as 200m, at least {least} bytes", field=field)
    return int(size)
