"""The cluster: what its nodes believe, and the little an operator may change."""

import ipaddress
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from coordination.errors import InvalidError, NotAvailable
from coordination.log.client import node_client
from coordination.selectors import projected_revision


@dataclass(frozen=True, slots=True)
class ClusterMember:
    """One seat, as the leader sees it where it can be asked."""

    id: str
    address: str
    role: str
    match_index: int
    lag: int
    last_seen_s: float | None


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """`healthy`: a leader is known, a majority was heard a moment ago, and the rows keep up.

    `stale` says why all this may be old, empty where it is not: no leader is known to the node, or its disk is full.
    """

    node_id: str
    role: str
    leader: str
    term: int
    commit_index: int
    applied_index: int
    revision: int
    projected_index: int
    members: tuple[ClusterMember, ...]
    healthy: bool
    cluster_id: str
    snapshot_index: int
    stale: str


LAG_MAX = 10_000
SILENCE_MAX_S = 5.0
SHOWN_S = 3.0


def cluster_status() -> ClusterStatus:
    """What the leader believes, or the node that answers where the leader does not. Raises NotAvailable."""
    seen = [status for status in node_client().status_of_each().values() if status is not None]
    if not seen:
        raise NotAvailable("no node answers")
    best = max(seen, key=lambda status: (status["role"] == "leader", status["applied_index"]))
    members = tuple(_member(member) for member in best["members"])
    projected = projected_revision()
    return ClusterStatus(
        node_id=best["node_id"],
        role=best["role"],
        leader=best["leader"],
        term=best["term"],
        commit_index=best["commit_index"],
        applied_index=best["applied_index"],
        revision=best["revision"],
        projected_index=projected,
        members=members,
        healthy=bool(best["leader"])
        and not best["stale"]
        and _majority_is_heard(members)
        and best["revision"] - projected < LAG_MAX,
        cluster_id=best["cluster_id"],
        snapshot_index=best["snapshot_index"],
        stale=best["stale"],
    )


def _member(member: dict[str, Any]) -> ClusterMember:
    return ClusterMember(
        id=member["id"],
        address=member["address"],
        role=member["role"],
        match_index=member["match_index"] or 0,
        lag=member["lag"] or 0,
        last_seen_s=member["last_seen_s"],
    )


def _majority_is_heard(members: tuple[ClusterMember, ...]) -> bool:
    voters = [member for member in members if member.role != "learner"]
    heard = sum(
        member.role == "leader" or (member.last_seen_s is not None and member.last_seen_s < SILENCE_MAX_S)
        for member in voters
    )
    return len(voters) <= 1 or 2 * heard > len(voters)


def transfer_leadership(node_id: str) -> str:
    """Hand leadership to a member; its id. Raises NotAvailable where it could not take over."""
    node_client().transfer(node_id)
    return node_id


def add_member(node_id: str, address: str) -> ClusterStatus:
    """Take a member in, as a learner that becomes a voter by itself; the cluster with it.

    Raises InvalidError (an id or an address that can be none), RejectedError (it is a member at another address, or
    the address is another member's), NotAvailable, OutcomeUnknown.
    """
    _check_seat(node_id, address)
    node_client().add_member(node_id, address)
    return _status_where(lambda members: node_id in members)


def _check_seat(node_id: str, address: str) -> None:
    """Refuses what no node could be called or listen at: the log would keep it, and every member would dial it."""
    if re.fullmatch(r"[A-Za-z0-9._-]{1,64}", node_id) is None:
        raise InvalidError("id", "must be 1 to 64 of A-Z a-z 0-9 . _ -")
    host, _, port = address.rpartition(":")
    if not (_is_host(host) and re.fullmatch(r"[0-9]{1,5}", port) and 0 < int(port) < 65_536):
        raise InvalidError("address", "must be HOST:PORT")


def _is_host(host: str) -> bool:
    """A name of labels that a resolver takes (RFC 1123), an IPv4 address, or an IPv6 address in brackets."""
    if host.startswith("[") and host.endswith("]"):
        try:
            return bool(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            return False
    return (
        len(host) <= 253 and re.fullmatch(r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", host) is not None
    )


def remove_member(node_id: str) -> ClusterStatus:
    """Send a member away; the cluster without it. A leader hands over first.

    Raises NotFound, RejectedError (it is the only voter, or too few others can be reached), NotAvailable,
    OutcomeUnknown.
    """
    node_client().remove_member(node_id)
    return _status_where(lambda members: node_id not in members)


def take_snapshot() -> list[dict[str, Any]]:
    """Have every node that answers take a snapshot now; its id and how far it has applied."""
    return node_client().snapshot()


def _status_where(is_shown: Callable[[set[str]], bool]) -> ClusterStatus:
    """The status once the leader shows the change, which it has committed already."""
    ends_s = time.monotonic() + SHOWN_S
    while True:
        status = cluster_status()
        if is_shown({member.id for member in status.members}) or time.monotonic() > ends_s:
            return status
        time.sleep(0.05)


def explain_task(task_id: uuid.UUID) -> dict[str, Any] | None:
    """Why a live task is or is not assigned, and which session would get it; None where it is not live."""
    return node_client().explain(str(task_id))
