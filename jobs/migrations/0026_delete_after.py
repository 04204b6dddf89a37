"""How long after its success a job made of steps is deleted, where that is its own matter."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobs", "0025_steps_state_index")]

    operations = [
        migrations.AddField(
            model_name="stepslisting",
            name="delete_after_seconds",
            field=models.FloatField(null=True),
        ),
        migrations.AddIndex(
            model_name="stepslisting",
            index=models.Index(
                condition=models.Q(("delete_after_seconds__isnull", False)),
                fields=["id"],
                name="steps_listing_delete_after",
            ),
        ),
    ]
