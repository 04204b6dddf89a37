"""The payload of a ``procedure`` job: checked against what the configuration allows, by API and node.

    {"connection": "billing", "procedure": "reports.close_month", "parameters": {"month": "2026-01-01"},
     "timeout_seconds": 60, "max_rows": 100}

``timeout_seconds`` and ``max_rows`` may be left out, and so may ``parameters`` where none is needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.conf import settings

from jobs.errors import InvalidJob
from jobs.executors.procedure_catalog import (
    IN,
    OUT,
    Argument,
    Connection,
    Routine,
    full_name,
)

KEYS = ("connection", "procedure", "parameters", "timeout_seconds", "max_rows")
DEFAULT_ROWS = 1000
MOST_ROWS = 100_000
MAX_TIMEOUT_SECONDS = 604_800.0

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)?")


@dataclass(frozen=True, slots=True)
class Call:
    """One call. ``values`` go with the arguments they belong to, as texts for the server."""

    connection: Connection
    routine: Routine
    values: tuple[tuple[Argument, str | None], ...]
    timeout_seconds: float | None
    max_rows: int


def validate(payload: Any) -> None:
    """Raise ``InvalidJob``, naming the field, when this call is not allowed or not sound."""
    read(payload)


def read(payload: Any) -> Call:
    """Return the call a payload describes, or raise ``InvalidJob``."""
    if not isinstance(payload, dict):
        raise InvalidJob("the payload of a procedure job is an object", field="payload")
    for key in payload:
        if key not in KEYS:
            raise InvalidJob(
                f"unknown; a procedure job has {', '.join(KEYS)}",
                field=f"payload.{str(key)[:40]}",
            )
    connection = _read_connection(payload.get("connection"))
    routine = _read_routine(connection, payload.get("procedure"))
    return Call(
        connection,
        routine,
        _read_values(routine, payload.get("parameters", {})),
        _read_timeout(payload.get("timeout_seconds")),
        _read_rows(payload.get("max_rows", DEFAULT_ROWS)),
    )


def _read_connection(alias: Any) -> Connection:
    field = "payload.connection"
    connections: Mapping[str, Connection] = settings.PROCEDURES
    if not connections:
        raise InvalidJob("no procedures may be called here: none are configured", field=field)
    if not isinstance(alias, str):
        raise InvalidJob("the name of a configured connection", field=field)
    if alias not in connections:
        # Which there are is not told: whoever asks knows the one that is meant.
        raise InvalidJob(f"there is no connection {alias[:40]!r}", field=field)
    return connections[alias]


def _read_routine(connection: Connection, name: Any) -> Routine:
    field = "payload.procedure"
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidJob("the name of a procedure or function: schema.name", field=field)
    routine = connection.allowed.get(full_name(name))
    if routine is None:
        raise InvalidJob(
            f"{full_name(name)[:130]} is not allowed on {connection.alias}", field=field
        )
    return routine


def _read_values(routine: Routine, parameters: Any) -> tuple[tuple[Argument, str | None], ...]:
    if not isinstance(parameters, dict):
        raise InvalidJob("an object of names and values", field="payload.parameters")
    taken = {argument.name for argument in routine.arguments if argument.mode != OUT}
    for name in parameters:
        if name not in taken:
            raise InvalidJob(
                f"unknown; {routine.full_name} takes {', '.join(sorted(taken)) or 'none'}",
                field=f"payload.parameters.{str(name)[:63]}",
            )
    values: list[tuple[Argument, str | None]] = []
    for argument in routine.arguments:
        if argument.mode == OUT:
            # CALL has a place for it all the same.
            values.append((argument, None))
        elif argument.name in parameters:
            values.append((argument, _read_value(argument, parameters[argument.name])))
        elif not argument.is_optional:
            raise InvalidJob(
                f"{argument.type.name} is needed"
                + (" (null will do)" if argument.mode != IN else ""),
                field=f"payload.parameters.{argument.name}",
            )
    return tuple(values)


def _read_value(argument: Argument, value: Any) -> str | None:
    try:
        return argument.type.text(value)
    except ValueError as error:
        raise InvalidJob(
            f"expected {error} ({argument.type.name})",
            field=f"payload.parameters.{argument.name}",
        ) from None


def _read_timeout(value: Any) -> float | None:
    if value is None:
        return None
    is_number = type(value) in (int, float)
    if not is_number or not 0.1 <= value <= MAX_TIMEOUT_SECONDS:
        raise InvalidJob(
            f"a number of seconds from 0.1 to {MAX_TIMEOUT_SECONDS:g}",
            field="payload.timeout_seconds",
        )
    return float(value)


def _read_rows(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= MOST_ROWS:
        raise InvalidJob(f"a whole number up to {MOST_ROWS}", field="payload.max_rows")
    return value
