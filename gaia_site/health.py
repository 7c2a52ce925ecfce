"""Is this process up, and does it have what it needs? For load balancers, `up` and Prometheus."""

from __future__ import annotations

import urllib3
from django.conf import settings
from django.db import Error as DatabaseError
from django.db import connection
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe
from redis import Redis, RedisError

from gaia_site import telemetry

PROBE_TIMEOUT_S = 2.0


@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """200 as long as this process answers at all."""
    return JsonResponse({"status": "ok"})


@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """200, or 503 naming what is missing: `database`, `broker`, `leader`."""
    probes = {"database": _database_answers, "broker": _broker_answers, "leader": _leader_is_known}
    missing = [name for name, probe in probes.items() if not probe()]
    status = 503 if missing else 200
    return JsonResponse({"status": "missing" if missing else "ready", "missing": missing}, status=status)


@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """This process's metrics for Prometheus."""
    content, content_type = telemetry.exposition()
    return HttpResponse(content, content_type=content_type)


def _database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return False
    return True


def _broker_answers() -> bool:
    """A missing broker is no fault where none is configured: pushing then stays inside the process."""
    if settings.GAIA.redis_url is None:
        return True
    broker = Redis.from_url(
        settings.GAIA.redis_url, socket_timeout=PROBE_TIMEOUT_S, socket_connect_timeout=PROBE_TIMEOUT_S
    )
    try:
        return bool(broker.ping())
    except RedisError:
        return False
    finally:
        broker.close()


_nodes = urllib3.PoolManager(
    timeout=urllib3.Timeout(total=PROBE_TIMEOUT_S), retries=False, maxsize=2, block=False
)


def _leader_is_known() -> bool:
    """Does any node say that it is ready, that is, it knows a leader?"""
    return any(_is_ready(url) for url in settings.GAIA.cluster_node_urls)


def _is_ready(node_url: str) -> bool:
    try:
        return bool(_nodes.request("GET", f"{node_url}/readyz").status == 200)
    except urllib3.exceptions.HTTPError:
        return False
