"""Runs of all schedules, newest first, and by when they began and ended, and schedules by kind: for lists
and figures."""

from django.db import migrations, models

from jobs.migration_operations import AddIndexOnline


class Migration(migrations.Migration):
    # PostgreSQL builds an index online only outside of a transaction.
    atomic = False

    dependencies = [("jobs", "0016_schedule_listing")]

    operations = [
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("schedule_id__isnull", False)),
                fields=["created_at", "id", "kind", "state"],
                name="job_scheduled_newest",
            ),
        ),
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("schedule_id__isnull", False), ("started_at__isnull", False)),
                fields=["started_at"],
                name="job_scheduled_started",
            ),
        ),
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("finished_at__isnull", False), ("schedule_id__isnull", False)),
                fields=["finished_at"],
                name="job_scheduled_ended",
            ),
        ),
        AddIndexOnline(
            model_name="schedule",
            index=models.Index(
                condition=models.Q(("deleted_at", None), ("workflow", None)),
                fields=["kind"],
                name="schedule_kept",
            ),
        ),
    ]
