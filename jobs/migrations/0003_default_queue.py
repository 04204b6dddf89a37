"""Every cluster starts with the queue that jobs go to when they name none."""

from django.db import migrations


def create(apps, schema_editor):
    queues = apps.get_model("jobs", "Queue").objects.using(schema_editor.connection.alias)
    queues.get_or_create(name="default")


class Migration(migrations.Migration):
    dependencies = [("jobs", "0002_postgresql_storage")]

    operations = [migrations.RunPython(create, migrations.RunPython.noop)]
