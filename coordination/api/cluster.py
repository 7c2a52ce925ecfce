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
from coordination.api.refusals import STALE_HEADER
from gaia_site.api.endpoint import StrictSerializer
from gaia_site.problems import Problem
from gaia_site.schema import describes

TAG = "cluster"
_NODE_ID = RegexValidator(r"\A[A-Za-z0-9._-]+\Z", "Only letters, digits and . _ - are allowed.")


class MemberSerializer(serializers.Serializer):
    """One seat in the cluster."""

    id = serializers.CharField()
    address = serializers.CharField()
    role = serializers.CharField(
        help_text="leader, follower, candidate; learner: not a voter yet; joining: being admitted again; removed."
    )
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
    stale = serializers.CharField(
        allow_blank=True,
        help_text="Why this may be old; X-Raft-Stale: true then. Empty where it is not.",
    )


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
        return _cluster(self, 200)


class Members(CoordinationEndpoint):
    """Its members."""

    scopes = {"POST": ("admin",)}

    @describes(
        tag=TAG,
        summary="Add a member",
        about=(
            "It joins as a learner, which counts in nothing, and becomes a voter by itself once it keeps up. Repeating "
            "it is harmless: 200 where it is a member at this address already."
        ),
        request=NewMemberSerializer,
        answers={201: ClusterSerializer, 200: ClusterSerializer},
        errors=(409,),
        operation_id="add_cluster_member",
    )
    def post(self, request: Request) -> Response:
        """The cluster with it."""
        self.only()
        wish = self.body(NewMemberSerializer)
        was_there = any(member.id == wish["id"] for member in services.cluster_status().members)
        seen = services.add_member(wish["id"], wish["address"])
        return _cluster(self, 200 if was_there else 201, seen)


class Member(CoordinationEndpoint):
    """One member."""

    scopes = {"DELETE": ("admin",)}

    @describes(
        tag=TAG,
        summary="Remove a member",
        about=(
            "A leader hands over first. 409 where it is the only voter or where without it too few of the others can "
            "be reached."
        ),
        answers={200: ClusterSerializer},
        errors=(404, 409),
        operation_id="remove_cluster_member",
    )
    def delete(self, request: Request, node_id: str) -> Response:
        """The cluster without it."""
        self.only()
        _check_member(node_id)
        return _cluster(self, 200, services.remove_member(node_id))


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


def _check_member(node_id: str) -> None:
    if all(member.id != node_id for member in services.cluster_status().members):
        raise Problem("not-found", f"There is no member {node_id[:255]}.")


def _cluster(
    endpoint: CoordinationEndpoint, status: int, seen: services.ClusterStatus | None = None
) -> Response:
    seen = seen or services.cluster_status()
    answer = endpoint.answer(ClusterSerializer(asdict(seen)).data, revision=seen.revision, status=status)
    if seen.stale:
        answer.headers[STALE_HEADER] = "true"
    return answer


def _best_follower(seen: services.ClusterStatus) -> str:
    """The member that has most of the log and does not lead."""
    followers = [
        member
        for member in seen.members
        if member.id != seen.leader and member.role not in ("learner", "joining")
    ]
    if not followers:
        raise Problem("conflict", "There is no other member to lead.")
    return max(followers, key=lambda member: member.match_index).id
