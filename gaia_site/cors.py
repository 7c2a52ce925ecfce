"""Browsers of other origins: which pages may call with which key.

A key lists the origins it is meant for. A question without credentials (preflight) is answered for any
origin that some living key lists; the call itself is then judged by its own key.
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from django.db.models import Q
from django.utils import timezone

from gaia_site.background import in_database
from gaia_site.keys import Principal
from gaia_site.models import ApiKey
from gaia_site.problems import Problem

ALLOWED_HEADERS = "Authorization, Content-Type, Content-Encoding, Idempotency-Key"
EXPOSED_HEADERS = "RateLimit, RateLimit-Policy, Retry-After, Idempotent-Replayed"
MAX_AGE_S = 600
KNOWN_FOR_S = 1.0

_known: tuple[float, frozenset[str]] = (float("-inf"), frozenset())


def check(principal: Principal, origin: str | None) -> None:
    """Refuses a key used from a page it is not meant for. Our own pages come with a login, not a key."""
    if origin is None or principal.kind == "browser" or _is_allowed(principal.origins, origin):
        return
    raise Problem("permission-denied", f"This key is not meant for pages of {origin[:200]}.")


def headers(principal: Principal, origin: str | None) -> dict[str, str]:
    """What lets the calling page read the answer; nothing for a page the key does not list."""
    if origin is None or principal.kind == "browser" or not _is_allowed(principal.origins, origin):
        return {}
    return _readable(origin)


def refusal_headers(origin: str | None) -> dict[str, str]:
    """What lets a page read a 401: nobody is known, so it is any page that some living key lists.

    Without them a browser tells its page of a network error, and the page cannot ask for a new token.
    """
    return _refusal(origin, _origins_known() or _remember(_read_origins()))


async def refusal_headers_async(origin: str | None) -> dict[str, str]:
    """:func:`refusal_headers` for the event loop."""
    return _refusal(origin, _origins_known() or _remember(await in_database(_read_origins)))


def preflight_headers(origin: str | None, methods: Iterable[str]) -> dict[str, str]:
    """The answer to a preflight; asks the database at most once a second."""
    return _preflight(origin, methods, _origins_known() or _remember(_read_origins()))


async def preflight_headers_async(origin: str | None, methods: Iterable[str]) -> dict[str, str]:
    """:func:`preflight_headers` for the event loop."""
    return _preflight(origin, methods, _origins_known() or _remember(await in_database(_read_origins)))


def _refusal(origin: str | None, known: frozenset[str]) -> dict[str, str]:
    if origin is None or not _is_allowed(known, origin):
        return {"Vary": "Origin"}
    return _readable(origin)


def _readable(origin: str) -> dict[str, str]:
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": EXPOSED_HEADERS,
        "Vary": "Origin",
    }


def _preflight(origin: str | None, methods: Iterable[str], known: frozenset[str]) -> dict[str, str]:
    if origin is None or not _is_allowed(known, origin):
        return {"Vary": "Origin"}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": ", ".join(methods),
        "Access-Control-Allow-Headers": ALLOWED_HEADERS,
        "Access-Control-Max-Age": str(MAX_AGE_S),
        "Vary": "Origin",
    }


def _is_allowed(origins: Iterable[str], origin: str) -> bool:
    return any(allowed in ("*", origin) for allowed in origins)


def _origins_known() -> frozenset[str] | None:
    read_at_s, origins = _known
    return origins if time.monotonic() - read_at_s < KNOWN_FOR_S else None


def _read_origins() -> frozenset[str]:
    alive = ApiKey.objects.filter(Q(expires_at=None) | Q(expires_at__gt=timezone.now()), revoked_at=None)
    return frozenset(
        origin
        for origins in alive.exclude(allowed_origins=[]).values_list("allowed_origins", flat=True)
        for origin in origins
    )


def _remember(origins: frozenset[str]) -> frozenset[str]:
    global _known  # noqa: PLW0603  one memory a process
    _known = (time.monotonic(), origins)
    return origins
