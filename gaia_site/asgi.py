"""The ASGI application that daphne serves: hot routes and Django for HTTP, consumers for sockets."""

import os
from importlib import import_module
from importlib.util import find_spec

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "gaia_site.settings")

from django.core.asgi import get_asgi_application

django_application = get_asgi_application()  # must come before anything that imports models

from channels.auth import AuthMiddlewareStack
from channels.routing import ProtocolTypeRouter, URLRouter
from channels.security.websocket import OriginValidator
from django.conf import settings

from gaia_site.drain import Drain

settings.GAIA.require("SECRET_KEY", "DATABASE_URL", "CLUSTER_SECRET")


def _when_there(module, name, default):
    """A part that is still being built; every part is there before this function goes."""
    try:
        return getattr(import_module(module), name) if find_spec(module) else default
    except ModuleNotFoundError:
        return default


def _checked_origin(application):
    """Refuse sockets that another site's page opens.

    A browser always says its origin; a client that says none is not a browser, holds no cookie of ours by
    accident, and is left to the consumer's authentication.
    """
    validated = OriginValidator(application, [*settings.ALLOWED_HOSTS, *settings.CSRF_TRUSTED_ORIGINS])

    async def route(scope, receive, send):
        says_origin = any(name == b"origin" for name, _ in scope["headers"])
        await (validated if says_origin else application)(scope, receive, send)

    return route


def _http():
    try:
        return _when_there("gaia_site.hot", "application", lambda application: application)(
            django_application
        )
    except ModuleNotFoundError:
        return django_application


websocket_urlpatterns = [
    *_when_there("coordination.consumers", "websocket_urlpatterns", []),
    *_when_there("usability.consumers", "websocket_urlpatterns", []),
]

application = Drain(
    ProtocolTypeRouter(
        {
            "http": _http(),
            "websocket": _checked_origin(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))),
        }
    )
)
application.end_on_signals()
