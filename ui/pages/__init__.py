"""The pages of the screen, one file each: its addresses, what it reads, and its buttons."""

from __future__ import annotations

from ui.pages import failures, fleet, job, jobs, nodes, now, queues, schedules, workflows

# The addresses below a cluster's own, each with its view and its name.
ROUTES = (
    *now.ROUTES,
    *fleet.ROUTES,
    *jobs.ROUTES,
    *job.ROUTES,
    *failures.ROUTES,
    *queues.ROUTES,
    *nodes.ROUTES,
    *schedules.ROUTES,
    *workflows.ROUTES,
)
