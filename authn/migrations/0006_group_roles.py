import django.db.models.deletion
from django.db import migrations, models

POSTGRES = [
    """CREATE FUNCTION access_audit_stays() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN RAISE EXCEPTION 'the audit only grows'; END $$""",
    """CREATE TRIGGER access_audit_stays BEFORE UPDATE OR DELETE ON access_audit
       FOR EACH ROW EXECUTE FUNCTION access_audit_stays()""",
]
POSTGRES_BACK = [
    "DROP TRIGGER access_audit_stays ON access_audit",
    "DROP FUNCTION access_audit_stays()",
]
# Whoever has the file can delete what he likes; what must not happen by mistake is a change.
SQLITE = [
    # As many digits as the times have that are compared with these.
    "UPDATE access_audit SET at = at || '000' WHERE length(at) = 23",
    """CREATE TRIGGER access_audit_stays BEFORE UPDATE ON access_audit
       BEGIN SELECT RAISE(ABORT, 'the audit only grows'); END""",
]
SQLITE_BACK = ["DROP TRIGGER access_audit_stays"]


def forwards(apps, schema_editor):
    is_postgresql = schema_editor.connection.vendor == "postgresql"
    for statement in POSTGRES if is_postgresql else SQLITE:
        schema_editor.execute(statement)


def backwards(apps, schema_editor):
    is_postgresql = schema_editor.connection.vendor == "postgresql"
    for statement in POSTGRES_BACK if is_postgresql else SQLITE_BACK:
        schema_editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [
        ("auth", "0012_alter_user_first_name_max_length"),
        ("authn", "0004_tries"),
    ]

    operations = [
        migrations.CreateModel(
            name="GroupRole",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("cluster_id", models.CharField(max_length=25, verbose_name="cluster")),
                (
                    "role",
                    models.CharField(
                        choices=[
                            ("viewer", "Viewer"),
                            ("operator", "Operator"),
                            ("admin", "Admin"),
                        ],
                        max_length=8,
                    ),
                ),
                ("granted_kinds", models.JSONField(blank=True, default=list)),
            ],
        ),
        migrations.AddField(
            model_name="accessauditentry",
            name="count",
            field=models.PositiveIntegerField(null=True),
        ),
        migrations.AddField(
            model_name="accessauditentry",
            name="credential",
            field=models.CharField(db_default="", default="", max_length=40),
        ),
        migrations.AddField(
            model_name="accessauditentry",
            name="filter",
            field=models.JSONField(null=True),
        ),
        migrations.AddField(
            model_name="accessauditentry",
            name="surface",
            field=models.CharField(db_default="", default="", max_length=20),
        ),
        migrations.AddIndex(
            model_name="accessauditentry",
            index=models.Index(fields=["actor", "-at", "-id"], name="access_audit_actor"),
        ),
        migrations.AddIndex(
            model_name="accessauditentry",
            index=models.Index(fields=["verb", "-at", "-id"], name="access_audit_verb"),
        ),
        migrations.AddField(
            model_name="grouprole",
            name="group",
            field=models.ForeignKey(
                on_delete=django.db.models.deletion.CASCADE,
                related_name="cluster_roles",
                to="auth.group",
            ),
        ),
        migrations.AddConstraint(
            model_name="grouprole",
            constraint=models.UniqueConstraint(
                fields=("group", "cluster_id"), name="group_role_once_per_cluster"
            ),
        ),
        migrations.AddConstraint(
            model_name="grouprole",
            constraint=models.CheckConstraint(
                condition=models.Q(("role__in", ["viewer", "operator", "admin"])),
                name="group_role_known",
            ),
        ),
        migrations.RunPython(forwards, backwards),
    ]
