"""Every endpoint of the API, with the least role that it needs."""

from __future__ import annotations

from tests.dialects.scheduler.conftest import MISSING as ID

VIEWER, OPERATOR, ADMIN = "viewer", "operator", "admin"

ENDPOINTS: list[tuple[str, str, str]] = [
    ("POST", "jobs", OPERATOR),
    ("GET", "jobs", VIEWER),
    ("GET", f"jobs/{ID}", VIEWER),
    ("PUT", f"jobs/{ID}", OPERATOR),
    ("DELETE", f"jobs/{ID}", OPERATOR),
    ("PATCH", f"jobs/{ID}/reschedule", OPERATOR),
    ("POST", f"jobs/{ID}/pause", OPERATOR),
    ("POST", f"jobs/{ID}/resume", OPERATOR),
    ("POST", f"jobs/{ID}/trigger", OPERATOR),
    ("POST", f"jobs/{ID}/exclusions", OPERATOR),
    ("POST", f"jobs/{ID}/dependencies", OPERATOR),
    ("GET", f"jobs/{ID}/executions", VIEWER),
    ("GET", f"executions/{ID}", VIEWER),
    ("POST", f"executions/{ID}/cancel", OPERATOR),
    ("POST", f"executions/{ID}/retry", OPERATOR),
    ("POST", "workflows", OPERATOR),
    ("GET", "dashboard/stats", VIEWER),
    ("GET", "jobs/failed", VIEWER),
    ("GET", "executions/timeline", VIEWER),
    ("POST", "admin/pause-all", ADMIN),
    ("POST", "admin/resume-all", ADMIN),
    ("DELETE", "admin/clear-logs", ADMIN),
    ("GET", "admin/export", ADMIN),
    ("POST", "admin/import", ADMIN),
    # What the original lacks.
    ("GET", f"jobs/{ID}/exclusions", VIEWER),
    ("PUT", f"jobs/{ID}/exclusions", OPERATOR),
    ("DELETE", f"jobs/{ID}/exclusions", OPERATOR),
    ("GET", f"jobs/{ID}/dependencies", VIEWER),
    ("PUT", f"jobs/{ID}/dependencies", OPERATOR),
    ("DELETE", f"jobs/{ID}/dependencies", OPERATOR),
    ("GET", f"jobs/{ID}/history", OPERATOR),
    ("GET", f"jobs/{ID}/next-runs", VIEWER),
    ("POST", "schedules/preview", VIEWER),
    ("POST", f"jobs/{ID}/restore", OPERATOR),
    ("GET", "executions", VIEWER),
    ("GET", "executions/upcoming", VIEWER),
    ("GET", f"executions/{ID}/logs", VIEWER),
    ("GET", "workflows", VIEWER),
    ("GET", f"workflows/{ID}", VIEWER),
    ("PUT", f"workflows/{ID}", OPERATOR),
    ("DELETE", f"workflows/{ID}", OPERATOR),
    ("POST", f"workflows/{ID}/trigger", OPERATOR),
    ("GET", f"workflows/{ID}/runs", VIEWER),
    ("GET", "tags", VIEWER),
]
