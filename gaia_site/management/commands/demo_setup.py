"""`manage.py demo_setup`: the people, classes and keys of the demonstration, written to demo.json and demo.env."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from gaia_site.demo import setting
from gaia_site.embedded.data_folder import DataFolder


class Command(BaseCommand):
    """Makes what is missing and keeps what is there: running it twice changes nothing."""

    help = (
        "Make the demonstration's logins, class and keys; they are written to demo.json in the data folder."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--url", default=f"http://127.0.0.1:{settings.GAIA.port}", help="where the site is"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        folder = DataFolder(settings.GAIA.data_dir)
        folder.make()
        content = setting.prepare(folder.read("demo.json"), url=options["url"])
        folder.write("demo.json", content)
        folder.write_text("demo.env", setting.as_shell_variables(content))
