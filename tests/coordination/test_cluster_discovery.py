"""Members found by DNS, asked of a name server of our own on loopback."""

import socket
import threading
from collections.abc import Iterator

import dns.message
import dns.rdatatype
import dns.resolver
import dns.rrset
import pytest

from coordination.log.contract import Peer
from coordination.node import membership
from coordination.node.membership import NotAMember, members_of, resolve
from gaia_site.env import load

RECORDS = {
    ("nodes.gaia.test.", "A"): ["10.0.0.2", "10.0.0.1"],
    ("nodes.gaia.test.", "AAAA"): ["fd00::1"],
    ("_raft._tcp.gaia.test.", "SRV"): [
        "0 0 7400 node-2.gaia.test.",
        "0 0 7401 node-1.gaia.test.",
        "0 0 7400 node-3.gaia.test.",
    ],
}


class NameServer:
    """Answers from RECORDS over UDP; an unknown name is answered without records."""

    def __init__(self) -> None:
        self.records = dict(RECORDS)
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.1)
        self.port = self._socket.getsockname()[1]
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._is_over.is_set():
            try:
                data, asker = self._socket.recvfrom(4096)
            except TimeoutError:
                continue
            query = dns.message.from_wire(data)
            question = query.question[0]
            answer = dns.message.make_response(query)
            kind = dns.rdatatype.to_text(question.rdtype)
            found = self.records.get((str(question.name), kind), [])
            if found:
                answer.answer.append(dns.rrset.from_text(question.name, 1, "IN", kind, *found))
            self._socket.sendto(answer.to_wire(), asker)

    def close(self) -> None:
        self._is_over.set()
        self._thread.join(5)
        self._socket.close()


@pytest.fixture
def name_server(monkeypatch) -> Iterator[NameServer]:
    server = NameServer()
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.search = ["127.0.0.1"], server.port, []
    monkeypatch.setattr(dns.resolver, "default_resolver", resolver)
    yield server
    server.close()


def environment(tmp_path, monkeypatch, **values: str):
    settings = {
        "CLUSTER_ENABLED": "true",
        "CLUSTER_DISCOVERY_TYPE": "dns",
        "CLUSTER_SECRET": "s" * 40,
        **values,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return load(tmp_path)


def test_service_records_name_members_and_their_ports(name_server):
    assert resolve("_raft._tcp.gaia.test", 1) == [
        Peer("node-1", "node-1.gaia.test:7401"),
        Peer("node-2", "node-2.gaia.test:7400"),
        Peer("node-3", "node-3.gaia.test:7400"),
    ]


def test_addresses_are_members_where_there_are_no_service_records(name_server):
    assert resolve("nodes.gaia.test", 7400) == [
        Peer("10.0.0.1", "10.0.0.1:7400"),
        Peer("10.0.0.2", "10.0.0.2:7400"),
        Peer("fd00::1", "[fd00::1]:7400"),
    ]


def test_a_name_without_records_has_no_members(name_server):
    assert resolve("nobody.gaia.test", 7400) == []


def test_a_founder_waits_until_its_own_record_is_there(name_server, tmp_path, monkeypatch):
    monkeypatch.setattr(membership, "DNS_PAUSE_S", 0.05)
    found = environment(
        tmp_path,
        monkeypatch,
        CLUSTER_NODE_ID="node-9",
        CLUSTER_ADVERTISE_ADDR="node-9.gaia.test:7400",
        CLUSTER_DISCOVERY_NODES="_raft._tcp.gaia.test:7400",
    )
    key = ("_raft._tcp.gaia.test.", "SRV")
    later = threading.Timer(
        0.3,
        lambda: name_server.records.__setitem__(key, [*RECORDS[key], "0 0 7400 node-9.gaia.test."]),
    )
    later.start()

    assert "node-9" in [member.node_id for member in members_of(found)]


def test_a_founder_that_never_appears_is_told_so(name_server, tmp_path, monkeypatch):
    monkeypatch.setattr(membership, "DNS_WAIT_S", 0.2)
    monkeypatch.setattr(membership, "DNS_PAUSE_S", 0.05)
    found = environment(
        tmp_path,
        monkeypatch,
        CLUSTER_NODE_ID="node-9",
        CLUSTER_DISCOVERY_NODES="_raft._tcp.gaia.test:7400",
    )

    with pytest.raises(NotAMember, match="node-1, node-2, node-3"):
        members_of(found)


def test_one_that_may_not_found_need_not_be_listed(name_server, tmp_path, monkeypatch):
    found = environment(
        tmp_path,
        monkeypatch,
        CLUSTER_NODE_ID="node-9",
        CLUSTER_BOOTSTRAP="false",
        CLUSTER_DISCOVERY_NODES="_raft._tcp.gaia.test:7400",
    )

    assert [member.node_id for member in members_of(found)] == ["node-1", "node-2", "node-3"]
