"""`manage.py up`: the whole system on this machine, from nothing. What `make run` calls."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from gaia_site import env
from gaia_site.embedded.console import Console
from gaia_site.embedded.system import CannotRun, System


class Command(BaseCommand):
    """Starts PostgreSQL and Redis where none is configured, the nodes, web, worker and demonstration."""

    help = "Run the whole system on this machine until Ctrl-C."
    requires_system_checks: list[str] = []  # there is no database yet to check anything against

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            environment = env.load(settings.BASE_DIR, after_up=False)
            System(environment, folder=settings.BASE_DIR, console=Console()).run()
        except (CannotRun, env.WrongSetting) as error:
            raise CommandError(str(error)) from error
