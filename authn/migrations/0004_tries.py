import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("authn", "0003_key_owner_rotation_use")]

    operations = [
        migrations.CreateModel(
            name="Tries",
            fields=[
                ("subject", models.CharField(max_length=60, primary_key=True, serialize=False)),
                ("failures", models.PositiveIntegerField(default=0)),
                (
                    "counted_since",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                (
                    "last_failed_at",
                    models.DateTimeField(db_default=django.db.models.functions.datetime.Now()),
                ),
                ("blocks", models.PositiveSmallIntegerField(default=0)),
                ("blocked_until", models.DateTimeField(null=True)),
            ],
            options={
                "verbose_name_plural": "tries",
                "db_table": "failed_tries",
                "indexes": [models.Index(fields=["last_failed_at"], name="failed_tries_quiet")],
            },
        ),
    ]
