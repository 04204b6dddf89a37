"""An index to count how full a queue is by, and room for metadata that is longer as JSON."""

from django.db import migrations, models

from jobs.migration_operations import AddIndexOnline


class Migration(migrations.Migration):
    # PostgreSQL builds indexes online only outside of a transaction.
    atomic = False

    dependencies = [("jobs", "0008_list_indexes")]

    operations = [
        migrations.AlterField(
            model_name="jobmetadata",
            name="value",
            field=models.CharField(max_length=1600),
        ),
        AddIndexOnline(
            model_name="job",
            index=models.Index(
                condition=models.Q(("state__in", ("blocked", "scheduled"))),
                fields=["queue"],
                name="job_waiting",
            ),
        ),
    ]
