"""Examples of the OpenAPI document: one job of each kind, and schedules of each timing."""

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
        "A container",
        description="Kind `container`: needs a grant, and nodes with an engine that may run the image.",
        value={
            "kind": "container",
            "type": "nightly:report",
            "payload": {
                "image": "python:3.12-slim",
                "run": "python report.py > $JOB_OUTPUT",
                "files": {"report.py": "print(42)"},
                "limits": {"cpus": ".5", "memory": "200m"},
            },
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
    OpenApiExample(
        "A job made of steps",
        description="Kind `steps`: a step is a job of its own and waits for the one before it.",
        value={
            "kind": "steps",
            "payload": {
                "name": "nightly",
                "inputs": {"region": "eu"},
                "steps": [
                    {
                        "name": "fetch",
                        "kind": "python",
                        "type": "demo:echo",
                        "var": "rows",
                        "payload": [1, 2, 3],
                    },
                    {
                        "name": "all",
                        "each": {
                            "list": "{{ tasks.rows }}",
                            "concurrency": 2,
                            "step": {
                                "name": "row {{ item.value }}",
                                "kind": "python",
                                "type": "demo:echo",
                                "payload": "{{ item.value }}",
                            },
                        },
                    },
                ],
                "output": "{{ inputs.region }}",
            },
        },
        request_only=True,
    ),
]

SCHEDULE_EXAMPLES = [
    OpenApiExample(
        "Every weekday at seven",
        value={
            "name": "Morning inventory",
            "type": "demo:echo",
            "payload": {"warehouse": 7},
            "timing": "cron",
            "expression": "0 7 * * 1-5",
            "timezone": "America/New_York",
            "exclusions": {"dates": ["2030-12-25"]},
            "tags": ["inventory", "weekday"],
        },
        request_only=True,
    ),
    OpenApiExample(
        "Every five minutes, one at a time",
        value={
            "name": "Poll the partner",
            "kind": "http",
            "payload": {"method": "GET", "url": "https://example.com/orders"},
            "timing": "interval",
            "interval_seconds": 300,
            "overlap": "queue_one",
            "misfire": "skip",
        },
        request_only=True,
    ),
    OpenApiExample(
        "Once, at a wall time",
        value={
            "name": "Move to the new prices",
            "type": "demo:echo",
            "timing": "once",
            "run_at": "2040-01-01T00:00",
            "timezone": "Europe/Berlin",
        },
        request_only=True,
    ),
]

WORKFLOW_EXAMPLES = [
    OpenApiExample(
        "One after the other",
        value={
            "name": "Close the day",
            "nodes": [
                {"schedule_id": "01a20191-868c-7979-8cdf-31c02d86b8b8"},
                {
                    "schedule_id": "01a20191-868c-7979-8cdf-31c02d86b8b9",
                    "depends_on": ["01a20191-868c-7979-8cdf-31c02d86b8b8"],
                    "on_failure": "continue",
                },
            ],
        },
        request_only=True,
    ),
]
