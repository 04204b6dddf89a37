"""What dialects keep with a job and a schedule."""

from django.db import migrations, models


class Migration(migrations.Migration):
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
    ]
