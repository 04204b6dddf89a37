"""``jobConfiguration``: one flat object whose members depend on the job's type, and our payloads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jobs.dialects.scheduler.wire import files
from jobs.dialects.scheduler.wire.reading import Reader, refuse
from jobs.dialects.scheduler.wire.words import JOB_TYPES
from jobs.models import Schedule
from jobs.secrets import masked, masks_left, unmasked

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH")
MAX_SECONDS = 7 * 86_400
# What a method is called in the name of a handler that has several.
_METHOD = "/"
JSON_CONTENT = "application/json"

Payload = dict[str, Any] | None


def configuration_from_wire(
    job_type: str, given: Any, stored: Schedule | None, *, allow_masks: bool = False
) -> dict[str, Any]:
    """What a schedule stores for this configuration. ``stored`` is the schedule as it is, whose secrets
    stand behind masks; with ``allow_masks`` those that nothing is known of are let through."""
    kind = JOB_TYPES[job_type]
    field = "jobConfiguration"
    if not isinstance(given, dict):
        refuse(field, "Must be an object.")
    if stored is not None and stored.kind == kind:
        given = unmasked(given, plain_configuration(stored))
    reader = Reader(given, field)
    if not allow_masks:
        _refuse_masks({name: reader.raw(name) for name in _MAY_HOLD_SECRETS[kind]}, field)
    values: dict[str, Any] = {"kind": kind, "payload_bytes": None, "has_variables": True}
    if kind == "python":
        values |= _code_from_wire(reader)
    elif kind == "files":
        payload, label = files.from_wire(reader)
        metadata = dict(stored.metadata) if stored is not None else {}
        metadata.pop(files.LABEL, None)
        values |= {
            "type": "files",
            "payload": payload,
            "metadata": {**metadata, **({files.LABEL: label} if label else {})},
        }
    else:
        values["payload"] = _FROM_WIRE[kind](reader)
        if stored is None or stored.kind != kind:
            values["type"] = kind
    reader.done()
    return values


def configuration_to_wire(schedule: Schedule) -> dict[str, Any]:
    """The configuration as it may be shown."""
    shown: dict[str, Any] = masked(plain_configuration(schedule))
    return shown


def plain_configuration(schedule: Schedule) -> dict[str, Any]:
    """The configuration with its secrets; it never leaves the program."""
    payload = schedule.payload if isinstance(schedule.payload, dict) else {}
    if schedule.kind == "python":
        return _code_to_wire(schedule)
    if schedule.kind == "files":
        return files.to_wire(payload, schedule.metadata.get(files.LABEL))
    return _TO_WIRE[schedule.kind](payload)


# Members of the other types are not looked at.
_MAY_HOLD_SECRETS: Mapping[str, tuple[str, ...]] = {
    "http": ("headers", "body"),
    "procedure": ("parameters",),
    "python": ("parameters",),
    "files": (),
}


def _refuse_masks(value: Any, field: str) -> None:
    if left := masks_left(value, field):
        refuse(left[0], "This is the mask of a secret; give its value.")


# -- HttpCall --------------------------------------------------------------------------------------


def _http_from_wire(reader: Reader) -> Payload:
    reader.need("url", "method")
    url = reader.text("url", most=2048)
    method = (reader.text("method", most=10) or "").upper()
    if "method" in reader and method not in METHODS:
        reader.refuse("method", f"Must be one of {', '.join(METHODS)}.")
    payload: dict[str, Any] = {"method": method, "url": url}
    headers = reader.object("headers")
    if headers:
        for name, value in headers.items():
            if not isinstance(value, str):
                reader.refuse(f"headers.{name[:100]}", "Must be a string.")
        payload["headers"] = headers
    body = reader.raw("body")
    if isinstance(body, str):
        # Sent as it is; what it is unless a header says so.
        payload |= {"body": body, "content_type": JSON_CONTENT}
    elif body is not None:
        payload["json"] = body
    if (seconds := reader.integer("timeoutSeconds", 1, MAX_SECONDS)) is not None:
        payload["timeout_seconds"] = seconds
    for name, ours in (
        ("successStatusCodes", "expected_status"),
        ("retryOnStatusCodes", "retry_status"),
    ):
        if codes := reader.items(name, _status, 50):
            payload[ours] = codes
    return payload


def _status(item: Any, field: str) -> int:
    if type(item) is not int or not 100 <= item <= 599:
        refuse(field, "Must be a status code from 100 to 599.")
    return item


def _http_to_wire(payload: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "url": payload.get("url"),
        "method": payload.get("method", "GET"),
        "headers": payload.get("headers") or {},
        "body": payload["json"] if "json" in payload else payload.get("body"),
    }
    if "timeout_seconds" in payload:
        shown["timeoutSeconds"] = payload["timeout_seconds"]
    if "expected_status" in payload:
        shown["successStatusCodes"] = payload["expected_status"]
    if "retry_status" in payload:
        shown["retryOnStatusCodes"] = payload["retry_status"]
    return shown


# -- StoredProcedure -------------------------------------------------------------------------------


def _procedure_from_wire(reader: Reader) -> Payload:
    reader.need("storedProcedureName")
    payload: dict[str, Any] = {"procedure": reader.text("storedProcedureName", most=130)}
    connection = reader.text("databaseConnectionStringName", most=40)
    payload["connection"] = connection or _only_connection()
    payload["parameters"] = reader.object("parameters") or {}
    if (seconds := reader.integer("commandTimeoutSeconds", 1, MAX_SECONDS)) is not None:
        payload["timeout_seconds"] = seconds
    return payload


def _only_connection() -> str | None:
    """The connection that is meant where none is named: there is but one, or one called default."""
    from django.conf import settings

    known = getattr(settings, "PROCEDURES", {})
    return next(iter(known)) if len(known) == 1 else "default" if "default" in known else None


def _procedure_to_wire(payload: Mapping[str, Any]) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "storedProcedureName": payload.get("procedure"),
        "parameters": payload.get("parameters") or {},
        "databaseConnectionStringName": payload.get("connection"),
    }
    if "timeout_seconds" in payload:
        shown["commandTimeoutSeconds"] = payload["timeout_seconds"]
    return shown


_FROM_WIRE: Mapping[str, Callable[[Reader], Payload]] = {
    "http": _http_from_wire,
    "procedure": _procedure_from_wire,
}
_TO_WIRE: Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
    "http": _http_to_wire,
    "procedure": _procedure_to_wire,
}


# -- CodeExecution ---------------------------------------------------------------------------------


def _code_from_wire(reader: Reader) -> dict[str, Any]:
    reader.need("handlerType")
    handler = reader.text("handlerType", least=1, most=200) or ""
    method = reader.text("methodName", most=100)
    # The parameters are the payload; any JSON value that a native schedule may have comes back.
    return {
        "type": f"{handler}{_METHOD}{method}" if method else handler,
        "payload": reader.raw("parameters"),
    }


def _code_to_wire(schedule: Schedule) -> dict[str, Any]:
    handler, _, method = schedule.type.rpartition(_METHOD)
    shown: dict[str, Any] = {"handlerType": handler or method}
    if handler:
        shown["methodName"] = method
    shown["parameters"] = schedule.payload
    return shown


# -- A run of its own ------------------------------------------------------------------------------


def overridden(schedule: Schedule, parameters: Mapping[str, Any]) -> Any:
    """The payload of a run that is started with these parameters in the place of those stored."""
    field = "parameters"
    _refuse_masks(parameters, field)
    stored = schedule.payload
    if schedule.kind == "python":
        if stored is not None and not isinstance(stored, dict):
            refuse(field, "The stored parameters are no object.")
        return {**(stored or {}), **parameters}
    if schedule.kind == "procedure" and isinstance(stored, dict):
        return {**stored, "parameters": {**(stored.get("parameters") or {}), **parameters}}
    return refuse(field, "This type of job takes none.")
