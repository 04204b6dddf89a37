"""``jobConfiguration`` of a FileOperation, whose absolute paths are ours below a named root."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from jobs.dialects.scheduler.wire.reading import Reader
from jobs.dialects.scheduler.wire.words import number_to_wire
from jobs.executors.file_roots import PathRefused, locate, roots

OPERATIONS = ("DeleteOldFiles", "Delete", "Move", "Copy", "Archive", "Compress", "List")
COMPRESSIONS = {"Zip": "zip", "TarGz": "tar.gz", "GZip": "tar.gz"}
# Metadata that keeps the word of an operation which is another one of ours.
LABEL = "fileOperation"
HOUR, DAY = 3600, 86_400
MAX_HOURS, MAX_DAYS = 100 * 366 * 24, 100 * 366
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,39}):/(.*)\Z", re.DOTALL)


def from_wire(reader: Reader) -> tuple[dict[str, Any], str | None]:
    """The payload, and the operation's word where it is lost in it."""
    reader.need("sourcePath")
    # Left out it deletes old files, as the original does; but those need an age here.
    operation = reader.choice("operation", OPERATIONS)
    if operation is None and "operation" not in reader:
        operation = "DeleteOldFiles"
    root, path = _place(reader, "sourcePath")
    payload: dict[str, Any] = {"root": root, "path": path}
    _read_age(reader, payload)
    for name, ours in (
        ("recursive", "recursive"),
        ("dryRun", "dry_run"),
        ("deleteEmptyDirectories", "delete_empty_directories"),
    ):
        if reader.boolean(name):
            payload[ours] = True
    if payload.get("delete_empty_directories") and "recursive" not in payload:
        reader.refuse(
            "deleteEmptyDirectories", "Needs recursive: only the top folder is looked at."
        )
    if operation in ("DeleteOldFiles", "Delete"):
        _read_delete(reader, payload, operation)
        return payload, None
    if operation == "List":
        return {"operation": "list", **payload}, None
    payload["overwrite"] = True
    if operation == "Compress":
        return _read_compress(reader, payload), None
    reader.need("destinationPath")
    to_root, to_path = _place(reader, "destinationPath")
    payload["operation"] = "copy" if operation == "Copy" else "move"
    payload["to"] = {"root": to_root, "path": to_path}
    # The original's archive is a move to another folder.
    return payload, "Archive" if operation == "Archive" else None


def _place(reader: Reader, name: str) -> tuple[str, str]:
    """The root and the path below it of an absolute path, or of ``root:/path``."""
    text = reader.text(name, least=1, most=4000)
    if text is None:
        return "", ""
    if named := _NAMED.match(text):
        return named[1], named[2]
    try:
        return locate(text)
    except PathRefused as error:
        reader.refuse(name, str(error))
        return "", ""


def _read_age(reader: Reader, payload: dict[str, Any]) -> None:
    hours = reader.integer("olderThanHours", 1, MAX_HOURS)
    days = reader.integer("deleteAfterDays", 1, MAX_DAYS)
    if hours is not None or days is not None:
        # Both are limits: what is younger than either stays.
        payload["older_than_seconds"] = max((hours or 0) * HOUR, (days or 0) * DAY)


def _read_delete(reader: Reader, payload: dict[str, Any], operation: str) -> None:
    payload["operation"] = "delete"
    if "older_than_seconds" in payload:
        return
    if operation == "Delete":
        payload["all"] = True
    else:
        reader.refuse("olderThanHours", "DeleteOldFiles needs olderThanHours or deleteAfterDays.")


def _read_compress(reader: Reader, payload: dict[str, Any]) -> dict[str, Any]:
    compression = COMPRESSIONS.get(reader.choice("compression", tuple(COMPRESSIONS)) or "")
    if "archivePath" not in reader:
        if compression not in (None, "zip"):
            reader.refuse("compression", "Each file beside itself is Zip; else give archivePath.")
        return {**payload, "operation": "compress"}
    root, path = _place(reader, "archivePath")
    payload |= {"operation": "archive", "to": {"root": root, "path": path}}
    return payload | ({"format": compression} if compression else {})


def to_wire(payload: Mapping[str, Any], label: Any) -> dict[str, Any]:
    operation = payload.get("operation")
    source = _path(payload.get("root"), payload.get("path"), payload.get("pattern"))
    shown: dict[str, Any] = {"operation": _word(operation, payload, label), "sourcePath": source}
    to = payload.get("to")
    if isinstance(to, Mapping):
        name = "archivePath" if operation == "archive" else "destinationPath"
        shown[name] = _path(to.get("root"), to.get("path"), to.get("name"))
    if (seconds := payload.get("older_than_seconds")) is not None:
        shown["olderThanHours"] = number_to_wire(seconds / HOUR)
        if seconds % DAY == 0:
            shown["deleteAfterDays"] = int(seconds // DAY)
    if operation == "archive":
        shown["compression"] = "TarGz" if payload.get("format") == "tar.gz" else "Zip"
    for ours, name in (
        ("recursive", "recursive"),
        ("delete_empty_directories", "deleteEmptyDirectories"),
        ("dry_run", "dryRun"),
    ):
        if ours in payload:
            shown[name] = payload[ours]
    return shown


def _word(operation: Any, payload: Mapping[str, Any], label: Any) -> str:
    if operation == "delete":
        return "DeleteOldFiles" if "older_than_seconds" in payload else "Delete"
    if operation == "move":
        return "Archive" if label == "Archive" else "Move"
    return {"copy": "Copy", "list": "List"}.get(str(operation), "Compress")


def _path(root: Any, path: Any, name: Any = None) -> str:
    """The absolute path where this process knows the root, else ``root:/path``."""
    below = "/".join(part for part in (path, name) if part)
    known = roots().get(str(root))
    if known is None:
        return f"{root}:/{below}"
    return f"{known.path}/{below}" if below else known.path
