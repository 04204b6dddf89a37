"""Jobs that have been tried and wait for another attempt, for their count and lists."""

from django.db import migrations, models

from jobs.migration_operations import AddIndexOnline


class Migration(migrations.Migration):
    # PostgreSQL builds an index online only outside of a transaction.
    atomic = False

    dependencies = [("jobs", "0020_host_samples")]

    operations = [
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("attempts__gt", 0), ("state__in", ("scheduled", "ready"))),
                fields=["created_at", "id", "queue"],
                name="job_retrying",
            ),
        ),
    ]
