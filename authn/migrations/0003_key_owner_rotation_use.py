from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("authn", "0002_user_roles"),
    ]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="addresses",
            field=models.JSONField(
                blank=True, db_default=models.Value([], models.JSONField()), default=list
            ),
        ),
        migrations.AddField(
            model_name="apikey",
            name="last_used_at",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="apikey",
            name="owner",
            field=models.CharField(blank=True, db_default="", default="", max_length=100),
        ),
        migrations.AddField(
            model_name="apikey",
            name="previous_digest",
            field=models.BinaryField(null=True),
        ),
        migrations.AddField(
            model_name="apikey",
            name="previous_until",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="apikey",
            name="rotated_at",
            field=models.DateTimeField(null=True),
        ),
    ]
