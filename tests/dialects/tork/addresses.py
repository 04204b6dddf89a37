"""Every route of the API, with the least role that it needs, and a body that it takes."""

from __future__ import annotations

from typing import Any

VIEWER, OPERATOR, ADMIN = "viewer", "operator", "admin"
ID = "0190a1b2000070008000000000000000"
JOB: dict[str, Any] = {"name": "x", "tasks": [{"name": "t", "run": "true"}]}

ENDPOINTS: list[tuple[str, str, str, dict[str, Any] | None]] = [
    ("GET", "jobs", VIEWER, None),
    ("POST", "jobs", OPERATOR, JOB),
    ("GET", f"jobs/{ID}", VIEWER, None),
    ("GET", f"jobs/{ID}/log", VIEWER, None),
    ("PUT", f"jobs/{ID}/cancel", OPERATOR, None),
    ("PUT", f"jobs/{ID}/restart", OPERATOR, None),
    ("GET", "scheduled-jobs", VIEWER, None),
    ("POST", "scheduled-jobs", OPERATOR, JOB | {"schedule": {"cron": "@hourly"}}),
    ("GET", f"scheduled-jobs/{ID}", VIEWER, None),
    ("DELETE", f"scheduled-jobs/{ID}", ADMIN, None),
    ("PUT", f"scheduled-jobs/{ID}/pause", OPERATOR, None),
    ("PUT", f"scheduled-jobs/{ID}/resume", OPERATOR, None),
    ("GET", f"tasks/{ID}", VIEWER, None),
    ("GET", f"tasks/{ID}/log", VIEWER, None),
    ("GET", "nodes", VIEWER, None),
    ("GET", "queues", VIEWER, None),
    ("GET", "queues/default", VIEWER, None),
    ("DELETE", "queues/nosuch", ADMIN, None),
    ("GET", "tork/metrics", VIEWER, None),
    ("POST", "tork/users", ADMIN, {"username": "new", "password": "p"}),
]
