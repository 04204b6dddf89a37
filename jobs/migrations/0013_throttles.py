"""Count how often a job was asked to come back later, which spends no attempt but has an end too."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobs", "0012_lighter_checks")]

    operations = [
        # Without a default, so that no database rewrites the table of jobs.
        migrations.AddField(
            model_name="job",
            name="throttles",
            field=models.PositiveSmallIntegerField(null=True),
        ),
    ]
