"""Real servers for the tests: one embedded PostgreSQL and one Redis a run, on Unix sockets in a folder of their own.

They start here, before Django reads its settings, and only in the process that was called: workers of
pytest-xdist find the addresses in their environment. A DATABASE_URL or REDIS_URL given from outside is used
instead. `PG=16` runs the tests on the other PostgreSQL.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import django
import pytest

from gaia_site.embedded.servers import Servers, servers_in

_FOR_TESTS = {
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "shared_buffers": "128MB",
    "max_connections": "120",  # several xdist workers, each with a pool and crash tests' processes
}
_SETTINGS = {
    "DJANGO_SETTINGS_MODULE": "gaia_site.settings",
    "SECRET_KEY": "a-key-for-tests-alone-0123456789abcdef",
    "CLUSTER_SECRET": "a-cluster-secret-for-tests-0123456789ab",
}
_FOLDER_KEY = pytest.StashKey[Path]()
_SERVERS_KEY = pytest.StashKey[Servers]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Start the servers, then set Django up: pytest-django, which comes later, finds it ready."""
    _provide_servers(config)
    django.setup()


def _provide_servers(config: pytest.Config) -> None:
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if os.environ.get("DATABASE_URL") and os.environ.get("REDIS_URL"):
        return
    folder = Path(tempfile.mkdtemp(prefix="gaia-", dir="/tmp"))
    folder.chmod(0o711)  # the servers may run under another account
    config.stash[_FOLDER_KEY] = folder
    servers = servers_in(folder, postgres_version=int(os.environ.get("PG") or 18), overrides=_FOR_TESTS)
    config.stash[_SERVERS_KEY] = servers
    servers.start()
    os.environ.setdefault("DATABASE_URL", servers.postgres.url)
    os.environ.setdefault("REDIS_URL", servers.redis.url)
    os.environ["GAIA_DATA_DIR"] = str(folder / "data")


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers and remove their folder."""
    servers = config.stash.get(_SERVERS_KEY, None)
    if servers is not None:
        servers.stop()
    folder = config.stash.get(_FOLDER_KEY, None)
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
