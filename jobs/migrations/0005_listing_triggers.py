"""Triggers that keep ``job_listing`` in step with ``job``, whoever writes there.

On PostgreSQL one statement for all rows of an insert or a delete. No trigger fires on a claim or a
completion: only an update that names the queue does.
"""

from django.db import migrations

POSTGRES = """
CREATE FUNCTION job_listing_add() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO job_listing (created_at, job_id, queue, type)
  SELECT created_at, id, queue, type FROM fresh;
  RETURN NULL;
END $$;
CREATE FUNCTION job_listing_remove() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM job_listing USING gone
   WHERE job_listing.created_at = gone.created_at AND job_listing.job_id = gone.id;
  RETURN NULL;
END $$;
CREATE FUNCTION job_listing_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE job_listing SET queue = NEW.queue
   WHERE created_at = NEW.created_at AND job_id = NEW.id;
  RETURN NULL;
END $$;
CREATE TRIGGER job_listing_add AFTER INSERT ON job
  REFERENCING NEW TABLE AS fresh FOR EACH STATEMENT EXECUTE FUNCTION job_listing_add();
CREATE TRIGGER job_listing_remove AFTER DELETE ON job
  REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION job_listing_remove();
CREATE TRIGGER job_listing_move AFTER UPDATE OF queue ON job
  FOR EACH ROW EXECUTE FUNCTION job_listing_move();
"""
POSTGRES_BACK = """
DROP TRIGGER job_listing_add ON job;
DROP TRIGGER job_listing_remove ON job;
DROP TRIGGER job_listing_move ON job;
DROP FUNCTION job_listing_add();
DROP FUNCTION job_listing_remove();
DROP FUNCTION job_listing_move();
"""
SQLITE = [
    """CREATE TRIGGER job_listing_add AFTER INSERT ON job BEGIN
         INSERT INTO job_listing (created_at, job_id, queue, type)
         VALUES (NEW.created_at, NEW.id, NEW.queue, NEW.type);
       END""",
    """CREATE TRIGGER job_listing_remove AFTER DELETE ON job BEGIN
         DELETE FROM job_listing WHERE created_at = OLD.created_at AND job_id = OLD.id;
       END""",
    """CREATE TRIGGER job_listing_move AFTER UPDATE OF queue ON job BEGIN
         UPDATE job_listing SET queue = NEW.queue
          WHERE created_at = NEW.created_at AND job_id = NEW.id;
       END""",
]
SQLITE_BACK = [
    "DROP TRIGGER job_listing_add",
    "DROP TRIGGER job_listing_remove",
    "DROP TRIGGER job_listing_move",
]


def forwards(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(POSTGRES)
        return
    for statement in SQLITE:
        schema_editor.execute(statement)


def backwards(apps, schema_editor):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(POSTGRES_BACK)
        return
    for statement in SQLITE_BACK:
        schema_editor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("jobs", "0004_policies")]

    operations = [migrations.RunPython(forwards, backwards)]
