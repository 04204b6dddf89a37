"""Runs of a schedule, open ones apart, jobs of a workflow's run, and those that wait for no other job."""

from django.db import migrations, models

from jobs.migration_operations import AddIndexOnline


class Migration(migrations.Migration):
    # PostgreSQL builds an index online only outside of a transaction.
    atomic = False

    dependencies = [("jobs", "0014_schedules")]

    operations = [
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("schedule_id__isnull", False)),
                fields=["schedule_id", "created_at", "id"],
                name="job_schedule",
            ),
        ),
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("finished_at", None), ("schedule_id__isnull", False)),
                fields=["schedule_id", "created_at", "id"],
                name="job_schedule_open",
            ),
        ),
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("workflow_run_id__isnull", False)),
                fields=["workflow_run_id"],
                name="job_workflow_run",
            ),
        ),
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state", "blocked"), ("waits_for__isnull", False)),
                fields=["created_at", "id"],
                name="job_held_back",
            ),
        ),
    ]
