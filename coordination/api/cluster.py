"""The cluster: what its members believe, and the little an operator may change."""

from __future__ import annotations

from dataclasses import asdict

from django.core.validators import RegexValidator
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from coordination import services
from coordination.api.endpoint import CoordinationEndpoint
from coordination.api.fields import StrictCharField
from gaia_site.api.endpoint import StrictSerializer
from gaia_site.problems import Problem
from gaia_site.schema import describes

TAG = "cluster"
_NODE_ID = RegexValidator(r"\A[A-Za-z0-9._-]+\Z", "Only letters, digits and . _ - are allowed.")


class MemberSerializer(serializers.Serializer):
    """One seat in the cluster."""

    id = serializers.CharField()
    address = serializers.CharField()
    role = serializers.CharField()
    match_index = serializers.IntegerField()
    lag = serializers.IntegerField()
    last_seen_s = serializers.FloatField(allow_null=True)


class ClusterSerializer(serializers.Serializer):
    """What the leader believes, or the node that answers where it does not."""

    node_id = serializers.CharField()
    role = serializers.CharField()
    leader = serializers.CharField(allow_blank=True, allow_null=True)
    term = serializers.IntegerField()
    commit_index = serializers.IntegerField()
    applied_index = serializers.IntegerField()
    revision = serializers.IntegerField(
        help_text="Applied commands, without holes: what X-Raft-Index counts."
    )
    projected_index = serializers.IntegerField(help_text="The revision that reads cover.")
    members = MemberSerializer(many=True)
    healthy = serializers.BooleanField()


class NewMemberSerializer(StrictSerializer):
    """Who joins."""

    id = StrictCharField(max_length=255, validators=[_NODE_ID])
    address = StrictCharField(
        max_length=255, validators=[RegexValidator(r"\A[A-Za-z0-9.\[\]:_-]+:\d{1,5}\Z", "Must be HOST:PORT.")]
    )


class TransferSerializer(StrictSerializer):
    """Who shall lead; the best follower where nobody is named."""

    node_id = StrictCharField(max_length=255, validators=[_NODE_ID], required=False, allow_null=True)


class Cluster(CoordinationEndpoint):
    """The whole."""

    scopes = {"GET": ("agent", "admin")}

    @describes(
        tag=TAG,
        summary="The cluster",
        answers={200: ClusterSerializer},
        reads_coordination=True,
        operation_id="get_cluster",
    )
    def get(self, request: Request) -> Response:
        """Members, roles, lag."""
        self.only("consistency", "min_index")
        self.read_index()
        status = services.cluster_status()
        return self.answer(ClusterSerializer(asdict(status)).data, revision=status.revision)


class Members(CoordinationEndpoint):
    """Its members."""

    scopes = {"POST": ("admin",)}

    @describes(
        tag=TAG,
        summary="Add a member",
        about="409 where the members come from the configuration, as they do in this version.",
        request=NewMemberSerializer,
        answers={201: ClusterSerializer},
        errors=(409,),
        operation_id="add_cluster_member",
    )
    def post(self, request: Request) -> Response:
        """The cluster with it."""
        self.only()
        wish = self.body(NewMemberSerializer)
        if any(member.id == wish["id"] for member in services.cluster_status().members):
            raise Problem("conflict", f"{wish['id']} is a member already.")
        raise _configured()


class Member(CoordinationEndpoint):
    """One member."""

    scopes = {"DELETE": ("admin",)}

    @describes(
        tag=TAG,
        summary="Remove a member",
        answers={200: ClusterSerializer},
        errors=(404, 409),
        operation_id="remove_cluster_member",
    )
    def delete(self, request: Request, node_id: str) -> Response:
        """The cluster without it."""
        self.only()
        _check_member(node_id)
        raise _configured()


class Transfer(CoordinationEndpoint):
    """Who leads."""

    scopes = {"POST": ("admin",)}

    @describes(
        tag=TAG,
        summary="Hand leadership to a member",
        request=TransferSerializer,
        answers={200: ClusterSerializer},
        errors=(404, 409),
        operation_id="transfer_leadership",
    )
    def post(self, request: Request) -> Response:
        """The cluster under its new leader."""
        self.only()
        wish = self.body(TransferSerializer) if request.data else {}
        seen = services.cluster_status()
        node_id = wish.get("node_id") or _best_follower(seen)
        _check_member(node_id)
        if node_id != seen.leader:
            services.transfer_leadership(node_id)
        return _cluster(self, 200)


def _configured() -> Problem:
    """Why membership cannot be changed from here."""
    return Problem(
        "conflict",
        "The members of this cluster come from its configuration (CLUSTER_DISCOVERY_NODES): "
        "change it on every node and restart them one by one.",
    )


def _check_member(node_id: str) -> None:
    if all(member.id != node_id for member in services.cluster_status().members):
        raise Problem("not-found", f"There is no member {node_id[:255]}.")


def _cluster(endpoint: CoordinationEndpoint, status: int) -> Response:
    seen = services.cluster_status()
    return endpoint.answer(ClusterSerializer(asdict(seen)).data, revision=seen.revision, status=status)


def _best_follower(seen: services.ClusterStatus) -> str:
    """The member that has most of the log and does not lead."""
    followers = [member for member in seen.members if member.id != seen.leader]
    if not followers:
        raise Problem("conflict", "There is no other member to lead.")
    return max(followers, key=lambda member: member.match_index).id
