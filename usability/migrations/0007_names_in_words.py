"""The words for rows on pages; no column changes. Runs before or after the code."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("usability", "0006_help_request_done"),
    ]

    operations = [
        migrations.AlterModelOptions(
            name="classroommetricssnapshot",
            options={"verbose_name": "class snapshot"},
        ),
        migrations.AlterModelOptions(
            name="frustrationevent",
            options={"verbose_name": "struggle signal"},
        ),
        migrations.AlterModelOptions(
            name="ingestbatch",
            options={"verbose_name": "ingest batch", "verbose_name_plural": "ingest batches"},
        ),
        migrations.AlterModelOptions(
            name="studentaccess",
            options={"verbose_name": "look at a pupil", "verbose_name_plural": "looks at pupils"},
        ),
        migrations.AlterModelOptions(
            name="teacherdashboardalert",
            options={"verbose_name": "alert"},
        ),
        migrations.AlterModelOptions(
            name="usabilitymetric",
            options={"verbose_name": "metric"},
        ),
    ]
