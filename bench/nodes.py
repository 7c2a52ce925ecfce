"""Three nodes of ours as processes on loopback ports, without a database: the cluster at its node interface."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

from coordination.errors import CoordinationError
from coordination.log.client import NodeClient

ROOT = Path(__file__).resolve().parent.parent
SECRET = "a-cluster-secret-for-benchmarks-alone"
START_S = 60.0


def free_ports(count: int) -> list[int]:
    """Ports nobody listens at now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Nodes:
    """Use as a context manager: started and led on entering, ended on leaving."""

    def __init__(self, folder: Path, size: int = 3, **settings: str) -> None:
        raft, http = free_ports(size), free_ports(size)
        members = ",".join(f"n{number}=127.0.0.1:{port}" for number, port in enumerate(raft))
        self.urls = {f"n{number}": f"http://127.0.0.1:{port}" for number, port in enumerate(http)}
        self._environments = [
            {
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "gaia_site.settings",
                "SECRET_KEY": "a-key-for-benchmarks-alone-0123456789abcdef",
                "GAIA_DATA_DIR": str(folder / "data"),
                "CLUSTER_ENABLED": "true" if size > 1 else "false",
                "CLUSTER_NODE_ID": f"n{number}",
                "CLUSTER_BIND_ADDR": f"127.0.0.1:{raft[number]}",
                "CLUSTER_ADVERTISE_ADDR": f"127.0.0.1:{raft[number]}",
                "CLUSTER_HTTP_ADDR": f"127.0.0.1:{http[number]}",
                "CLUSTER_DATA_DIR": str(folder / f"n{number}"),
                "CLUSTER_DISCOVERY_NODES": members,
                "CLUSTER_SECRET": SECRET,
                "DATABASE_URL": "",
                "REDIS_URL": "",
                "LOG_LEVEL": "WARNING",
                **settings,
            }
            for number in range(size)
        ]
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        for environment in self._environments:
            command = [sys.executable, str(ROOT / "manage.py"), "raft_node"]
            self.processes.append(subprocess.Popen(command, env=environment, cwd=ROOT))
        self.leader_url()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def leader_url(self) -> str:
        """The address of the node that leads, once it does and the cluster has begun."""
        client = NodeClient(list(self.urls.values()), SECRET)
        ends_s = time.monotonic() + START_S
        while time.monotonic() < ends_s:
            try:
                for url, status in client.status_of_each().items():
                    if status and status["role"] == "leader" and status["revision"]:
                        return url
            except CoordinationError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"no leader within {START_S} s")
