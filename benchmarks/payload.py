"""The work of every measurement: a job that does nothing, with a JSON object of about 100 bytes."""

from __future__ import annotations

from typing import Any

TYPE = "bench:noop"
PAYLOAD: dict[str, Any] = {
    "template": "restart-service",
    "target": "node-0421.example",
    "args": [1, 2, 3],
    "note": "abcdefghijklmnop",
}
