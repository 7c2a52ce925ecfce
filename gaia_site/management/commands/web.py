"""`manage.py web`: the web process, with HTTP and WebSockets at one address."""

from __future__ import annotations

import socket
from argparse import ArgumentParser
from typing import Any

import uvloop
from django.conf import settings
from django.core.management.base import BaseCommand
from twisted.internet import asyncioreactor


class Command(BaseCommand):
    """Serves until SIGTERM, then answers what is open and ends."""

    help = "Serve the API, the pages and the WebSockets."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Where to listen."""
        parser.add_argument("--host", default=settings.GAIA.host, help="address to listen at (default: HOST)")
        parser.add_argument("--port", default=settings.GAIA.port, type=int, help="port (default: PORT)")
        parser.add_argument("--fd", type=int, help="descriptor of a socket that listens already, instead")

    def handle(self, *args: Any, **options: Any) -> None:
        """Serve."""
        # Twisted takes the loop it finds when it is first imported, which the next imports do.
        asyncioreactor.install(uvloop.new_event_loop())
        from gaia_site.asgi import application  # noqa: PLC0415
        from gaia_site.web_server import WebServer  # noqa: PLC0415

        if options["fd"] is not None:
            listener = socket.socket(fileno=options["fd"])
        else:
            family = socket.AF_INET6 if ":" in options["host"] else socket.AF_INET
            listener = socket.create_server((options["host"], options["port"]), family=family)
        WebServer(application, listener).run()
