"""Whom to ask first: the configured list, or DNS. Who really is a member stands in the log.

An empty data directory with CLUSTER_BOOTSTRAP founds a cluster with exactly these members. Without it, and with a
directory that knows its cluster, they are only addresses to begin with.
"""

import time
from collections.abc import Sequence

import dns.exception
import dns.resolver

from coordination.log.contract import Peer
from gaia_site.env import DiscoveryType, Environment

DNS_TIMEOUT_S = 5.0
DNS_WAIT_S = 120.0
DNS_PAUSE_S = 2.0


class NotAMember(Exception):
    """The configuration does not name this node among the members. The message is for the operator."""


def members_of(environment: Environment) -> tuple[Peer, ...]:
    """Every configured member, this node among them if it may found a cluster; empty for a single node.

    Raises NotAMember.
    """
    if not environment.cluster_enabled:
        return ()
    nodes = environment.cluster_discovery_nodes
    if environment.cluster_discovery_type is DiscoveryType.DNS:
        members = _by_dns(nodes, environment.cluster_node_id if environment.cluster_bootstrap else "")
    else:
        members = static_members(nodes, environment)
    if environment.cluster_bootstrap:
        require_member(members, environment)
    return members


def static_members(nodes: Sequence[str], environment: Environment) -> tuple[Peer, ...]:
    """Members from `ID=HOST:PORT` entries; one without an id is known by its address."""
    found = []
    for entry in nodes:
        node_id, _, address = entry.rpartition("=")
        is_self = not node_id and address in (
            environment.cluster_advertise_addr,
            environment.cluster_bind_addr,
        )
        found.append(Peer(node_id or (environment.cluster_node_id if is_self else address), address))
    return tuple(found)


def require_member(members: Sequence[Peer], environment: Environment) -> None:
    """Raise NotAMember unless this node's id is listed once, at the address it advertises."""
    ids = [member.node_id for member in members]
    addresses = [member.address for member in members]
    if len(set(ids)) < len(ids) or len(set(addresses)) < len(addresses):
        raise NotAMember(f"CLUSTER_DISCOVERY_NODES names a member or an address twice: {', '.join(ids)}")
    own = {member.node_id: member.address for member in members}.get(environment.cluster_node_id)
    if own is None:
        raise NotAMember(
            f"CLUSTER_NODE_ID is {environment.cluster_node_id!r}, but the members are {', '.join(ids) or 'none'}."
            " List this node in CLUSTER_DISCOVERY_NODES as ID=HOST:PORT."
        )
    if own != environment.cluster_advertise_addr:
        raise NotAMember(
            f"CLUSTER_DISCOVERY_NODES has {environment.cluster_node_id} at {own}, but this node advertises"
            f" {environment.cluster_advertise_addr} (CLUSTER_ADVERTISE_ADDR)."
        )


def _by_dns(names: Sequence[str], node_id: str) -> tuple[Peer, ...]:
    """Members by the SRV records of a name (id = first label of the target) or else by its addresses (id =
    the address); asked again until this node, or without an id any node, is among them.
    """
    ends_s = time.monotonic() + DNS_WAIT_S
    while True:
        members = tuple(peer for name in names for peer in resolve(*_split(name)))
        is_there = any(member.node_id == node_id for member in members) if node_id else bool(members)
        if is_there or time.monotonic() > ends_s:
            return members
        time.sleep(DNS_PAUSE_S)


def _split(entry: str) -> tuple[str, int]:
    host, _, port = entry.rpartition("=")[2].rpartition(":")
    return host, int(port)


def resolve(name: str, port: int) -> list[Peer]:
    """The members a name stands for now, in a stable order; none where it does not resolve."""
    services = _answers(name, "SRV")
    if services:
        targets = {(str(answer.target).rstrip("."), answer.port) for answer in services}
        return [
            Peer(target.partition(".")[0], f"{target}:{srv_port}") for target, srv_port in sorted(targets)
        ]
    four = [(str(answer.address), f"{answer.address}:{port}") for answer in _answers(name, "A")]
    six = [(str(answer.address), f"[{answer.address}]:{port}") for answer in _answers(name, "AAAA")]
    return [Peer(address, at) for address, at in sorted(four + six)]


def _answers(name: str, kind: str) -> list:
    try:
        return list(dns.resolver.resolve(name, kind, lifetime=DNS_TIMEOUT_S))
    except dns.exception.DNSException:
        return []
