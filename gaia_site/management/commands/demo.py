"""`manage.py demo`: the load of the demonstration, until it is stopped. `up` runs it; demo_setup comes before."""

from __future__ import annotations

import os
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gaia_site.demo import load
from gaia_site.embedded.console import Console
from gaia_site.embedded.data_folder import DataFolder
from gaia_site.embedded.supervisor import PartFailed, Supervisor


class Command(BaseCommand):
    """Eight agents on real errands over this checkout, and a simulated class, both through the public API."""

    help = "Run the demonstration's agents and its simulated class against the running site."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        folder = DataFolder(settings.GAIA.data_dir)
        content = folder.read("demo.json")
        if not content:
            raise CommandError("There is no demo.json. Run `manage.py demo_setup` first.")
        environment = {
            "PATH": os.defpath,
            "PYTHONUNBUFFERED": "1",
            "GAIA_STATE_DIR": str(folder.path / "agents"),
        }
        supervisor = Supervisor(Console(), lambda: None)
        supervisor.listen_to_signals()
        try:
            load.run(content, supervisor, environment)
        except PartFailed as error:
            raise CommandError(str(error)) from error
        finally:
            supervisor.ask_to_stop()
            supervisor.stop(("agent",))
