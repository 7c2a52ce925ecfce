"""The ASGI application of the web process: hot routes and Django for HTTP, consumers for sockets."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gaia_site.settings")

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()  # must come before anything that imports models

from collections.abc import Callable
from typing import Any

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from django.conf import settings
from django.urls import re_path

from coordination import consumers as coordination_consumers
from gaia_site import hot, web_server
from gaia_site.drain import Drain
from usability import consumers as usability_consumers

settings.GAIA.require("SECRET_KEY", "DATABASE_URL", "CLUSTER_SECRET")


def _checked_origin(application: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse sockets that another site's page opens.

    A browser always says its origin; a client that says none is not a browser, holds no cookie of ours by
    accident, and is left to the consumer's authentication.
    """
    validated = OriginValidator(application, [*settings.ALLOWED_HOSTS, *settings.CSRF_TRUSTED_ORIGINS])

    async def route(scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        says_origin = any(name == b"origin" for name, _ in scope["headers"])
        await (validated if says_origin else application)(scope, receive, send)

    return route


async def _no_such_socket(
    scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]
) -> None:
    """Refuse before the handshake; the router itself would fail with a traceback and a 500."""
    await send({"type": "websocket.close"})


websocket_urlpatterns: list[Any] = [*coordination_consumers.websocket_urlpatterns]
if settings.GAIA.teacher_dashboard_enabled:
    websocket_urlpatterns += usability_consumers.websocket_urlpatterns
websocket_urlpatterns.append(re_path("", _no_such_socket))

application = Drain(
    ProtocolTypeRouter(
        {
            "http": hot.application(django_application),
            "websocket": _checked_origin(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))),
        }
    )
)
application.end_on_signals()
web_server.arrange()

# What is loaded by now stays for good. Left in the collector's care, each full collection walks all of it and
# holds every request for tens of milliseconds.
gc.collect()
gc.freeze()
# What a request makes is gone with it, mostly without a cycle: looking after every 700 objects finds nothing.
gc.set_threshold(20_000, 20, 20)
