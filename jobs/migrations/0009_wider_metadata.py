"""Room for metadata that is longer as JSON than as text."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobs", "0011_unready_jobs_by_queue")]

    operations = [
        migrations.AlterField(
            model_name="jobmetadata",
            name="value",
            field=models.CharField(max_length=1600),
        ),
    ]
