"""Room for metadata that is longer as JSON than as text."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobs", "0008_list_indexes")]

    operations = [
        migrations.AlterField(
            model_name="jobmetadata",
            name="value",
            field=models.CharField(max_length=1600),
        ),
    ]
