"""Who is calling: API keys, signed session tokens and browser logins, all seen as a `Principal`.

A key is looked up by its public prefix and compared by SHA-256: the secret part is 256 random bits, so
a slow hash would protect nothing. Every process remembers a key for less than a second, so that
revoking one takes effect within a second everywhere. While the database cannot be asked, what was last
known stands: nobody can revoke a key then either.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from django.conf import settings
from django.contrib.auth.models import AbstractBaseUser
from django.db import Error as DatabaseError
from django.utils import timezone
from rest_framework import authentication, permissions
from rest_framework.request import Request

from gaia_site.background import in_database
from gaia_site.models import ApiKey, Scope
from gaia_site.problems import Problem

KEY_MARK = "gaia"
TOKEN_MARK = "gaiat"  # noqa: S105  how a token begins
CACHE_S = 0.8
CACHE_SIZE = 10_000
STALE_LIMIT_S = 600.0
READ_TIMEOUT_S = 2.0
USED_RESOLUTION_S = 60
TOKEN_TTL_LIMIT_S = 86_400

_IMPLIED: dict[str, frozenset[str]] = {
    Scope.ADMIN: frozenset({Scope.AGENT, Scope.METRICS_READ, Scope.TEACHER}),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller of one request.

    `kind` is "key", "browser" or "student" (a signed session token: that student and app only).
    `subject` names the caller uniquely and for ever: idempotency and rate limits count by it.
    `app_name` empty: not bound to an app. `origins`: pages that may call with it from a browser.
    """

    kind: str
    subject: str
    name: str
    scopes: frozenset[str]
    user: AbstractBaseUser | None
    key_id: str = ""
    app_name: str = ""
    student_id: str = ""
    origins: tuple[str, ...] = ()

    @property
    def actor(self) -> str:
        """How the audit log names the caller."""
        return f"{self.kind}:{self.name}"

    @property
    def is_admin(self) -> bool:
        """Whether the caller may operate the system."""
        return Scope.ADMIN in self.scopes

    def has_any(self, *scopes: str) -> bool:
        """Whether one of `scopes` is held, directly or by what `admin` includes."""
        return not self.scopes.isdisjoint(scopes)

    def demand(self, *scopes: str) -> None:
        """Raises permission-denied unless one of `scopes` is held."""
        if not self.has_any(*scopes):
            raise Problem("permission-denied", f"This needs the scope {' or '.join(map(str, scopes))}.")


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read about one prefix: the digest and the principal it opens, or nothing."""

    digest: bytes
    expires_at: datetime | None
    principal: Principal | None
    read_at_s: float


_cache: OrderedDict[str, _Known] = OrderedDict()


def forget_keys() -> None:
    """Empties this process's memory of keys (after a change made in this very process, and in tests)."""
    _cache.clear()


# --- issuing -------------------------------------------------------------------------------------


