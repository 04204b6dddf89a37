"""Indexes of figures over time, and of failures in the order in which they are listed."""

from django.db import migrations, models


class Migration(migrations.Migration):
    # Both tables came with 0004 and are empty, or small.
    dependencies = [("jobs", "0010_unready_jobs_by_queue")]

    operations = [
        migrations.RemoveIndex(model_name="failure", name="failure_latest"),
        migrations.AddIndex(
            model_name="failure",
            index=models.Index(fields=["-last_seen_at", "-fingerprint"], name="failure_newest"),
        ),
        migrations.AddIndex(
            model_name="rollup",
            index=models.Index(
                fields=["resolution_seconds", "queue", "type", "starts_at"], name="rollup_series"
            ),
        ),
    ]
