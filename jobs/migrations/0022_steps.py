"""Steps: jobs that are parts of another, and how far that other one is."""

import django.db.models.deletion
import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("jobs", "0021_retrying_index"),
    ]

    operations = [
        migrations.CreateModel(
            name="StepsRun",
            fields=[
                (
                    "job",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        related_name="steps_run",
                        serialize=False,
                        to="jobs.job",
                    ),
                ),
                ("name", models.CharField(db_default="", default="", max_length=256)),
                ("description", models.TextField(db_default="", default="")),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                ("open_steps", models.PositiveIntegerField(db_default=0, default=0)),
                ("failed_steps", models.PositiveIntegerField(db_default=0, default=0)),
                ("wake_at", models.PositiveIntegerField(db_default=0, default=0)),
                ("woken_at", models.DateTimeField(null=True)),
                ("stop_by", models.DateTimeField(null=True)),
                ("state", models.JSONField(default=dict)),
                ("items", models.JSONField(null=True)),
            ],
            options={
                "db_table": "steps_run",
                "indexes": [
                    models.Index(
                        condition=models.Q(("woken_at__isnull", False)),
                        fields=["woken_at"],
                        name="steps_run_woken",
                    ),
                    models.Index(
                        condition=models.Q(("stop_by__isnull", False)),
                        fields=["stop_by"],
                        name="steps_run_stop_by",
                    ),
                    models.Index(fields=["-created_at", "-job"], name="steps_run_newest"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Step",
            fields=[
                (
                    "job",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        serialize=False,
                        to="jobs.job",
                    ),
                ),
                ("key", models.CharField(max_length=16)),
                ("name", models.CharField(max_length=256)),
                ("position", models.PositiveIntegerField()),
                ("index", models.PositiveIntegerField()),
                ("var", models.CharField(max_length=64, null=True)),
                ("is_tolerated", models.BooleanField(default=False)),
                ("definition", models.JSONField(default=dict)),
                (
                    "created_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                (
                    "parent",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="steps",
                        to="jobs.job",
                    ),
                ),
                (
                    "root",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        related_name="all_steps",
                        to="jobs.job",
                    ),
                ),
            ],
            options={
                "db_table": "step",
                "indexes": [
                    models.Index(fields=["root", "position", "job"], name="step_in_order"),
                    models.Index(
                        condition=models.Q(("var__isnull", False)),
                        fields=["root", "job"],
                        name="step_result",
                    ),
                ],
                "constraints": [
                    models.UniqueConstraint(fields=("parent", "key"), name="step_unique_in_parent")
                ],
            },
        ),
    ]