def issue_key(
    *,
    name: str,
    owner: AbstractBaseUser,
    scopes: Iterable[str],
    app_name: str = "",
    allowed_origins: Iterable[str] = (),
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key and its secret, which cannot be shown again. Raises ValidationError for wrong fields."""
    prefix = secrets.token_hex(6)
    secret = f"{KEY_MARK}_{prefix}_{secrets.token_urlsafe(32)}"
    key = ApiKey(
        name=name,
        owner=owner,
        prefix=prefix,
        digest=_digest(secret),
        scopes=sorted(set(scopes)),
        app_name=app_name,
        allowed_origins=list(allowed_origins),
        expires_at=expires_at,
    )
    key.full_clean()
    key.save(force_insert=True)
    return key, secret


def revoke_key(key: ApiKey) -> None:
    """Ends a key for good; every process refuses it within a second."""
    ApiKey.objects.filter(pk=key.pk, revoked_at=None).update(
        revoked_at=timezone.now(), updated_at=timezone.now()
    )
    forget_keys()


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


# --- looking up ----------------------------------------------------------------------------------


def principal_of(secret: str) -> Principal:
    """The caller a bearer credential names. Raises not-authenticated. Asks the database when due."""
    prefix = _prefix(secret)
    known = _fresh(prefix)
    if known is None:
        known = _remember(prefix, _stale_if_unreachable(prefix))
    return _judge(secret, known)


async def principal_of_async(secret: str) -> Principal:
    """:func:`principal_of` for code in the event loop; the common case touches no thread."""
    prefix = _prefix(secret)
    known = _fresh(prefix)
    if known is None:
        known = _remember(prefix, await _read_in_time(prefix))
    return _judge(secret, known)


async def _read_in_time(prefix: str) -> _Known:
    """As :func:`_stale_if_unreachable`; a database that does not answer is as good as one that is away."""
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await in_database(_stale_if_unreachable, prefix)
    except TimeoutError as error:
        return _stale(prefix, error)


def _prefix(secret: str) -> str:
    """The key prefix inside a key or a session token; raises not-authenticated for anything else."""
    mark, _, rest = secret.partition("_")
    prefix, _, tail = rest.partition("_")
    if mark not in (KEY_MARK, TOKEN_MARK) or len(prefix) != 12 or not tail or len(secret) > 2_000:
        raise Problem("not-authenticated", "This is not an API key of this system.")
    return prefix


def _fresh(prefix: str) -> _Known | None:
    known = _cache.get(prefix)
    return known if known is not None and time.monotonic() - known.read_at_s < CACHE_S else None


def _remember(prefix: str, known: _Known) -> _Known:
    _cache[prefix] = known
    _cache.move_to_end(prefix)
    while len(_cache) > CACHE_SIZE:
        _cache.popitem(last=False)
    return known


def _stale_if_unreachable(prefix: str) -> _Known:
    try:
        return _read(prefix)
    except DatabaseError as error:
        return _stale(prefix, error)


def _stale(prefix: str, error: Exception) -> _Known:
    known = _cache.get(prefix)
    if known is None or time.monotonic() - known.read_at_s > STALE_LIMIT_S:
        raise Problem("overloaded", "Keys cannot be checked: the database is not available.") from error
    return known


def _read(prefix: str) -> _Known:
    """What the database says about a prefix; also notes, at most once a minute, that the key is in use."""
    read_at_s = time.monotonic()
    key = ApiKey.objects.select_related("owner").filter(prefix=prefix).first()
    now = timezone.now()
    if key is None or not key.is_usable(now) or not key.owner.is_active:
        return _Known(b"", None, None, read_at_s)
    if key.last_used_at is None or now - key.last_used_at > timedelta(seconds=USED_RESOLUTION_S):
        ApiKey.objects.filter(pk=key.pk).update(last_used_at=now)
    scopes = frozenset(key.scopes).union(*(_IMPLIED.get(scope, frozenset()) for scope in key.scopes))
    principal = Principal(
        kind="key",
        subject=f"key:{key.pk}",
        name=key.name,
        scopes=scopes,
        user=key.owner,
        key_id=str(key.pk),
        app_name=key.app_name,
        origins=tuple(key.allowed_origins),
    )
    return _Known(bytes(key.digest), key.expires_at, principal, read_at_s)


def _judge(secret: str, known: _Known) -> Principal:
    now = timezone.now()
    if known.principal is None or (known.expires_at is not None and known.expires_at <= now):
        raise Problem("not-authenticated", "The key is unknown, expired or revoked.")
    if secret.startswith(TOKEN_MARK + "_"):
        return _student(secret, known.principal, now)
    if not hmac.compare_digest(_digest(secret), known.digest):
        raise Problem("not-authenticated", "The key is unknown, expired or revoked.")
    return known.principal


# --- session tokens ------------------------------------------------------------------------------


class _Claims(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What a session token says: whose, for which app, until when (unix seconds)."""

    student_id: str
    app_name: str
    expires_at_s: int


def issue_session_token(
    principal: Principal, *, student_id: str, app_name: str, ttl_s: int, now: datetime | None = None
) -> tuple[str, datetime]:
    """A token a pupil's browser may hold, and when it ends: it writes that student's metrics and ratings
    in that app and nothing else. It dies with the key it was made with.
    """
    if not 1 <= ttl_s <= TOKEN_TTL_LIMIT_S:
        raise ValueError(f"ttl_s must be 1..{TOKEN_TTL_LIMIT_S}, not {ttl_s}")
    expires_at_s = int((now or timezone.now()).timestamp()) + ttl_s
    prefix = ApiKey.objects.values_list("prefix", flat=True).get(pk=principal.key_id)
    claims = _base64(msgspec.json.encode(_Claims(student_id, app_name, expires_at_s)))
    token = f"{TOKEN_MARK}_{prefix}_{claims}.{_signature(prefix, claims)}"
    return token, datetime.fromtimestamp(expires_at_s, UTC)


def _student(token: str, issuer: Principal, now: datetime) -> Principal:
    """The principal of a session token whose issuing key is alive and may write metrics."""
    refusal = Problem("not-authenticated", "The session token is not valid or is over.")
    prefix = _prefix(token)
    claims, _, signature = token.split("_", 2)[2].rpartition(".")
    if not hmac.compare_digest(signature.encode(), _signature(prefix, claims).encode()):
        raise refusal
    try:
        said = msgspec.json.decode(base64.urlsafe_b64decode(claims + "=="), type=_Claims)
    except (binascii.Error, msgspec.MsgspecError, ValueError) as error:
        raise refusal from error
    if said.expires_at_s <= now.timestamp() or not issuer.has_any(Scope.METRICS_WRITE):
        raise refusal
    return Principal(
        kind="student",
        subject=f"student:{said.app_name}:{said.student_id}",
        name=f"{said.app_name}/{said.student_id}",
        scopes=frozenset({Scope.METRICS_WRITE}),
        user=None,
        key_id=issuer.key_id,
        app_name=said.app_name,
        student_id=said.student_id,
        origins=issuer.origins,
    )


def _signature(prefix: str, claims: str) -> str:
    secret = hashlib.sha256(b"gaia session token\0" + settings.SECRET_KEY.encode()).digest()
    return _base64(hmac.digest(secret, f"{prefix}.{claims}".encode(), "sha256"))


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


# --- browser logins ------------------------------------------------------------------------------


def principal_of_user(user: Any) -> Principal:
    """The caller behind a signed-in browser: everybody has their own classrooms, staff the system."""
    scopes = {Scope.TEACHER, Scope.METRICS_READ}
    if user.is_staff:
        scopes |= {Scope.ADMIN, Scope.AGENT}
    return Principal(
        kind="browser",
        subject=f"user:{user.pk}",
        name=user.get_username(),
        scopes=frozenset(map(str, scopes)),
        user=user,
    )


def bearer(authorization: str) -> str | None:
    """The credential of an Authorization header, None where there is none; another scheme is refused."""
    if not authorization:
        return None
    scheme, _, credential = authorization.partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise Problem("not-authenticated", "Send Authorization: Bearer <api key>.")
    return credential.strip()


# --- DRF -----------------------------------------------------------------------------------------


class KeyAuthentication(authentication.BaseAuthentication):
    """`Authorization: Bearer`: sets `request.user` to the owner and `request.auth` to the principal."""

    def authenticate(self, request: Request) -> tuple[Any, Principal] | None:
        """DRF's hook; None lets the browser's login speak."""
        secret = bearer(request.META.get("HTTP_AUTHORIZATION", ""))
        if secret is None:
            return None
        principal = principal_of(secret)
        return principal.user, principal

    def authenticate_header(self, request: Request) -> str:
        """Makes DRF answer 401 rather than 403 where nobody is known."""
        return 'Bearer realm="gaia"'


class BrowserAuthentication(authentication.SessionAuthentication):
    """The signed-in browser, with CSRF enforced by DRF's own session class."""

    def authenticate(self, request: Request) -> tuple[Any, Principal] | None:
        """DRF's hook."""
        found = super().authenticate(request)
        return None if found is None else (found[0], principal_of_user(found[0]))


def requires(*scopes: str) -> type[permissions.BasePermission]:
    """The DRF permission of callers that hold one of `scopes`; none given: any known caller but a student."""

    class Requires(permissions.BasePermission):
        def has_permission(self, request: Request, view: Any) -> bool:
            principal = request.auth
            if not isinstance(principal, Principal):
                raise Problem("not-authenticated", "Send Authorization: Bearer <api key>, or sign in.")
            if scopes:
                principal.demand(*scopes)
            elif principal.kind == "student":
                raise Problem("permission-denied", "A session token only writes its own student's metrics.")
            return True

    return Requires
