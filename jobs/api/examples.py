"""Examples of the OpenAPI document: one job of each kind."""

from __future__ import annotations

from drf_spectacular.utils import OpenApiExample

ENQUEUE_EXAMPLES = [
    OpenApiExample(
        "A registered function",
        description="Kind `python`: a handler that the worker nodes know by its type.",
        value={
            "type": "demo:echo",
            "queue": "default",
            "payload": {"hello": "world"},
            "tags": ["trial"],
            "max_attempts": 3,
        },
        request_only=True,
    ),
    OpenApiExample(
        "An HTTP request",
        value={
            "kind": "http",
            "type": "webhook:order-shipped",
            "payload": {
                "method": "POST",
                "url": "https://example.com/hooks/orders",
                "headers": {"content-type": "application/json"},
                "body": '{"order": 4711}',
            },
            "timeout_seconds": 30,
            "delay_seconds": 60,
        },
        request_only=True,
    ),
    OpenApiExample(
        "Files",
        description="Kind `files`: works inside the roots that are configured, and nowhere else.",
        value={
            "kind": "files",
            "type": "nightly:move-reports",
            "payload": {
                "operation": "move",
                "root": "reports",
                "path": "outgoing/*.csv",
                "to": {"root": "archive", "path": "2026"},
                "older_than_seconds": 3600,
            },
        },
        request_only=True,
    ),
    OpenApiExample(
        "A program",
        description="Kind `shell`: needs a grant, and nodes on which it is enabled.",
        value={
            "kind": "shell",
            "type": "nightly:report",
            "payload": {"argv": ["/usr/local/bin/report", "--month", "2026-01"]},
            "run_at": "2026-02-01T02:00:00Z",
            "on_lost": "hold",
        },
        request_only=True,
    ),
    OpenApiExample(
        "A stored procedure",
        description="Kind `procedure`: of a connection that is configured, and allowed there.",
        value={
            "kind": "procedure",
            "type": "billing:close-month",
            "payload": {
                "connection": "billing",
                "procedure": "reports.close_month",
                "parameters": {"month": "2026-01-01"},
            },
            "timeout_seconds": 600,
        },
        request_only=True,
    ),
]
