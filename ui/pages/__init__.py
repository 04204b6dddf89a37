"""The pages of the screen, one file each: its addresses, what it reads, and its buttons."""

from __future__ import annotations

from ui.pages import (
    access,
    alerts,
    audit,
    bulk_operations,
    failures,
    fleet,
    job,
    job_deeds,
    job_log,
    job_new,
    job_views,
    jobs,
    nodes,
    now,
    queue_forms,
    queues,
    schedule_deeds,
    schedule_form,
    schedule_load,
    schedules,
    secrets,
    series,
    settings,
    workflows,
)

# The addresses below a cluster's own, each with its view and its name.
ROUTES = (
    *now.ROUTES,
    *series.ROUTES,
    *fleet.ROUTES,
    *jobs.ROUTES,
    *job_views.ROUTES,
    *job_new.ROUTES,
    *job.ROUTES,
    *job_deeds.ROUTES,
    *job_log.ROUTES,
    *bulk_operations.ROUTES,
    *failures.ROUTES,
    *alerts.ROUTES,
    *queues.ROUTES,
    *queue_forms.ROUTES,
    *nodes.ROUTES,
    *schedules.ROUTES,
    *schedule_deeds.ROUTES,
    *schedule_form.ROUTES,
    *schedule_load.ROUTES,
    *workflows.ROUTES,
    *audit.ROUTES,
    *settings.ROUTES,
    *secrets.ROUTES,
)
# And those below the fleet's.
FLEET_ROUTES = (*access.ROUTES,)
