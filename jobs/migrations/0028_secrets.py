"""Named secrets of a cluster, encrypted."""

import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("jobs", "0026_delete_after")]

    operations = [
        migrations.CreateModel(
            name="Secret",
            fields=[
                ("name", models.CharField(max_length=100, primary_key=True, serialize=False)),
                ("sealed", models.TextField()),
                ("description", models.CharField(default="", max_length=500)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                (
                    "updated_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                ("updated_by", models.CharField(max_length=200)),
                ("version", models.PositiveIntegerField(default=1)),
            ],
            options={"db_table": "secret"},
        ),
    ]
