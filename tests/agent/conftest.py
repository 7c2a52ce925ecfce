"""A server that speaks the API, and the client as a program."""

from __future__ import annotations

import pytest

from tests.agent.server import Agent, Server
from tests.api.conftest import name, secrets, site, web
from tests.cluster import committed_database, node_process

__all__ = ["committed_database", "name", "node_process", "secrets", "site", "web"]


@pytest.fixture
def server():
    started = Server()
    yield started
    started.close()


@pytest.fixture
def agent(server, tmp_path):
    return Agent(server.url, tmp_path)
