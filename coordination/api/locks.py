"""Locks: acquire, renew, release, look."""

from __future__ import annotations

from typing import Any

import django_filters
from django.core.validators import RegexValidator
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from coordination import access, selectors, services
from coordination.api.endpoint import CoordinationEndpoint
from coordination.api.fields import (
    INTEGER_MOST,
    KEY_PATTERN,
    ObjectField,
    StrictCharField,
    StrictFloatField,
    StrictIntegerField,
)
from coordination.models import DistributedLock
from coordination.services.sessions import METADATA_BYTES_MAX
from gaia_site.api.endpoint import StrictSerializer
from gaia_site.pagination import filtered, page
from gaia_site.problems import invalid
from gaia_site.schema import describes, list_parameters, page_of

TAG = "locks"
ORDERINGS = ("lock_key", "expires_at", "acquired_at")
AGENTS = ("agent", "admin")
TTL_MOST_S = 86_400
WAIT_MOST_S = 30

_is_key = RegexValidator(KEY_PATTERN)


class LockSerializer(serializers.ModelSerializer):
    """A held lock."""

    class Meta:
        model = DistributedLock
        fields = (
            "lock_key",
            "owner_id",
            "fencing_token",
            "acquired_at",
            "expires_at",
            "renewed_count",
            "metadata",
        )
        read_only_fields = fields


class AcquireSerializer(StrictSerializer):
    """Who wants it, for how long, and how long they wait for it."""

    owner_id = StrictCharField(max_length=255)
    ttl_s = StrictFloatField(min_value=0.001, max_value=TTL_MOST_S)
    wait_s = StrictFloatField(min_value=0, max_value=WAIT_MOST_S, default=0)
    metadata = ObjectField(bytes_most=METADATA_BYTES_MAX, default=dict)


class HolderSerializer(StrictSerializer):
    """Who holds it, and the proof."""

    owner_id = StrictCharField(max_length=255)
    fencing_token = StrictIntegerField(min_value=1, max_value=INTEGER_MOST)


class RenewLockSerializer(HolderSerializer):
    """The holder, and for how long more."""

    ttl_s = StrictFloatField(min_value=0.001, max_value=TTL_MOST_S, required=False, allow_null=True)


class HeldLockSerializer(serializers.Serializer):
    """A lock as its holder knows it."""

    lock_key = serializers.CharField()
    owner_id = serializers.CharField()
    fencing_token = serializers.IntegerField(help_text="Grows with every change of holder.")
    expires_at = serializers.DateTimeField()
    renewed_count = serializers.IntegerField()


class ReleasedLockSerializer(serializers.Serializer):
    """A lock given back."""

    lock_key = serializers.CharField()
    released = serializers.BooleanField()


class LockFilter(django_filters.FilterSet):
    """Which locks."""

    owner_id = django_filters.CharFilter()

    class Meta:
        model = DistributedLock
        fields: tuple[str, ...] = ()


class Locks(CoordinationEndpoint):
    """All held locks."""

    scopes = {"GET": AGENTS}

    @describes(
        tag=TAG,
        summary="List held locks",
        answers={200: page_of(LockSerializer)},
        parameters=list_parameters(LockFilter, ORDERINGS),
        reads_coordination=True,
        operation_id="list_locks",
    )
    def get(self, request: Request) -> Response:
        """One page."""
        rows = filtered(LockFilter, request.query_params, access.locks(self.caller))
        revision = self.read_index()
        found = page(request, rows, orderings=ORDERINGS)
        return self.answer(found.as_json(LockSerializer(found.rows, many=True).data), revision=revision)


class Lock(CoordinationEndpoint):
    """One held lock."""

    scopes = {"GET": AGENTS}

    @describes(
        tag=TAG,
        summary="One held lock",
        about="404 where nobody holds it.",
        answers={200: LockSerializer},
        errors=(404,),
        reads_coordination=True,
        operation_id="get_lock",
    )
    def get(self, request: Request, key: str) -> Response:
        """The lock."""
        self.only("consistency", "min_index")
        check_key(key)
        revision = self.read_index()
        return self.answer(LockSerializer(selectors.lock(key)).data, revision=revision)


class Acquire(CoordinationEndpoint):
    """Take a lock."""

    scopes = {"POST": AGENTS}

    @describes(
        tag=TAG,
        summary="Take, renew or wait for a lock",
        about="Held by another: 409 with `owner_id` and `expires_at`, after `wait_s` in the queue. The same owner again renews.",
        request=AcquireSerializer,
        answers={200: HeldLockSerializer},
        errors=(409,),
        operation_id="acquire_lock",
    )
    def post(self, request: Request, key: str) -> Response:
        """The lock."""
        self.only()
        check_key(key)
        wish = self.body(AcquireSerializer)
        held = services.acquire_lock(
            key,
            wish["owner_id"],
            ttl_s=wish["ttl_s"],
            wait_s=wish["wait_s"],
            metadata=wish["metadata"],
            actor=self.caller.actor,
            request_id=self.command_id,
        )
        return self.answer(shown(held), revision=held.revision)


class Renew(CoordinationEndpoint):
    """Keep a lock."""

    scopes = {"POST": AGENTS}

    @describes(
        tag=TAG,
        summary="Prolong a lock",
        request=RenewLockSerializer,
        answers={200: HeldLockSerializer},
        errors=(412,),
        operation_id="renew_lock",
    )
    def post(self, request: Request, key: str) -> Response:
        """The lock."""
        self.only()
        check_key(key)
        wish = self.body(RenewLockSerializer)
        held = services.renew_lock(
            key,
            wish["owner_id"],
            wish["fencing_token"],
            ttl_s=wish.get("ttl_s") or 0.0,
            actor=self.caller.actor,
            request_id=self.command_id,
        )
        return self.answer(shown(held), revision=held.revision)


class Release(CoordinationEndpoint):
    """Give a lock back."""

    scopes = {"POST": AGENTS}

    @describes(
        tag=TAG,
        summary="Give a lock back",
        request=HolderSerializer,
        answers={200: ReleasedLockSerializer},
        errors=(412,),
        operation_id="release_lock",
    )
    def post(self, request: Request, key: str) -> Response:
        """That it is free."""
        self.only()
        check_key(key)
        wish = self.body(HolderSerializer)
        revision = services.release_lock(
            key, wish["owner_id"], wish["fencing_token"], actor=self.caller.actor, request_id=self.command_id
        )
        return self.answer({"lock_key": key, "released": True}, revision=revision)


def check_key(key: str) -> None:
    """Refuses a key with characters that no lock has."""
    if len(key) > 255 or not _is_key.regex.match(key):
        raise invalid(("path", "key"), "Up to 255 letters, digits and . _ : / @ + - are allowed.")


def shown(held: services.HeldLock) -> dict[str, Any]:
    """A lock as its holder is told of it."""
    return {
        "lock_key": held.lock_key,
        "owner_id": held.owner_id,
        "fencing_token": held.fencing_token,
        "expires_at": held.expires_at,
        "renewed_count": held.renewed_count,
    }
