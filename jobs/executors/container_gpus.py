"""What the ``--gpus`` option of Docker means, as the engine wants to be asked. Pure."""

from __future__ import annotations

import csv
from typing import Any

from jobs.errors import InvalidJob
from jobs.executors.command_fields import read_text

MAX_COUNT = 1024
_KEYS = {"count", "device", "driver", "capabilities", "options"}


def read_gpus(value: Any, field: str) -> dict[str, Any]:
    """Return the device request for `all`, a number, or `device=0,…`, `count=2,capabilities=utility`, …

    Values with commas stand in quotes, as on the command line: ``"device=0,2",driver=nvidia``.
    """
    text = read_text(value, 256, field)
    try:
        [parts] = csv.reader([text], strict=True)
        given = _pairs(parts)
        if given.keys() - _KEYS:
            raise ValueError(parts)
    except (ValueError, csv.Error):
        raise InvalidJob('such as all, 2 or "device=0,1"', field=field) from None
    count = given.get("count", "")
    devices = _words(given.get("device", ""))
    if count and devices:
        raise InvalidJob("either a count or devices", field=field)
    if count not in ("", "all") and not (count.isdecimal() and 1 <= int(count) <= MAX_COUNT):
        raise InvalidJob("a number of GPUs, or all", field=field)
    return {
        "Driver": given.get("driver", ""),
        "Count": 0 if devices else -1 if count in ("", "all") else int(count),
        "DeviceIDs": devices,
        "Capabilities": [sorted({"gpu", *_words(given.get("capabilities", ""))})],
        "Options": _pairs(_words(given["options"])) if "options" in given else {},
    }


def _pairs(parts: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for part in parts:
        key, equals, value = part.strip().partition("=")
        if not equals:
            key, value = "count", key
        if not value or key in found:
            raise ValueError(part)
        found[key] = value
    if not found:
        raise ValueError("nothing")
    return found


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]
