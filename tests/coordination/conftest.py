"""Fixtures of the coordination tests."""

from tests.cluster import async_client, committed_database, live_node, node_process

__all__ = ["async_client", "committed_database", "live_node", "node_process"]
