"""Indexes of what few jobs have, so that a list of them does not look at all the others."""

from django.db import migrations, models

from jobs.migration_operations import AddIndexOnline


class Migration(migrations.Migration):
    # PostgreSQL builds indexes online only outside of a transaction.
    atomic = False

    dependencies = [("jobs", "0007_lighter_indexes")]

    operations = [
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("reason__isnull", False)),
                fields=["reason", "created_at", "id"],
                name="job_reason",
            ),
        ),
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("is_held", True)),
                fields=["created_at", "id"],
                name="job_held",
            ),
        ),
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("kind", "python"), _negated=True),
                fields=["kind", "created_at", "id"],
                name="job_kind",
            ),
        ),
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("finished_at__isnull", False), ("unique_key__isnull", False)),
                fields=["unique_key", "created_at", "id"],
                name="job_unique_ended",
            ),
        ),
    ]
