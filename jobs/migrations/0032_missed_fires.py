"""Find the runs that were missed, and the schedules that have some, without a look at all fires."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobs", "0031_alerts")]

    operations = [
        migrations.AddIndex(
            model_name="fire",
            index=models.Index(
                condition=models.Q(("state", "missed")),
                fields=["schedule", "due_at"],
                name="fire_missed",
            ),
        ),
    ]
