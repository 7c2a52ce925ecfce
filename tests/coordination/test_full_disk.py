"""A node on a real file system without room: what callers, probes and readers are told, and that it goes on."""

from __future__ import annotations

import time
from typing import Any

import pytest
import urllib3
from django.conf import settings

from coordination.errors import NotAvailable, OutcomeUnknown
from coordination.log import protocol
from coordination.machine.commands import SessionRegister
from tests.cluster import Cluster, eventually
from tests.log.small_disk import small_disk

SETTINGS = {"RAFT_HEARTBEAT_TIMEOUT": "150ms", "RAFT_ELECTION_TIMEOUT": "300ms"}


def register(name: str, padding: int = 0) -> SessionRegister:
    """With padding it is refused, but fills the journal."""
    return SessionRegister(
        request_id=b"" if padding else name.encode().ljust(16),
        session_id=name,
        session_name=name,
        metadata=f'"{"x" * padding}"' if padding else "{}",
    )


def answer_of(url: str, path: str) -> tuple[int, Any, str | None]:
    response = urllib3.request("GET", url + path, timeout=2.0, retries=False)
    return response.status, response.json(), response.headers.get(protocol.STALE_HEADER)


@pytest.mark.timeout(120)
def test_a_node_without_room_refuses_names_the_disk_can_be_read_and_goes_on() -> None:
    cluster = Cluster(1, database_url=None, extra=SETTINGS)
    try:
        with small_disk(cluster.folder / "n0", mebibytes=8) as disk:
            cluster.start()
            client, url = cluster.client(), cluster.urls[0]
            client.submit([register("kept")])
            assert answer_of(url, "/readyz")[0] == 200
            disk.fill()

            def is_refused() -> bool:
                try:
                    client.submit([register("filler", padding=100_000)], deadline_s=0.5)
                except NotAvailable as refusal:
                    return "the disk is full" in refusal.detail
                except OutcomeUnknown:
                    return False  # it was on its way when the room ran out, and may still be written
                return False

            eventually(is_refused, 30.0, what="the refusal")
            status, body, _ = answer_of(url, "/readyz")
            assert (status, body["status"]) == (503, "stale")
            assert "the disk is full" in body["reason"]
            seen = client.status()
            assert seen["revision"] >= 1
            assert "the disk is full" in seen["stale"]
            assert _stale_header(cluster) == "true"
            assert cluster.nodes[0].process is not None
            assert cluster.nodes[0].process.poll() is None, "it did not stop"

            disk.free()
            eventually(lambda: answer_of(url, "/readyz")[0] == 200, what="readiness")
            (outcome,) = client.submit([register("after")])
            assert outcome.value.how == "new"
            assert client.submit([register("kept")])[0].value.how == "new", "the first answer again"
            assert _stale_header(cluster) is None
    finally:
        cluster.close()


def _stale_header(cluster: Cluster) -> str | None:
    key = protocol.derive_key(settings.GAIA.cluster_secret)
    signature = protocol.sign(key, "GET", "/status", b"", time.time_ns() // 1_000_000)
    headers = {"Authorization": signature}
    return urllib3.request("GET", f"{cluster.urls[0]}/status", headers=headers).headers.get(
        protocol.STALE_HEADER
    )
