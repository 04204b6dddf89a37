"""Count why jobs failed, how attempts ended and what became of fires, for ever; see jobs.models.total."""

from __future__ import annotations

from django.db import migrations, models

REASONS = [
    ("error", "Error"),
    ("timeout", "Timeout"),
    ("lost", "Lost"),
    ("expired", "Expired"),
    ("dependency", "Dependency"),
    ("poisoned", "Poisoned"),
    ("bad_definition", "Bad Definition"),
]
OUTCOMES = [
    ("succeeded", "Succeeded"),
    ("failed", "Failed"),
    ("timeout", "Timeout"),
    ("cancelled", "Cancelled"),
    ("lost", "Lost"),
    ("released", "Released"),
]


class Migration(migrations.Migration):
    dependencies = [("jobs", "0018_dialect_notes")]

    operations = [
        # Without defaults, so that nodes of the version before go on writing tallies.
        migrations.AddField(
            model_name="tally",
            name="reason",
            field=models.CharField(choices=REASONS, max_length=14, null=True),
        ),
        migrations.AddField(
            model_name="tally",
            name="outcome",
            field=models.CharField(choices=OUTCOMES, max_length=9, null=True),
        ),
        migrations.CreateModel(
            name="Total",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "name",
                        "queue",
                        "word",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                (
                    "name",
                    models.CharField(
                        choices=[("failed", "Failed"), ("ended", "Ended"), ("fires", "Fires")],
                        max_length=6,
                    ),
                ),
                ("queue", models.CharField(default="", max_length=100)),
                ("word", models.CharField(max_length=20)),
                ("count", models.PositiveBigIntegerField()),
            ],
            options={"db_table": "total"},
        ),
    ]
