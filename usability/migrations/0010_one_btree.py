"""The key of the metrics begins with the learner and is their only btree; new stores are made so from the start.

A hypertable that was made before stays as it is, because keys cannot change beside compressed days: the same
questions are answered, storing costs more. On a native store every day's key is built anew, under a lock that
keeps ingest waiting: about a minute for ten million rows.
"""

from django.db import migrations

from usability import partitions


def replace_key(apps, schema_editor):
    db = schema_editor.connection
    if not partitions.is_native(db) or not partitions.has_two_btrees(db):
        return
    with db.cursor() as cursor:
        for statement in partitions.REPLACE_KEY:
            cursor.execute(statement)


class Migration(migrations.Migration):
    dependencies = [("usability", "0009_xapi_store")]

    operations = [migrations.RunPython(replace_key, migrations.RunPython.noop)]
