"""What dialects keep with a job and a schedule, and who follows what happens to jobs.

The two indexes are in the order in which things end, so an entry is added where the last one was. Jobs
that succeed, nearly all, are in that of attempts only.
"""

from django.db import migrations, models

from jobs.migration_operations import AddIndexOnline


class Migration(migrations.Migration):
    # PostgreSQL builds an index online only outside of a transaction.
    atomic = False

    dependencies = [("jobs", "0017_scheduled_job_indexes")]

    operations = [
        # Without defaults, so that no database rewrites a table.
        migrations.AddField(
            model_name="job",
            name="dialect_notes",
            field=models.JSONField(null=True),
        ),
        migrations.AddField(
            model_name="schedule",
            name="expires_in_seconds",
            field=models.FloatField(null=True),
        ),
        AddIndexOnline(
            model_name="attempt",
            index=models.Index(fields=["finished_at"], name="attempt_ended"),
        ),
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("finished_at__isnull", False))
                & models.Q(("state", "succeeded"), _negated=True),
                fields=["finished_at", "id"],
                name="job_unsuccessful",
            ),
        ),
    ]
